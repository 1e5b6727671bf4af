"""Keep a session reachable for as long as its host lives: its socket and its folder may be removed under it.

logind removes XDG_RUNTIME_DIR at logout, and people tidy up Jupyter's runtime folder. The host then listens again, in
a folder made anew; cells that run keep their journals. What earlier cells gave went with the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from remote_kernel.errors import RemoteKernelError
from remote_kernel.files import write_private
from remote_kernel.session.host import host_log
from remote_kernel.session.host.lifecycle import KernelLifecycle
from remote_kernel.session.host.queue import CellQueue
from remote_kernel.session.host.request_server import RequestServer
from remote_kernel.session.host_lock import HostLock
from remote_kernel.session.paths import Paths
from remote_kernel.session.record import write_record

_LOOK_SECONDS = 1.0
_UNREACHABLE_SECONDS = 24 * 3600.0  # as long as a kernel outlives a lost connection, if nothing else is asked for


class Upkeep:
    """Repairs one session's socket and folder."""

    def __init__(
        self,
        paths: Paths,
        lock: HostLock,
        kernel: KernelLifecycle,
        queue: CellQueue,
        server: RequestServer,
    ) -> None:
        self._paths, self._lock, self._kernel = paths, lock, kernel
        self._queue, self._server = queue, server
        self._said = ""

    async def run(self) -> str:
        """Check both again and again. Returns why no client can come any longer: the host is to end then."""
        seen_well = time.monotonic()
        while time.monotonic() - seen_well < _UNREACHABLE_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if not (self._lock.is_in_place() and self._paths.exists()) and not self._restore_folder():
                    return "its folder was removed, and another session has got its name"
                if not self._server.is_reachable:
                    await self._server.open()
                    host_log.write("the socket was removed, and is there again")
                seen_well, self._said = time.monotonic(), ""
            except (OSError, RemoteKernelError) as error:
                if str(error) != self._said:
                    self._said = str(error)
                    host_log.write(f"clients cannot come: {error}")
        return "its folder or its socket was removed, and could not be made again for a day"

    def _restore_folder(self) -> bool:
        """Make the folder again; false where another host has got the session's name. Raises OSError."""
        paths, record = self._paths, self._kernel.record
        paths.make()
        if not self._lock.is_in_place() and not self._lock.lock_again():
            return False
        write_record(paths, record)
        if not record.is_attached and not os.path.exists(paths.connection_file):
            write_private(paths.connection_file, json.dumps(self._kernel.connection_values, indent=1))
        if self._kernel.last_launcher_state and not os.path.exists(paths.kernel_state):
            write_private(paths.kernel_state, json.dumps(self._kernel.last_launcher_state._asdict()))
        for journal in self._queue.journals.values():
            journal.restore()
        log = os.open(paths.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for standard in (1, 2):
            os.dup2(log, standard)
        os.close(log)
        self._server.say_where()
        host_log.write("the session's folder was removed, and is there again; what earlier cells gave went with it")
        return True
