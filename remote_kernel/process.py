"""Tell one process of this machine from another that has got its number later, and one start of it from the next.

Python 3.8, standard library: this file is also shipped to the remote host.
"""

from __future__ import annotations

import os
import re
import subprocess

_BOOT_SECONDS = 60.0  # a clock that is set moves the time of the start along with it
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


def boot() -> str:
    """Name this start of the machine: by an id where there is one, else by its time; empty where that is hidden."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        pass
    try:
        # Not the wall clock less the monotonic one: that one stands still while a machine sleeps.
        listing = subprocess.run(
            ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"\bsec = (\d+)", listing.stdout)
    return found[1] if found else ""


def is_same_boot(one: str, other: str) -> bool:
    """Whether two names, each from `boot`, are of the same start."""
    if one.isdecimal() and other.isdecimal():
        return abs(int(one) - int(other)) <= _BOOT_SECONDS
    return one == other
