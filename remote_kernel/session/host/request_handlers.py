"""Handle what a session's clients ask beside running cells: its state, an interrupt, a restart, a look at a name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from remote_kernel import __version__
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.queue import CellQueue
from remote_kernel.session.host.recording import Recording
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import RunningCell, decode
from remote_kernel.session.questions import (
    AskCopy,
    AskStatus,
    Close,
    Closed,
    Complete,
    Completions,
    CopyState,
    Inspect,
    Inspection,
    Interrupt,
    Interrupted,
    Leave,
    ListVariables,
    Restart,
    Restarted,
    RunNotebook,
    RunTaken,
    SessionStatus,
    Variable,
)

_REST_SECONDS = 1.0  # for a short cell to end before the host leaves: nothing of that is missed then
_Handler = Callable[[Any], Coroutine[Any, Any, object]]


class RequestHandlers:
    """A handler for each request that runs no cell. `leave` is set when it has to end."""

    def __init__(self, paths: Paths, engine: Engine, queue: CellQueue, notebook: Recording) -> None:
        self.leave = asyncio.Event()
        self._paths, self._engine, self._queue, self._notebook = paths, engine, queue, notebook
        self._since = time.time()
        self._handlers: dict[str, tuple[type, _Handler]] = {
            "status": (AskStatus, self._status),
            "restart": (Restart, self._restart),
            "close": (Close, self.close),
            "leave": (Leave, self._leave),
            "variables": (ListVariables, self._variables),
            "inspect": (Inspect, self._inspect),
            "complete": (Complete, self._complete),
            "run": (RunNotebook, self._run),
            "written": (AskCopy, self._written),
        }

    async def answer(self, do: str, fields: Mapping[str, Any], is_wanted: Callable[[], bool]) -> object:
        """Handle a request, and return what the client gets. Raises RemoteKernelError.

        `is_wanted` is true while the client waits: an interrupt is not repeated for one that has left.
        """
        if do == "interrupt":
            return await self._interrupt(decode(Interrupt, fields), is_wanted)
        if do not in self._handlers:
            hint = f"'rkernel refresh {self._paths.name}' replaces an older host; the kernel and its variables stay"
            raise UsageError(f"the host knows no request '{do}'", hint)
        kind, handle = self._handlers[do]
        return await handle(decode(kind, fields))

    async def _status(self, asked: AskStatus) -> SessionStatus:
        kernel, engine = self._engine.kernel, self._engine
        launcher_state = kernel.launcher_state()
        is_away = launcher_state is not None and not launcher_state.connected
        if asked.memory and not kernel.is_dead and not is_away:
            with contextlib.suppress(RemoteKernelError):
                usage = await engine.ask("usage_request", {}, channel="control", seconds=2.0)
                kernel.memory_bytes = int(usage.content.get("kernel_memory") or 0)
        record = kernel.record
        return SessionStatus(
            session=self._paths.name,
            version=__version__,
            kernelspec=record.kernelspec,
            display_name=record.display_name,
            language=kernel.language if kernel.info else "",
            host=record.host,
            folder=record.folder,
            state="unknown" if kernel.is_lost else "dead" if kernel.is_dead else "busy" if engine.is_busy else "idle",
            connected=launcher_state.connected if launcher_state else None,
            away_for=launcher_state.reason if launcher_state and is_away else "",
            trouble=kernel.trouble,
            generation=record.generation,
            memory_bytes=kernel.memory_bytes,
            running=_describe(self._queue.running or next(iter(engine.foreign.cells), None)),
            queued=[cell.number for cell in self._queue.waiting],
            log=record.log,
            log_trouble=self._notebook.trouble,
            connection_file=record.connection_file,
            since=self._since,
            pid=os.getpid(),
            attached=record.is_attached,
        )

    async def _interrupt(self, asked: Interrupt, is_wanted: Callable[[], bool]) -> Interrupted:
        number = asked.cell
        queue, engine = self._queue, self._engine
        dropped = []
        for cell in list(queue.waiting):
            if cell.number == number or asked.all:
                cell.interrupted = True
                queue.remove(cell, "aborted", "it was taken out of the queue")
                dropped.append(cell.number)
        if number and dropped:
            return Interrupted(True, dropped)
        target = queue.cells.get(number) if number else queue.running
        if target and engine.withdraw(target):
            return Interrupted(True, [*dropped, target.number])
        if number and target is None:
            queue.history.check(number)
            return Interrupted(True, ended=True)
        if target is None and not engine.is_busy:
            return Interrupted(True, dropped, idle=True)
        if target:
            queue.remove_rest_of_run(target)
        what = _describe(target or next(iter(engine.foreign.cells), None))
        return Interrupted(await engine.interrupt(target, is_wanted), dropped, what)

    async def _restart(self, _: Restart) -> Restarted:
        kernel = self._engine.kernel
        if kernel.record.is_attached:
            raise UsageError("this kernel was started elsewhere", "restart it there")
        for cell in list(self._queue.waiting):
            self._queue.remove(cell, "lost", "it never ran: the kernel was restarted")
        killed = await kernel.restart()
        return Restarted(kernel.record.generation, killed)

    async def close(self, _: Close = Close()) -> Closed:  # noqa: B008  it has no fields
        """End the kernel, its cells as lost, and the notebook."""
        cells = list(self._queue.cells.values())
        for cell in cells:
            cell.lost_because = "the session was closed"
        killed = await self._engine.kernel.end()
        for cell in cells:
            cell.finish("lost")
        is_complete = await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)
        self.leave.set()
        return Closed("" if is_complete else self._notebook.trouble or "it took too long", killed)

    async def _leave(self, asked: Leave) -> Leave:
        self._queue.pause()
        await self._engine.wait_for_cells(_REST_SECONDS)
        self._engine.kernel.release()
        self.leave.set()
        return asked

    async def _variables(self, asked: ListVariables) -> list[Variable]:
        """List a Python kernel's variables, sorted by name; raises RemoteError where a value takes too long."""
        found = await self._engine.kernel.require_client().ask_kernel_side("variables", pattern=asked.pattern or "*")
        return [Variable(name, **found[name]) for name in sorted(found)]

    async def _run(self, run: RunNotebook) -> RunTaken:
        return RunTaken(self._queue.submit_run(run), self._engine.kernel.record.generation)

    async def _written(self, asked: AskCopy) -> CopyState:
        return await self._queue.copies.written(asked.cell)

    async def _inspect(self, asked: Inspect) -> Inspection:
        content = {"code": asked.name, "cursor_pos": len(asked.name), "detail_level": asked.detail}
        return decode(Inspection, await self._ask_beside("inspect_request", content))

    async def _complete(self, asked: Complete) -> Completions:
        at = len(asked.code) if asked.at is None else asked.at
        content = {"code": asked.code, "cursor_pos": at}
        return decode(Completions, await self._ask_beside("complete_request", content))

    async def _ask_beside(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        engine = self._engine
        return await engine.kernel.require_client().ask_beside(kind, content, is_busy=engine.is_busy)


def _describe(cell: Cell | None) -> RunningCell | None:
    return None if cell is None else RunningCell(cell.number, cell.code[:200], cell.author, cell.started_at)
