"""How long a person waits for `doctor` and for `add --discover`, beside a bare login."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

from remote_kernel.kernelspec.discovery import discover
from remote_kernel.options import find_program
from tests.bench.world import Row, World, medians, timed

DOCTOR_SECONDS = 3.0
DISCOVER_SECONDS = 5.0


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure both on a host where nothing is wrong, each over a connection of its own."""
    for host in ("target", "far"):
        doctor, bare = medians(
            runs, lambda host=host: doctor_seconds(world, host), lambda host=host: world.true_seconds(host)
        )
        yield Row(f"doctor {host}, without the kernel's own start", doctor, bare, DOCTOR_SECONDS, "s")
    for host in ("target", "far"):
        found, bare = medians(
            runs, lambda host=host: discover_seconds(world, host), lambda host=host: world.true_seconds(host)
        )
        yield Row(f"add --discover {host}", found, bare, DISCOVER_SECONDS, "s")


def doctor_seconds(world: World, host: str) -> float:
    """Time the command, start and end of the program and the kernel's end included, without its start and the cell."""
    world.cool(host)
    program = find_program()
    assert program
    where = ["--ssh-config", str(world.ssh_config), "--python", str(world.python)]
    said = b""

    def run() -> None:
        nonlocal said
        words = [program, "doctor", host, "--json", *where]
        said = subprocess.run(words, check=True, capture_output=True, timeout=120).stdout

    took = timed(run)
    return took - sum(found["seconds"] for found in json.loads(said) if found["step"] in ("kernel", "cell"))


def discover_seconds(world: World, host: str) -> float:
    """Time one discovery."""
    world.cool(host)
    return timed(lambda: discover(world.options(host)))
