"""Keep a session within reach for as long as its host lives: its socket and its folder may be removed under it.

logind removes XDG_RUNTIME_DIR at logout, and people tidy up Jupyter's runtime folder. The host then listens again, in
a folder made anew; cells that run keep their journals. What earlier cells gave went with the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

from remote_kernel.errors import RemoteKernelError
from remote_kernel.files import write_private
from remote_kernel.session.host.lifecycle import Life
from remote_kernel.session.host.queue import Agenda
from remote_kernel.session.host.request_server import Reception
from remote_kernel.session.host_lock import HostLock
from remote_kernel.session.paths import Place
from remote_kernel.session.record import write_record

_LOOK_SECONDS = 1.0
_UNREACHABLE_SECONDS = 24 * 3600.0  # as long as a kernel outlives a lost connection, if nothing else is asked for


class Upkeep:
    """What one session's host does so that clients find it."""

    def __init__(
        self,
        place: Place,
        lock: HostLock,
        life: Life,
        agenda: Agenda,
        reception: Reception,
        note: Callable[[str], None],
    ) -> None:
        self._place, self._lock, self._life = place, lock, life
        self._agenda, self._reception, self._note = agenda, reception, note
        self._said = ""

    async def run(self) -> str:
        """Look after it again and again. Returns why no client can come any longer: the host is to end then."""
        seen_well = time.monotonic()
        while time.monotonic() - seen_well < _UNREACHABLE_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if not (self._lock.is_in_place() and self._place.exists()) and not self._restore_folder():
                    return "its folder was removed, and another session has got its name"
                if not self._reception.is_reachable:
                    await self._reception.open()
                    self._note("the socket was removed, and is there again")
                seen_well, self._said = time.monotonic(), ""
            except (OSError, RemoteKernelError) as error:
                if str(error) != self._said:
                    self._said = str(error)
                    self._note(f"clients cannot come: {error}")
        return "its folder or its socket was removed, and could not be made again for a day"

    def _restore_folder(self) -> bool:
        """Make the folder again; false where another host has got the session's name. Raises OSError."""
        place, record = self._place, self._life.record
        place.make()
        if not self._lock.is_in_place() and not self._lock.take_again():
            return False
        write_record(place, record)
        if not record.is_attached and not os.path.exists(place.connection_file):
            write_private(place.connection_file, json.dumps(self._life.connection_values, indent=1))
        if self._life.last_presence and not os.path.exists(place.kernel_state):
            write_private(place.kernel_state, json.dumps(self._life.last_presence._asdict()))
        for journal in self._agenda.journals.values():
            journal.restore()
        log = os.open(place.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for standard in (1, 2):
            os.dup2(log, standard)
        os.close(log)
        self._reception.say_where()
        self._note("the session's folder was removed, and is there again; what earlier cells gave went with it")
        return True
