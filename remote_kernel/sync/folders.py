"""The folders below a root, each opened from the one above it, so that no link on the way leads elsewhere.

What is in a folder is then named by the folder's descriptor and its last part alone. That costs no more than whole
paths do: the folders on the way to the last one asked for stay open, and what is copied comes folder by folder.
"""

from __future__ import annotations

import errno
import os

_MOST = 200  # folders that stay open on the way to the last: a process may have 1024 files open, or 256
# O_PATH asks for no right to list a folder: one that takes files and shows none is enough. macOS has none.
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS)
_FLAGS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class Folders:
    """Opens folders below `root`, for one `with` block at a time; leaving it closes them. `root` may be a link."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.turn = 0  # how often another folder was gone to
        self._open: list[tuple[bytes, int]] = []  # from the root on, each with the way to it

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def locate(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the folder that a path is in, and its last part.

        The descriptor is good until the next call. Raises OSError, also where a link stands in a folder's place.
        """
        folder, _, name = path.rpartition(b"/")
        if not self._open or self._open[-1][0] != folder:
            self._enter(folder)
        return self._open[-1][1], name

    def _enter(self, folder: bytes) -> None:
        self.turn += 1
        while len(self._open) > 1 and not (folder + b"/").startswith(self._open[-1][0] + b"/"):
            os.close(self._open.pop()[1])
        if not self._open:
            self._open.append((b"", os.open(self.root, _FLAGS)))
        way, fd = self._open[-1]
        for part in folder[len(way) :].split(b"/"):
            if part:
                fd = _descend(fd, part)
                way = way + b"/" + part if way else part
                self._open.append((way, fd))
            if len(self._open) > _MOST:
                os.close(self._open.pop(1)[1])  # the root stays: from there all are found again


def _descend(fd: int, name: bytes) -> int:
    try:
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotADirectoryError(errno.ENOTDIR, "the destination is not a folder") from error
        raise


def set_mode(path: bytes | int, mode: int, folder: int | None = None) -> bool:
    """Set the mode of an open file, or of a path, which may be a name in an open folder; no link is to be there.

    False where the file system has no such mode, as FAT, and some that are reached over a network: that is no failure,
    as it is none for `cp -p` and `scp -p`. Raises OSError, also where it is somebody else's.
    """
    try:
        os.chmod(path, mode, dir_fd=folder)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        about = os.stat(path, dir_fd=folder)
        # This too is the owner's right alone: whoever has it, and may set no mode, has met such a file system.
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=folder)
        return False
    return True
