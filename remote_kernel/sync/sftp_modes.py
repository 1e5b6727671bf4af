"""Give what is on an SFTP server its mode and time, or its time alone where the file system has no such mode.

Both are the owner's right: where the time may be set and the mode not, there is none to be had, as in `modes`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from remote_kernel.sftp.client import Sftp
from remote_kernel.sftp.packets import Job, Reply
from remote_kernel.sync.sftp_tree import kind_of
from remote_kernel.sync.tree import Entry


class Marks:
    """Sets them below a `root`, many at once. `modeless` are the paths that have their time alone, `failed` the others
    that could not be given both, each with the reason.
    """

    def __init__(self, sftp: Sftp, root: bytes) -> None:
        self._sftp, self._root = sftp, root
        self.modeless: list[Entry] = []
        self.failed: list[tuple[Entry, OSError]] = []

    def give(self, wanted: Iterable[tuple[Entry, int]]) -> None:
        """Give each of these that mode, and its time. Raises PipeBroken."""
        asked = [(entry, self._sftp.change(self._at(entry), mode=mode, time_ns=entry.time)) for entry, mode in wanted]
        refused = [entry for entry, reply in asked if self._is_refused(entry, reply)]
        again = [(entry, self._sftp.change(self._at(entry), time_ns=entry.time)) for entry in refused]
        for entry, reply in again:
            try:
                self._sftp.wait(reply).check()
                self.modeless.append(entry)
            except OSError as error:
                self.failed.append((entry, error))

    def _is_refused(self, entry: Entry, reply: Reply) -> bool:
        try:
            self._sftp.wait(reply).check()
        except PermissionError:
            return True
        except OSError as error:
            self.failed.append((entry, error))
        return False

    def _at(self, entry: Entry) -> bytes:
        return os.path.join(self._root, entry.path)


def settle(sftp: Sftp, path: bytes, entry: Entry, changed: Reply) -> Job:
    """Wait until a new file has its size, mode and time, which was asked for. Raises OSError."""
    yield changed
    try:
        changed.check()
    except PermissionError:
        without_mode = sftp.change(path, size=entry.size, time_ns=entry.time)
        yield without_mode
        without_mode.check()


def make_folders(sftp: Sftp, path: bytes, mode: int | None = None) -> None:
    """Make a folder there, of that mode, and those that it is in, where there are none. Raises OSError."""
    about = kind_of(sftp, path)
    if about and stat.S_ISDIR(about.st_mode):
        return
    parent = os.path.dirname(path.rstrip(b"/"))
    if parent and parent != path:
        make_folders(sftp, parent)
    sftp.wait(sftp.make_folder(path.rstrip(b"/"), 0o777 if mode is None else mode)).check()
    about = kind_of(sftp, path) if mode is not None else None
    if mode is not None and about:
        mode |= stat.S_IMODE(about.st_mode) & 0o7000
        try:
            sftp.wait(sftp.change(path, mode=mode)).check()  # a umask may have cut it
        except PermissionError:
            pass  # it is ours, so that the file system has no such mode
