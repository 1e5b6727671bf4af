"""Measure what kernels use: the memory of all their processes, and whether they use the CPU right now.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAMPLE_SECONDS = 0.25
BUSY_SHARE = 0.05  # of one core; an idle ipykernel needs far less


def measure(sessions: Iterable[int]) -> dict[int, tuple[int, bool]]:
    """Give for each session's id the bytes that its processes hold in memory, and whether they use the CPU.

    Pages that processes share count for each of them. Takes SAMPLE_SECONDS.
    """
    wanted = set(sessions)
    if not wanted:
        return {}
    before, begun = _look(wanted), time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    after, took = _look(wanted), time.monotonic() - begun
    found = {}
    for sid in wanted:
        used = sum(cpu - before[sid][pid][1] for pid, (_, cpu) in after[sid].items() if pid in before[sid])
        found[sid] = (sum(memory for memory, _ in after[sid].values()), used > BUSY_SHARE * took)
    return found


def _look(wanted: set[int]) -> dict[int, dict[int, tuple[int, float]]]:
    """Give memory in bytes and CPU time in seconds by session and process."""
    found: dict[int, dict[int, tuple[int, float]]] = {sid: {} for sid in wanted}
    for sid, pid, memory, cpu in _from_proc() if os.path.isdir("/proc/self") else _from_ps():
        if sid in found:
            found[sid][pid] = (memory, cpu)
    return found


def _from_proc() -> Iterator[tuple[int, int, int, float]]:
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # After the name in brackets: state, ppid, pgrp, session, … see proc(5); the first of them is [0].
                    values = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            yield int(values[3]), int(name), int(values[21]) * page, (int(values[11]) + int(values[12])) / tick


def _from_ps() -> Iterator[tuple[int, int, int, float]]:
    """Read macOS's `ps`: memory in KiB, CPU time as [[hours:]minutes:]seconds."""
    done = subprocess.run(["ps", "-A", "-o", "pid=,rss=,time="], stdout=subprocess.PIPE, timeout=10)
    for line in done.stdout.decode("ascii", "replace").splitlines():
        try:
            pid, memory, clock = line.split()
            sid = os.getsid(int(pid))
        except (ValueError, OSError):
            continue
        seconds = 0.0
        for part in clock.replace("-", ":").split(":"):
            seconds = seconds * 60 + float(part)
        yield sid, int(pid), int(memory) * 1024, seconds
