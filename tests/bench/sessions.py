"""`rkernel exec`, as agents call it: a process for each call, beside what else can run code in a live kernel."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from remote_kernel.session.client import Session
from remote_kernel.session.record import read_record
from tests.bench.traffic import round_trips, run_seconds
from tests.bench.world import ROUND_TRIP_SECONDS, Row, World, medians, timed

CALLS = 15
MANY = 5000
SESSIONS = 20
IDLE_SECONDS = 20.0
_BIN = Path(sys.executable).parent


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure a call, a distant one, big outputs, the five thousandth call, and many sessions that do nothing."""
    os.environ["LOCAL_KERNELS_DIR"] = str(world.folder)
    try:
        with session("local") as near:
            yield from calls(near)
            yield from outputs(world, near, runs)
            yield from many(near)
        with session("far") as far, world.kernel("far") as (_, client):
            own = statistics.median(round_trips(client, 20)) - ROUND_TRIP_SECONDS
            list(far.execute("1"))
            ours = statistics.median(timed(lambda: list(far.execute("1"))) for _ in range(CALLS))
            budget = own + 2 * ROUND_TRIP_SECONDS
            yield Row("Session.execute at 50 ms", ours * 1e3, (own + ROUND_TRIP_SECONDS) * 1e3, budget * 1e3, "ms")
        yield from idle()
    finally:
        del os.environ["LOCAL_KERNELS_DIR"]


@contextlib.contextmanager
def session(kernelspec: str, name: str = "") -> Iterator[Session]:
    """Give a session of a kernelspec, and close it."""
    opened = Session.open(name or f"bench-{kernelspec}", kernelspec=kernelspec, log=f"/tmp/bench-{os.getpid()}.ipynb")
    try:
        yield opened
    finally:
        opened.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/tmp/bench-{os.getpid()}.ipynb")


def calls(near: Session) -> Iterator[Row]:
    """Time whole processes, from start to end."""
    connection_file = read_record(near.paths).connection_file
    once = Path(f"/tmp/bench-{os.getpid()}.py")
    once.write_text("1")

    def run(*words: str) -> float:
        # With a pipe: without one, waiting with a limit looks at the process at 16, 32 and 64 ms only.
        return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=60))

    try:
        ours, python = medians(
            CALLS,
            lambda: run(str(_BIN / "rkernel"), "exec", "-s", near.name, "--code", "1"),
            lambda: run(sys.executable, "-c", "pass"),
        )
        yield Row("rkernel exec, beside python -c pass", ours * 1e3, python * 1e3, 4 * python * 1e3, "ms")
        ours, peer = medians(
            5,
            lambda: run(str(_BIN / "rkernel"), "exec", "-s", near.name, "--code", "1"),
            lambda: run(str(_BIN / "jupyter-run"), "--existing", connection_file, str(once)),
        )
        yield Row("rkernel exec, beside jupyter run --existing", ours * 1e3, peer * 1e3, 0.25 * peer * 1e3, "ms")
    finally:
        once.unlink()


def outputs(world: World, near: Session, runs: int) -> Iterator[Row]:
    """Stream much output to a client that reads it, beside jupyter_client in this process."""
    big = "import sys\nfor _ in range(50): sys.stdout.write('x' * 999_999 + '\\n')"
    lines = "for n in range(100_000): print(n)"
    with world.kernel("local") as (_, client):
        for name, code, amount, unit in (
            ("rkernel: 50 MB of stdout", big, 50.0, "MB/s"),
            ("rkernel: 100,000 lines", lines, 100_000.0, "1/s"),
        ):
            ours, theirs = medians(
                runs,
                lambda c=code: timed(lambda: sum(1 for _ in near.execute(c))),
                lambda c=code: run_seconds(client, c),
            )
            yield Row(
                f"{name}, beside jupyter_client", amount / ours, amount / theirs, 0.8 * amount / theirs, unit, True
            )


def many(near: Session) -> Iterator[Row]:
    """Compare early calls with those after thousands: neither the log nor the journals may slow them down."""

    def some() -> float:
        return statistics.median(timed(lambda: list(near.execute("1"))) for _ in range(50))

    early = some()
    for _ in range(MANY - 100):
        list(near.execute("1"))
    yield Row(f"Session.execute number {MANY}, beside number 50", some() * 1e3, early * 1e3, 1.2 * early * 1e3, "ms")


def idle() -> Iterator[Row]:
    """See what sessions cost that nobody uses: the host of each, for a kernel on this machine."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(session("local", f"idle-{number}")) for number in range(SESSIONS)]
        hosts = [psutil.Process(one.status().pid) for one in opened]
        time.sleep(3)
        before = sum(sum(host.cpu_times()[:2]) for host in hosts)
        time.sleep(IDLE_SECONDS)
        after = sum(sum(host.cpu_times()[:2]) for host in hosts)
        memory = max(host.memory_info().rss for host in hosts) / 1e6
        yield Row(f"{SESSIONS} idle sessions: memory of the largest host", memory, 0.0, 60.0, "MB")
        yield Row(f"{SESSIONS} idle sessions: CPU of all hosts", 100 * (after - before) / IDLE_SECONDS, 0.0, 1.0, "%")
