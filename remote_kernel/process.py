"""Identify processes of this machine: by number and start time, because numbers are used again, and by boot."""

from __future__ import annotations

import os
import re
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BOOT_SECONDS = 60.0  # a clock that is set moves the time of the start along with it
# The fields of /proc/PID/stat behind the name (proc(5), where they have other numbers).
STATE, PARENT, _SESSION, _USER_TICKS, _SYSTEM_TICKS, _START, _PAGES = 0, 1, 3, 11, 12, 19, 21


def read_text(path: str) -> str:
    """Return the text of a small file of the system's; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def stat_fields(pid: int | str) -> list[str]:
    """Return what /proc tells of a process behind its name; empty where it does not live or there is no /proc."""
    return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()


def birth(pid: int) -> str:
    """Return when a process began, in the system's own terms; empty where there is none that lives."""
    if os.path.isdir("/proc/self"):
        fields = stat_fields(pid)
        return fields[_START] if fields and fields[STATE] != "Z" else ""
    state, _, began = _print("ps", "-p", str(pid), "-o", "stat=,lstart=").strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def is_alive(pid: int, born: str = "") -> bool:
    """True if the process lives; with `born`, if it is the one that began then."""
    found = birth(pid)
    return bool(found) and found == (born or found)


def processes() -> Iterator[tuple[int, int, int, int, float]]:
    """Yield every living process: its pid, its parent's, its session, its memory in bytes, its CPU time in seconds."""
    if os.path.isdir("/proc/self"):
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        for name in filter(str.isdigit, os.listdir("/proc")):
            fields = stat_fields(name)
            if fields and fields[STATE] != "Z":
                seconds = (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / tick
                yield int(name), int(fields[PARENT]), int(fields[_SESSION]), int(fields[_PAGES]) * page, seconds
        return
    for line in _print("ps", "-A", "-o", "pid=,ppid=,rss=,time=").splitlines():  # macOS: KiB, [[hours:]minutes:]seconds
        try:
            pid, parent, memory, clock = line.split()
            session = os.getsid(int(pid))
            seconds = 0.0
            for part in clock.replace("-", ":").replace(",", ".").split(":"):  # a comma in many languages
                seconds = seconds * 60 + float(part)
        except (ValueError, OSError):
            continue
        yield int(pid), int(parent), session, int(memory) * 1024, seconds


def boot() -> str:
    """Return a name of this start of the machine: an id where there is one, else its time; empty where it is hidden."""
    # Not the wall clock less the monotonic one: that one stands still while a machine sleeps.
    name = read_text("/proc/sys/kernel/random/boot_id").strip()
    if name:
        return name
    try:
        found = re.search(r"\bsec = (\d+)", _print("sysctl", "-n", "kern.boottime"))
    except (OSError, subprocess.SubprocessError):
        return ""
    return found[1] if found else ""


def is_same_boot(one: str, other: str) -> bool:
    """True if two names, each from `boot`, are of the same start."""
    if one.isdecimal() and other.isdecimal():
        return abs(int(one) - int(other)) <= _BOOT_SECONDS
    return one == other


def _print(*argv: str) -> str:
    """Return what a program prints. Raises OSError, SubprocessError: where nothing is known, nothing has ended."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False)
    return done.stdout.decode("utf-8", "replace")
