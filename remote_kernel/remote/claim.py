"""Say whose a kernel's folder is, and tell of another's whether its owner still lives.

That nobody answers at its socket is no proof that an agent is dead. It may be about to make the socket. Or its folder
is in a home that several hosts share: a socket there refuses whoever is on another host. So a folder holds a note of
the host and the process that made it, and that process holds a lock on the note until it ends. Only what this host
can be sure of counts: the note is its own, the lock is free, and the process is gone, or was one of before the host
was restarted. Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from enum import Enum

from remote_kernel.process import birth, boot, is_alive, is_same_boot
from remote_kernel.remote.kernel import hostname

NOTE = "owner"
_MAKING_SECONDS = 3600.0  # far more than it takes to write the note, and than the clocks of two hosts differ


class Claim(Enum):
    """What is known of a folder's owner."""

    HELD = "held"  # it lives, or it may be writing its note just now
    ELSEWHERE = "elsewhere"  # it is a process of another host, which alone can tell
    ABANDONED = "abandoned"  # it was a process of this host and is no more, or the folder is gone


def make_claim(folder: str) -> None:
    """Claim a folder for this process, until it ends. Raises OSError where nothing can be written."""
    # Never closed: the lock is to last as long as the process; what is started from here has no part in it.
    fd = os.open(os.path.join(folder, NOTE), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass  # a file system without locks: the process has to tell
    pid = os.getpid()
    note = {"host": _host(), "boot": boot(), "pid": pid, "born": birth(pid)}
    os.write(fd, json.dumps(note).encode())


def look_at_claim(folder: str) -> Claim:
    """Tell whether a folder's owner lives. What cannot be told counts as held."""
    try:
        fd = os.open(os.path.join(folder, NOTE), os.O_RDWR | os.O_NOFOLLOW)  # NFS locks only what may be written
    except FileNotFoundError:
        return _without_note(folder)
    except OSError:
        return Claim.HELD
    try:
        note = _read(fd)
        if note is None:
            return _without_note(folder)
        if note["host"] != _host():
            return Claim.ELSEWHERE
        if _is_locked(fd):
            return Claim.HELD
        lives = is_same_boot(note["boot"], boot()) and is_alive(int(note["pid"]), note["born"])
        return Claim.HELD if lives else Claim.ABANDONED
    finally:
        os.close(fd)


def claimant(folder: str) -> str:
    """Name the host whose folder it is; empty where that is not written there."""
    try:
        with open(os.path.join(folder, NOTE), "rb") as file:
            note = _read(file.fileno())
    except OSError:
        return ""
    return note["host"].partition(" ")[0] if note else ""


def _without_note(folder: str) -> Claim:
    try:
        age = time.time() - os.stat(folder).st_mtime
    except FileNotFoundError:
        return Claim.ABANDONED
    except OSError:
        return Claim.HELD
    return Claim.ABANDONED if age > _MAKING_SECONDS else Claim.HELD


def _read(fd: int) -> dict[str, str] | None:
    """Read a note; None for one that is not whole (yet)."""
    try:
        note = json.loads(os.pread(fd, 4096, 0))
        return {name: str(note[name]) for name in ("host", "boot", "pid", "born")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _host() -> str:
    """Name this host so that another of the same name, as containers and cloud machines may be, is told apart."""
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return f"{hostname()} {file.read().strip()}"
    except OSError:
        return f"{hostname()} "
