"""Small files: each one message, read and written in as few system calls as that takes.

A tree of sources is thousands of them, and then what is done for each decides how long it takes. A small file needs no
resuming, and so no name that is found again and no lock. Whatever is out of the ordinary is left to `contents`.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os
import stat

from remote_kernel.sync.modes import set_mode
from remote_kernel.sync.tree import PARTS, Entry

MOST = 64 << 10
_HOLE = bytes(4096)


def read(path: bytes, entry: Entry) -> bytes | None:
    """Give what a small file holds; None where it may have holes, or is to be sent in pieces. Raises OSError."""
    if entry.size > MOST:
        return None
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = os.read(fd, entry.size)
    finally:
        os.close(fd)
    if len(data) < entry.size:
        raise OSError(0, "it became shorter while it was read")
    return None if entry.is_sparse and _HOLE in data else data


class Writer:
    """Writes small files into folders that are open: no link in a folder's place leads them elsewhere."""

    def __init__(self) -> None:
        self._part = PARTS[0] + os.urandom(8).hex().encode() + PARTS[1]
        self._turn, self._kept = 0, -1  # which mode a new file gets as it is asked for, in the folder of that turn

    def write(self, folder: int, turn: int, name: bytes, entry: Entry, data: bytes) -> bool:
        """Write one beside its final name, which it then gets; false, and nothing is changed, if that fails.

        Another sync may sweep the unfinished file away, as nothing locks it: this is one reason to fail. `turn` tells
        one folder from the one before it.
        """
        try:
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, entry.mode, dir_fd=folder)
        except OSError:
            return False
        try:
            try:
                is_whole = os.write(fd, data) == len(data)
                if self._kept != entry.mode or self._turn != turn:
                    self._set_mode(fd, turn, entry.mode)
                os.utime(fd, ns=(entry.time, entry.time))
            finally:
                os.close(fd)
            if is_whole:
                os.rename(self._part, name, src_dir_fd=folder, dst_dir_fd=folder)
                return True
        except OSError:
            pass
        try:
            os.unlink(self._part, dir_fd=folder)
        except OSError:
            pass
        return False

    def _set_mode(self, fd: int, turn: int, mode: int) -> None:
        """Give a new file its mode, which a umask or the folder's ACL may have cut; it costs as much as the writing."""
        if stat.S_IMODE(os.fstat(fd).st_mode) == mode:
            self._turn, self._kept = turn, mode
        else:
            set_mode(fd, mode)
