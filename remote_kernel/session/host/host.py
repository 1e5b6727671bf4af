"""Stay with one session: hold its kernel, run its cells, and answer its clients.

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
import time
from collections.abc import Callable
from typing import Any

from remote_kernel.errors import LocalFilesError, RemoteKernelError
from remote_kernel.process import birth
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.history import Past
from remote_kernel.session.host.queue import Agenda
from remote_kernel.session.host.recording import Recording
from remote_kernel.session.host.request_server import Reception, problem
from remote_kernel.session.host.requests import Requests
from remote_kernel.session.host.upkeep import Upkeep
from remote_kernel.session.host_lock import HostLock
from remote_kernel.session.notebook.nbformat import NotebookError
from remote_kernel.session.paths import Place
from remote_kernel.session.record import read_record
from remote_kernel.terminal_safe import terminal_safe

_COPY_SECONDS = 10.0  # for the copies of notebooks to be written before the host ends


class Host:
    """One session's host. `run` lasts as long as the session, or until somebody asks the host to leave."""

    def __init__(self, place: Place, lock: HostLock) -> None:
        record = read_record(place)
        self._past = Past(place)
        self._engine = Engine(place, record, note)
        self._notebook = Recording(place, record, note)
        self._engine.foreign.tell = self._notebook.record
        self._engine.tell_after = self._notebook.add_after
        self._agenda = Agenda(place, self._engine, self._past, self._notebook, note)
        self._engine.life.see_gap = self._agenda.see_gap
        self._requests = Requests(place, self._engine, self._agenda, self._notebook)
        self._reception = Reception(place, lock, self._engine, self._agenda, self._requests, note)
        self._upkeep = Upkeep(place, lock, self._engine.life, self._agenda, self._reception, note)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until `close`; call `ready` when clients may come. Raises RemoteKernelError where no kernel starts."""
        self._open_notebook()
        left = self._agenda.take_up()
        await self._find_kernel()
        self._notebook.describe(self._engine.life.record, self._engine.life.info)
        self._agenda.follow_up(left)
        await self._reception.open()
        runner = asyncio.ensure_future(self._agenda.run())
        upkeep = asyncio.ensure_future(self._upkeep.run())
        try:
            ready()
            leaving = asyncio.ensure_future(self._requests.leave.wait())
            either: set[asyncio.Future[Any]] = {leaving, runner, upkeep}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if runner.done():
                runner.result()  # raises what ended it
            if upkeep.done() and not leaving.done():
                note(f"the session ends: {upkeep.result()}")
                await self._requests.answer("close", {}, lambda: True)
        finally:
            runner.cancel()
            upkeep.cancel()
            self._reception.close()
            await asyncio.sleep(0.05)  # for the last answers to go out
            await self._agenda.copies.settle(_COPY_SECONDS)
            await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)

    def _open_notebook(self) -> None:
        """Open it, and write what an earlier host could not. Raises NotebookError in a session that has run nothing."""
        try:
            self._notebook.open()
        except NotebookError as error:
            if self._past.is_empty:
                raise
            self._notebook.give_up(str(error))
        self._notebook.catch_up(self._past)

    async def _find_kernel(self) -> None:
        """Find the kernel, or start the session's first. Raises RemoteKernelError in a session that has run nothing.

        Any other is served without a kernel too: what its cells gave is still there to be looked at.
        """
        life = self._engine.life
        try:
            if life.record.is_attached or life.record.pid:
                await life.adopt()
            elif life.record.generation == 1 and self._past.is_empty:
                await life.start()
            else:
                life.lack()
        except RemoteKernelError:
            if self._past.is_empty:
                raise


def note(text: str) -> None:
    """Write a line to host.log, which is this process's stderr. Its disk may be full: nothing depends on it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {terminal_safe(text)}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Be the host of the session named first; then come descriptors: to report to when ready, and host.lock, locked."""
    name, report, lock = arguments[0], int(arguments[1]), int(arguments[2])
    os.set_inheritable(lock, False)
    place = Place(name)
    host_lock = HostLock(place.host_lock, lock, birth(os.getpid()))
    with contextlib.suppress(OSError):  # the disk may be full
        host_lock.write()

    def ready() -> None:
        with contextlib.suppress(OSError):  # the client may have been interrupted: the next one finds us
            os.write(report, b'{"answer": {}}\n')
        os.close(report)

    try:
        asyncio.run(Host(place, host_lock).run(ready))
    except (RemoteKernelError, OSError) as caught:
        error = LocalFilesError.of(caught) if isinstance(caught, OSError) else caught
        note(str(error))
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"problem": problem(error)}).encode() + b"\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
