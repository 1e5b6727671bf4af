"""Learn from an IPython kernel how a cell ended, when nobody was there to see it, or that it never began."""

from __future__ import annotations

from remote_kernel.session.events import Error
from remote_kernel.session.host.asking import UNLIMITED_SECONDS
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.kernel_side import UNSEEN
from remote_kernel.session.host.questions import NoAnswer


async def learn_end(cell: Cell, engine: Engine) -> bool:
    """End a cell as it has ended; true if it never began, and never will unless it is sent again.

    Waits until the kernel has come to the end of what runs, and all output of that is here. Raises RemoteKernelError.
    """
    while True:
        try:
            was_there = await engine.prepare()
            break
        except NoAnswer:  # the connection to its host is away, say: the cell goes on
            continue
    if cell.side:
        await engine.ended_beside()
    channel = "control" if cell.side else "shell"
    end = await engine.ask_side("end", {"request": cell.request}, channel, UNLIMITED_SECONDS)
    if not cell.side:
        await engine.passed()
    if end == UNSEEN:  # where the kernel remembers only since this host came, or the cell went, it means nothing
        return (was_there or cell.is_remembered) and not cell.started_at
    if end and not cell.done.done():
        count, *error = end
        cell.execution_count = cell.execution_count if count is None else count
        cell.start(cell.execution_count)
        if error[:1] == ["SystemExit"] and cell.script:
            cell.exit_script(error[1])
        elif error:
            cell.tell(Error(*error))
        cell.finish("interrupted" if error[:1] == ["KeyboardInterrupt"] else "error" if error else "ok")
    return False
