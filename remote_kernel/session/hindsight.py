"""Learn from an IPython kernel how a cell ended, when nobody was there to see it, or that it never began."""

from __future__ import annotations

from remote_kernel.session.cell import Cell
from remote_kernel.session.engine import UNLIMITED_SECONDS, Engine
from remote_kernel.session.events import Error
from remote_kernel.session.kernel_side import UNSEEN


async def learn_end(cell: Cell, engine: Engine) -> bool:
    """End a cell as it has ended; true if it never began, and never will unless it is sent again.

    Waits until the kernel has come to the end of what runs, and all output of that is here. Raises RemoteKernelError.
    """
    was_there = await engine.prepare()
    if cell.side:
        await engine.ended_beside()
        end = await engine.look("end", request=cell.request)
    else:
        end = await engine.look("end", channel="shell", seconds=UNLIMITED_SECONDS, request=cell.request)
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
