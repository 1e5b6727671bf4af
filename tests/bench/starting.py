"""How long a start and a restart take, beside a local kernel's and an `ssh host true`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench.world import ROUND_TRIP_SECONDS, Row, World, medians


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure starts near and far, cold and with a warm master, and restarts."""

    def cold(host: str) -> float:
        world.cool(host)
        return world.start_seconds(host)

    local, near_true, near_cold, near_warm = medians(
        runs,
        lambda: world.start_seconds("local"),
        lambda: world.true_seconds("target"),
        lambda: cold("target"),
        lambda: world.start_seconds("target"),
    )
    yield Row("start, cold, beside local + ssh true", near_cold, local + near_true, local + near_true + 0.1, "s")
    yield Row("start, warm master, beside local", near_warm, local, local + 0.15, "s")
    far_true, far_cold, far_warm = medians(
        runs,
        lambda: world.true_seconds("far"),
        lambda: cold("far"),
        lambda: world.start_seconds("far"),
    )
    trip = ROUND_TRIP_SECONDS
    yield Row(
        "start at 50 ms, cold, beside local + ssh true", far_cold, local + far_true, local + far_true + 2 * trip, "s"
    )
    yield Row("start at 50 ms, warm master, beside local", far_warm, local, local + 5 * trip, "s")
    local_again, near_again = medians(
        runs, lambda: restart_seconds(world, "local"), lambda: restart_seconds(world, "target")
    )
    yield Row("restart, warm master, beside local", near_again, local_again, local_again + 0.2, "s")


def restart_seconds(world: World, name: str) -> float:
    """Time a restart: from restart_kernel to the next kernel_info_reply."""
    with world.kernel(name) as (manager, client):
        begin = time.perf_counter()
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        return time.perf_counter() - begin
