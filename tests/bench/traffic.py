"""Round trips and throughput through a kernel, beside a local kernel's and plain ssh's."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient

from remote_kernel.launcher.greeting import FIRST_BYTES
from tests.bench.world import ROUND_TRIP_SECONDS, Row, World, medians
from tests.support.kernels import manager_for, write_kernelspec

FLOOD_BYTES = 200 << 20
_FLOOD = """
import json, socket, sys, threading, time
where = json.load(open(sys.argv[1]))
listeners = []
for name in ("shell", "iopub", "stdin", "control", "hb"):
    listener = socket.create_server((where["ip"], where[name + "_port"]))
    listeners.append(listener)
block = bytes(1 << 20)
def serve(listener):
    while True:
        connection, _ = listener.accept()
        try:
            connection.sendall(%r)
            for _ in range(%d if listener is listeners[0] else 0):
                connection.sendall(block)
        except OSError:
            pass  # one that only looked whether the port is open
        connection.close()
for listener in listeners[1:]:
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
serve(listeners[0])
"""


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure round trips, big and many outputs, and the Link alone."""
    with world.kernel("local") as (_, local), world.kernel("target") as (_, near), world.kernel("far") as (_, far):
        here = round_trips(local, 300)
        there = round_trips(near, 300)
        p50, reference = statistics.median(there), statistics.median(here)
        yield Row("execute to idle, p50, beside local", p50 * 1e3, reference * 1e3, reference * 1e3 + 1, "ms")
        worst = statistics.quantiles(there, n=20)[-1]
        local_worst = statistics.quantiles(here, n=20)[-1]
        yield Row("execute to idle, p95, beside local (no 40 ms stalls)", worst * 1e3, local_worst * 1e3, 20.0, "ms")
        distant = statistics.median(round_trips(far, 40))
        trip = ROUND_TRIP_SECONDS
        yield Row("execute to idle at 50 ms, p50", distant * 1e3, reference * 1e3, trip * 1e3 + 10, "ms")
        big = "import sys\nfor _ in range(50): sys.stdout.write('x' * 999_999 + '\\\\n')"
        small = "for n in range(20_000): print(n)"
        for name, code, amount, unit in (
            ("50 MB of stdout", big, 50.0, "MB/s"),
            ("20,000 prints", small, 20_000.0, "1/s"),
        ):
            ours, theirs = medians(runs, lambda c=code: run_seconds(near, c), lambda c=code: run_seconds(local, c))
            yield Row(f"{name}, beside local", amount / ours, amount / theirs, 0.9 * amount / theirs, unit, least=True)
    yield from link_alone(world, runs)


def round_trips(client: BlockingKernelClient, count: int) -> list[float]:
    """Time `1`, from the request to the idle status."""
    return [run_seconds(client, "1") for _ in range(count)]


def run_seconds(client: BlockingKernelClient, code: str) -> float:
    """Time a cell, from the request to the idle status."""
    begin = time.perf_counter()
    client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
    return time.perf_counter() - begin


def link_alone(world: World, runs: int) -> Iterator[Row]:
    """Measure a stream from a program that stands for a kernel and only sends, beside `ssh host cat`."""
    script = Path(world.target.home) / "flood.py"
    script.write_text(_FLOOD % (FIRST_BYTES, FLOOD_BYTES >> 20))
    spec = Path(world.target.home) / ".local/share/jupyter/kernels/flood"
    spec.mkdir(parents=True)
    argv = f'["{world.python}", "{script}", "{{connection_file}}"]'
    (spec / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "Flood", "language": "none"}}')
    write_kernelspec(world.folder, "flood", world.options("target", kernel="flood"))
    write_kernelspec(world.folder, "flood-far", world.options("far", kernel="flood"))
    try:
        for name, host, share in (("Link", "target", 0.5), ("Link at 50 ms", "far", 0.9)):
            spec_name = "flood" if host == "target" else "flood-far"
            ours, theirs = medians(
                runs, lambda s=spec_name: flood_seconds(world, s), lambda h=host: cat_seconds(world, h)
            )
            megabytes = FLOOD_BYTES / 1e6
            yield Row(
                f"{name} throughput, beside ssh host cat",
                megabytes / ours,
                megabytes / theirs,
                share * megabytes / theirs,
                "MB/s",
                least=True,
            )
    finally:
        (spec / "kernel.json").unlink()
        script.unlink()


def flood_seconds(world: World, name: str) -> float:
    """Time the stream, from its first byte."""
    import socket

    manager = manager_for(world.folder, name)
    manager.start_kernel(stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = socket.create_connection((manager.ip, manager.shell_port), timeout=30)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with connection:
            assert connection.recv(len(FIRST_BYTES), socket.MSG_WAITALL) == FIRST_BYTES
            count = len(connection.recv(1))
            begin = time.perf_counter()
            while data := connection.recv(1 << 20):
                count += len(data)
            seconds = time.perf_counter() - begin
        assert count == FLOOD_BYTES, count
        return seconds
    finally:
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def cat_seconds(world: World, host: str) -> float:
    """Time as many bytes through a plain ssh, as the user would run it, from the first byte."""
    argv = ["ssh", "-F", str(world.ssh_config), "-oControlPath=none"]
    command = f"head -c {FLOOD_BYTES} /dev/zero"
    with subprocess.Popen([*argv, host, command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        count = len(process.stdout.read(1))
        begin = time.perf_counter()
        while data := process.stdout.read(1 << 20):
            count += len(data)
        seconds = time.perf_counter() - begin
    assert count == FLOOD_BYTES
    return seconds
