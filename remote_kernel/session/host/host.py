"""Run the host process of one session: hold its kernel, run its cells, and answer its clients.

The host is started by the first client and belongs to nobody: it ends with `close`. Killed, it takes nothing with it;
the kernel lives, and the next client starts the next host, which finds the kernel by session.json. What clients say is
in request_server.py, what becomes of a cell in queue.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from remote_kernel.errors import LocalFilesError, RemoteKernelError
from remote_kernel.process import birth
from remote_kernel.session.host import host_log
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.history import History
from remote_kernel.session.host.queue import CellQueue
from remote_kernel.session.host.recording import Recording
from remote_kernel.session.host.request_handlers import RequestHandlers
from remote_kernel.session.host.request_server import RequestServer
from remote_kernel.session.host.upkeep import Upkeep
from remote_kernel.session.host_lock import HostLock
from remote_kernel.session.notebook.nbformat import NotebookError
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import encode_problem
from remote_kernel.session.record import read_record

_COPY_SECONDS = 10.0  # for the copies of notebooks to be written before the host ends


class Host:
    """One session's host. `run` lasts as long as the session, or until somebody asks the host to leave."""

    def __init__(self, paths: Paths, lock: HostLock) -> None:
        record = read_record(paths)
        self._history = History(paths)
        self._engine = Engine(paths, record)
        self._notebook = Recording(paths, record)
        self._engine.foreign.on_begin = self._notebook.record
        self._engine.emit_after = self._notebook.add_after
        self._queue = CellQueue(paths, self._engine, self._history, self._notebook)
        self._engine.kernel.handle_gap = self._queue.handle_gap
        self._handlers = RequestHandlers(paths, self._engine, self._queue, self._notebook)
        self._server = RequestServer(paths, lock, self._engine, self._queue, self._handlers)
        self._upkeep = Upkeep(paths, lock, self._engine.kernel, self._queue, self._server)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until `close`; call `ready` when clients may come. Raises RemoteKernelError where no kernel starts."""
        self._open_notebook()
        left = self._queue.restore()
        await self._find_kernel()
        self._notebook.describe(self._engine.kernel.record, self._engine.kernel.info)
        self._queue.follow_restored(left)
        await self._server.open()
        runner = asyncio.ensure_future(self._queue.run())
        upkeep = asyncio.ensure_future(self._upkeep.run())
        try:
            ready()
            leaving = asyncio.ensure_future(self._handlers.leave.wait())
            either: set[asyncio.Future[Any]] = {leaving, runner, upkeep}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if runner.done():
                runner.result()  # raises what ended it
            if upkeep.done() and not leaving.done():
                host_log.write(f"the session ends: {upkeep.result()}")
                await self._handlers.close()
        finally:
            runner.cancel()
            upkeep.cancel()
            self._server.close()
            await asyncio.sleep(0.05)  # for the last answers to go out
            await self._queue.copies.settle(_COPY_SECONDS)
            await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)

    def _open_notebook(self) -> None:
        """Open it, and write what an earlier host could not. Raises NotebookError in a session that has run nothing."""
        try:
            self._notebook.open()
        except NotebookError as error:
            if self._history.is_empty:
                raise
            self._notebook.give_up(str(error))
        self._notebook.catch_up(self._history)

    async def _find_kernel(self) -> None:
        """Find the kernel, or start the session's first. Raises RemoteKernelError in a session that has run nothing.

        Any other is served without a kernel too: what its cells gave is still there to be looked at.
        """
        kernel = self._engine.kernel
        try:
            if kernel.record.is_attached or kernel.record.pid:
                await kernel.adopt()
            elif kernel.record.generation == 1 and self._history.is_empty:
                await kernel.start()
            else:
                kernel.mark_missing()
        except RemoteKernelError:
            if self._history.is_empty:
                raise


def main(arguments: list[str]) -> int:
    """Run the host of a session: its name, a descriptor to report to when ready, and that of the locked host.lock."""
    name, report, lock = arguments[0], int(arguments[1]), int(arguments[2])
    os.set_inheritable(lock, False)
    paths = Paths(name)
    host_lock = HostLock(paths.host_lock, lock, birth(os.getpid()))
    with contextlib.suppress(OSError):  # the disk may be full
        host_lock.write()

    def ready() -> None:
        with contextlib.suppress(OSError):  # the client may have been interrupted: the next one finds us
            os.write(report, b'{"answer": {}}\n')
        os.close(report)

    try:
        asyncio.run(Host(paths, host_lock).run(ready))
    except (RemoteKernelError, OSError) as caught:
        error = LocalFilesError.of(caught) if isinstance(caught, OSError) else caught
        host_log.write(str(error))
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"problem": encode_problem(error)}).encode() + b"\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
