"""A file that is being received: written beside its final name, which it gets in one step.

It stays where it is if the transfer breaks, and the next one goes on from there. Two transfers of one file at a time
keep out of each other's way by a lock.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import fcntl
import os
import stat
from hashlib import blake2b

from remote_kernel.sync.tree import PARTS, is_part


class Part:
    """The unfinished file for one path. `size` is what it held when it was opened. Owns its descriptor."""

    def __init__(self, target: bytes, version: bytes = b"") -> None:
        """Open it, a new one where there is none or another transfer has it. Raises OSError.

        With a `version` it is one that holds nothing but the beginning of that version of the file.
        """
        self._target = target
        self.path = part_path(target, version)
        self.fd = _open(self.path)
        if self.fd < 0:
            self.path = part_path(target, version + b"%d" % os.getpid())
            self.fd = _open(self.path)
        if self.fd < 0:
            raise OSError(0, "another sync is writing it")
        self.size = os.fstat(self.fd).st_size

    def write(self, data: bytes, offset: int) -> None:
        """Write all of it there."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, offset)
            view, offset = view[count:], offset + count

    def finish(self, size: int, mode: int, time: int) -> None:
        """Give it its length, mode and time (nanoseconds), and its final name."""
        if os.fstat(self.fd).st_size != size:
            os.ftruncate(self.fd, size)
        os.fchmod(self.fd, mode)
        os.utime(self.fd, ns=(time, time))
        os.rename(self.path, self._target)

    def close(self) -> None:
        """Leave it as it is. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Throw it away."""
        try:
            os.unlink(self.path)
        except OSError:
            pass
        self.close()


def opened_part(target: bytes, version: bytes = b"") -> Part:
    """Open the unfinished file, also in a folder of ours that is write-protected. Raises OSError."""
    try:
        return Part(target, version)
    except PermissionError:
        folder = os.path.dirname(target)
        about = os.stat(folder)
        if about.st_mode & 0o700 == 0o700 or about.st_uid != os.getuid():
            raise
        os.chmod(folder, stat.S_IMODE(about.st_mode) | 0o700)  # gets its own mode at the end
        return Part(target, version)


def part_path(target: bytes, more: bytes = b"") -> bytes:
    """Give the path of a file's unfinished copy."""
    folder, name = os.path.split(target)
    mark = blake2b(name + b"\0" + more, digest_size=8).hexdigest().encode()
    return os.path.join(folder, PARTS[0] + mark + PARTS[1])


def sweep(folder: bytes) -> None:
    """Remove the unfinished files in a folder that no transfer is writing."""
    try:
        with os.scandir(folder) as items:
            found = [item.path for item in items if is_part(item.name)]
    except OSError:
        return
    for path in found:
        try:
            fd = _open(path, os.O_RDWR)
        except OSError:
            continue
        if fd >= 0:
            os.unlink(path)
            os.close(fd)


def _open(path: bytes, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Give the descriptor, locked; -1 where another process has the lock."""
    fd = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    except OSError:
        pass  # a file system without locks
    if not _is_still_there(path, fd):  # it got its final name while we were at it: never write to that
        os.close(fd)
        return -1
    return fd


def _is_still_there(path: bytes, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False
