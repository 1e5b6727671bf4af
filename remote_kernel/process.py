"""Tell one process of this machine from another that has got its number later."""

from __future__ import annotations

import os
import subprocess

_START = 19  # the field of /proc/PID/stat behind the name (proc(5): starttime is the 22nd of all)


def birth(pid: int) -> str:
    """Say when a process began, in the system's own terms; empty where there is none that lives."""
    if os.path.isdir("/proc/self"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] == b"Z" else fields[_START].decode()
    listing = subprocess.run(
        ["ps", "-p", str(pid), "-o", "stat=,lstart="], capture_output=True, text=True, timeout=10, check=False
    )
    state, _, began = listing.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def is_alive(pid: int, born: str = "") -> bool:
    """Whether the process lives; with `born`, whether it is still the one that began then."""
    found = birth(pid)
    return bool(found) and found == (born or found)
