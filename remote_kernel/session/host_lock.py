"""host.lock: which process is a session's host, and where it listens.

The host holds a lock on the file for as long as it lives. In it are two lines: pid and start of the process (see
process.birth), then the path of its socket, empty while it serves nobody: it is starting, or ending. The path has to be
written down: a client's XDG_RUNTIME_DIR may be another one than the host's (cron, su, a container), and logind removes
that folder when the user logs out.

Imports little: every call of `rkernel exec` reads the file.
"""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple


class Holder(NamedTuple):
    """The host, as host.lock names it: `socket` is None in a file of an older version, which does not say it."""

    pid: int
    born: str
    socket: str | None


def read_holder(path: str) -> Holder | None:
    """Read the file; None where it says of no process."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            first, *rest = file.read(8192).split("\n")
    except OSError:
        return None
    pid, _, born = first.partition(" ")
    return Holder(int(pid), born, rest[0] if rest else None) if pid.isdigit() else None


def take_lock(path: str) -> int:
    """Return a descriptor that holds the lock, -1 where another process has it. Raises FileNotFoundError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1
    os.ftruncate(lock, 0)  # what is in it is of a host that has ended
    return lock


class HostLock:
    """The lock, in the host that holds it."""

    def __init__(self, path: str, lock: int, born: str) -> None:
        """`lock` is the locked descriptor, whose owner this becomes; `born` is when this process began."""
        self._path, self._lock, self._born = path, lock, born

    def write(self, socket: str = "") -> None:
        """Write where the host listens, empty for nowhere. Raises OSError on a full disk."""
        text = f"{os.getpid()} {self._born}\n{socket}\n".encode(errors="surrogateescape")
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))

    def is_in_place(self) -> bool:
        """True if the file that clients find is still the one that is locked."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._lock))
        except FileNotFoundError:
            return False

    def lock_again(self) -> bool:
        """Lock the file anew after it was removed; false if another host has done so. Raises OSError."""
        lock = take_lock(self._path)
        if lock < 0:
            return False
        os.close(self._lock)
        self._lock = lock
        return True
