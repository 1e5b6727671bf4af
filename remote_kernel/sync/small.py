"""Small files: each one message, read and written in as few system calls as that takes.

A tree of sources is thousands of them, and then what is done for each decides how long it takes. A small file needs no
resuming, and so no name that is found again and no lock. Whatever is out of the ordinary is left to `contents`.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os

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

    def write(self, folder: int, name: bytes, entry: Entry, data: bytes) -> bool:
        """Write one beside its final name, which it then gets; false, and nothing is changed, if that fails.

        Another sync may sweep the unfinished file away, as nothing locks it: this is one reason to fail.
        """
        try:
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        except OSError:
            return False
        try:
            try:
                is_whole = os.write(fd, data) == len(data)
                os.fchmod(fd, entry.mode)
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
