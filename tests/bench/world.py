"""What the benchmarks measure: kernels here and there, beside plain ssh, in one run on one machine."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import remote_kernel
from remote_kernel.transport import masters
from tests.bench.delay import delayed
from tests.support.account import remote_account
from tests.support.interpreters import KERNEL, environment
from tests.support.isolation import isolated_environment
from tests.support.kernels import manager_for, options_for, write_kernelspec
from tests.support.servers import Server, running_servers

ROUND_TRIP_SECONDS = 0.05


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, beside what, and the most (or least) that it may be.

    `unit` is that of `ours` and `reference`; `budget` is in the same unit. `least` says that more is better.
    """

    name: str
    ours: float
    reference: float
    budget: float
    unit: str
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the budget holds."""
        return self.ours >= self.budget if self.least else self.ours <= self.budget


class World:
    """The servers, the kernelspecs and the ways to them. `far` has a round trip of 50 ms, `near` none."""

    def __init__(self, folder: Path, target: Server, ssh_config: Path, python: Path) -> None:
        self.folder, self.target, self.ssh_config, self.python = folder, target, ssh_config, python
        for host in ("target", "far"):
            write_kernelspec(folder, host, options_for(host, ssh_config, python))
        local = folder / "local"
        local.mkdir()
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (local / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Local", "language": "python"}))

    def options(self, host: str, **more: Any) -> Any:
        """Give launch options for a host."""
        return options_for(host, self.ssh_config, self.python, **more)

    def ssh(self, host: str, command: str, **run: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command there over a connection of its own."""
        argv = ["ssh", "-F", str(self.ssh_config), "-oControlPath=none", host, command]
        # With a pipe: without one, waiting with a limit looks at the process every 50 ms only.
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **run}
        return subprocess.run(argv, check=True, timeout=120, **streams)

    def cool(self, host: str) -> None:
        """Let the next start make its own connection."""
        options = self.options(host)
        masters.end_masters(options)

    @contextlib.contextmanager
    def kernel(self, name: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
        """Run a kernel of a kernelspec until it answers."""
        manager = manager_for(self.folder, name)
        manager.start_kernel(stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            yield manager, client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=False)
            manager.cleanup_resources()

    def start_seconds(self, name: str) -> float:
        """Time a start: from start_kernel to kernel_info_reply."""
        manager = manager_for(self.folder, name)
        begin = time.perf_counter()
        manager.start_kernel(stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels(hb=False, stdin=False)
        client.kernel_info()
        client.get_shell_msg(timeout=60)
        seconds = time.perf_counter() - begin
        client.stop_channels()
        manager.shutdown_kernel(now=False)
        manager.cleanup_resources()
        return seconds

    def true_seconds(self, host: str) -> float:
        """Time `ssh host true` over a connection of its own."""
        return timed(lambda: self.ssh(host, "true"))


def timed(action: Callable[[], object]) -> float:
    """Give the seconds that an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def medians(runs: int, *actions: Callable[[], float]) -> list[float]:
    """Run the actions in turn, A B A B …, and give the median of what each returns."""
    found: list[list[float]] = [[] for _ in actions]
    for _ in range(runs):
        for values, action in zip(found, actions, strict=True):
            values.append(action())
    return [statistics.median(values) for values in found]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Make all that the benchmarks need, and end it."""
    with (
        isolated_environment() as isolation,
        remote_account() as account,
        running_servers(account, isolation.marker) as servers,
        delayed(servers.target.port, ROUND_TRIP_SECONDS) as far_port,
    ):
        # As an installation is. Where Python is told to write no bytecode, each start would pay 40 ms for compiling.
        compileall.compile_dir(str(Path(remote_kernel.__file__).parent), quiet=1)
        text = servers.ssh_config.read_text()
        config = servers.ssh_config.with_name("bench_config")
        far = f"Host far\n    HostName 127.0.0.1\n    Port {far_port}\n    HostKeyAlias far\n"
        user = f"    User {servers.target.user}\n"
        config.write_text(far + user + text)
        with open(servers.known_hosts, "a", encoding="utf-8") as known:
            known.write(f"far {servers.target.host_key}\n")
        folder = Path(tempfile.mkdtemp(prefix="rk-bench-"))
        found = World(folder, servers.target, config, environment(*KERNEL))
        try:
            yield found
        finally:
            for host in ("target", "far"):
                found.cool(host)
            shutil.rmtree(folder)
            os.unlink(config)
