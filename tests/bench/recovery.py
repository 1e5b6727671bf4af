"""How soon a front end has what it missed once the network is back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from tests.bench.world import Row, World, medians

_TICK = "import time\nfor n in range(%d):\n    print(n, flush=True)\n    time.sleep(0.02)"


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure the gap in the output of a running cell after its SSH session was killed."""
    ours, theirs = medians(runs, lambda: gap_seconds(world), lambda: world.true_seconds("target"))
    yield Row("gap in the output after a cut, beside ssh true", ours, theirs, theirs + 0.5, "s")


def gap_seconds(world: World) -> float:
    """Cut once in the middle of a cell that prints every 20 ms and give the longest silence."""
    with world.kernel("target") as (_, client):
        moments: list[float] = []
        cut = False

        def take(message: dict[str, object]) -> None:
            nonlocal cut
            moments.append(time.perf_counter())
            if len(moments) == 20 and not cut:
                cut = True
                world.target.kill_sessions()

        client.execute_interactive(_TICK % 100, timeout=60, output_hook=take)
    return max(after - before for before, after in itertools.pairwise(moments))
