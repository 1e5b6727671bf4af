"""A file that is being received: written beside its final name, which it gets in one step.

It stays where it is if the transfer breaks, and the next one goes on from there. Two transfers of one file at a time
keep out of each other's way by a lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from remote_kernel.sync.blocks import new_digest
from remote_kernel.sync.folders import Folders, set_mode
from remote_kernel.sync.tree import PARTIAL_MARKS, is_partial

_LINK_SECONDS = 60.0


class PartialFile:
    """The partial file for one path. `size` is what it held when it was opened. Owns its descriptor.

    A path may be a name in the folder whose descriptor is given.
    """

    def __init__(self, target: bytes, folder: int | None = None, version: bytes = b"") -> None:
        """Open it, or one that nobody else knows: where another transfer has it, or it may not be ours alone.

        With a `version` it is one that holds nothing but the beginning of that version of the file. Raises OSError.
        """
        self._target, self._folder = target, folder
        self.path = partial_path(target, version)
        self.fd, self.size = lock_partial(self.path, folder, os.O_RDWR | os.O_CREAT)
        if self.fd < 0:
            self.path = new_partial_path(target)
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            _lock(self.fd)  # keeps it from being swept away

    def write(self, data: bytes, offset: int) -> None:
        """Write all of it there."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, offset)
            view, offset = view[count:], offset + count

    def finish(self, size: int, mode: int, time_ns: int) -> None:
        """Set its length, mode and time, and rename it to its final name."""
        if os.fstat(self.fd).st_size != size:
            os.ftruncate(self.fd, size)
        set_mode(self.fd, mode)
        os.utime(self.fd, ns=(time_ns, time_ns))
        os.rename(self.path, self._target, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def close(self) -> None:
        """Close it as it is. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove it."""
        try:
            os.unlink(self.path, dir_fd=self._folder)
        except OSError:
            pass
        self.close()


def open_partial(folders: Folders, path: bytes, version: bytes = b"") -> PartialFile:
    """Open the partial file for a path below the root, also in a write-protected folder of ours that it has there.

    It is good until `folders` are asked for another path. Raises OSError.
    """
    folder, name = folders.locate(path)
    try:
        return PartialFile(name, folder, version)
    except PermissionError:
        about = os.fstat(folder)
        # The root is as its owner wants it; what is below comes from the source, and gets that mode at the end.
        if b"/" not in path or about.st_mode & 0o700 == 0o700 or about.st_uid != os.geteuid():
            raise
        os.chmod(b".", stat.S_IMODE(about.st_mode) | 0o700, dir_fd=folder)
        return PartialFile(name, folder, version)


def partial_path(target: bytes, more: bytes = b"") -> bytes:
    """Return the path of a file's partial file."""
    folder, name = os.path.split(target)
    mark = new_digest(name + b"\0" + more, 8).hexdigest().encode()
    return os.path.join(folder, PARTIAL_MARKS[0] + mark + PARTIAL_MARKS[1])


def lock_partial(path: bytes, folder: int | None, flags: int = os.O_RDWR) -> tuple[int, int]:
    """Return a partial file's descriptor, locked, and its size; -1 where it is not ours alone to go on with.

    In a folder that is shared anybody can put something of that name, and a file system without locks cannot keep two
    transfers apart.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    except OSError:
        return -1, 0
    try:
        about = os.fstat(fd)
        is_locked = _lock(fd) if _is_ours(about) else False
        if is_locked and _is_still_there(path, folder, about):
            return fd, about.st_size
        if is_locked is None and flags & os.O_CREAT and not about.st_size:
            os.unlink(path, dir_fd=folder)  # it was made a moment ago
    except OSError:
        pass
    os.close(fd)
    return -1, 0


def sweep(folder: bytes) -> None:
    """Remove the partial files of ours in a folder that no transfer is writing, and links that never got a name."""
    try:
        with os.scandir(folder) as items:
            found = [(item.path, item.is_symlink()) for item in items if is_partial(item.name)]
    except OSError:
        return
    for path, is_link in found:
        if os.path.isdir(path) and not is_link:  # of an rsync, which versions before this one could run
            try:
                os.rmdir(path)
            except OSError:  # an unfinished file is in it
                pass
            continue
        if is_link and _is_of_a_while_ago(path):
            _remove(path)
            continue
        fd, _ = lock_partial(path, None)
        if fd >= 0:
            _remove(path)
            os.close(fd)


def new_partial_path(target: bytes) -> bytes:
    """Return the path of a partial file that nobody else knows."""
    return os.path.join(os.path.dirname(target), PARTIAL_MARKS[0] + os.urandom(8).hex().encode() + PARTIAL_MARKS[1])


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _is_of_a_while_ago(link: bytes) -> bool:
    """True if a link of ours was made some time ago: it has no lock, and gets its name within a moment."""
    try:
        about = os.lstat(link)
    except OSError:
        return False
    return about.st_uid == os.geteuid() and time.time() - about.st_ctime > _LINK_SECONDS


def _is_ours(about: os.stat_result) -> bool:
    """True if nobody else can have put it there, or has another name for it."""
    return stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_nlink == 1


def _lock(fd: int) -> bool | None:
    """True if the file is now locked, None where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still_there(path: bytes, folder: int | None, about: os.stat_result) -> bool:
    """True if it did not get its final name while we were at it: to that we must never write."""
    return os.path.samestat(os.stat(path, dir_fd=folder, follow_symlinks=False), about)
