"""What a kernel that does nothing costs beside itself: memory and CPU time of launcher and agent."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from tests.bench.world import Row, World

IDLE_SECONDS = 20.0


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure an idle kernel's launcher and agent."""
    with world.kernel("target") as (manager, client):
        pid = client.execute_interactive("import os; print(os.getppid())", timeout=30, output_hook=_keep)
        assert pid["content"]["status"] == "ok"
        launcher, agent = psutil.Process(manager.provisioner.pid), psutil.Process(int(_kept["text"]))  # type: ignore[union-attr]
        for name, process, budget in (("launcher", launcher, 35.0), ("agent", agent, 25.0)):
            yield Row(f"{name}, resident", process.memory_info().rss / 1e6, 0.0, budget, "MB")
        before = [sum(process.cpu_times()[:2]) for process in (launcher, agent)]
        time.sleep(IDLE_SECONDS)
        after = [sum(process.cpu_times()[:2]) for process in (launcher, agent)]
        for name, start, end in zip(("launcher", "agent"), before, after, strict=True):
            yield Row(f"{name}, CPU when idle", 100 * (end - start) / IDLE_SECONDS, 0.0, 0.1, "%")


_kept: dict[str, str] = {}


def _keep(message: dict[str, object]) -> None:
    if message["msg_type"] == "stream":
        _kept["text"] = message["content"]["text"]  # type: ignore[index]
