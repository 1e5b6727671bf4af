"""Emulate what front ends do to a launcher, down to the order of their signals, and count what is left after."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from remote_kernel.jupyter.connection_file import CHANNELS
from remote_kernel.options import LaunchOptions
from tests.support.ends import is_carrier
from tests.support.isolation import Isolation
from tests.support.kernels import START_SECONDS, run, settle, wait_until, write_kernelspec
from tests.support.leaks import Snapshot, local_processes, take_snapshot
from tests.support.servers import Servers, is_alive

IGNORES_INTERRUPTS = """
import time
while True:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pass
"""


class Count:
    """Count what a kernel leaves on either side; the connection that its successors will use may stay."""

    def __init__(self, isolation: Isolation, servers: Servers) -> None:
        self._isolation, self._servers = isolation, servers
        self._before = take_snapshot(isolation, servers)

    def left(self, seconds: float = 15.0) -> list[str]:
        """Wait until nothing is left that was not there before, and describe what is left all the same.

        Unlike the leak check it leaves a private ControlMaster alone: to end it would turn each case into a drop.
        """
        left: list[str] = []

        def nothing() -> bool:
            left[:] = self._now()
            return not left

        wait_until(nothing, seconds)
        return left

    def ssh(self) -> list[psutil.Process]:
        """Give this side's ssh processes, or what stands in for ssh."""
        return [p for p in local_processes(self._isolation, self._servers) if is_carrier(p)]

    def _now(self) -> list[str]:
        now: Snapshot = take_snapshot(self._isolation, self._servers)
        processes = [p for p in now.processes - self._before.processes if not self._is_master(p)]
        return [f"process {p.pid}: {_name(p)}" for p in processes if is_alive(p)] + [
            f"file {path}" for path in now.files - self._before.files
        ]

    def _is_master(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            return title.startswith("ssh: ") and str(self._isolation.runtime) in title
        return False


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def leave_a_child(client: BlockingKernelClient) -> psutil.Process:
    """Let a cell start a process that outlives it, and give that process."""
    printed = run(client, "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid)").streams["stdout"]
    return psutil.Process(int(printed))


def leave_an_orphan(client: BlockingKernelClient) -> psutil.Process:
    """Do the same with a process that is nobody's child.

    When a kernel ends by itself: ipykernel 7 takes 29 seconds over a child that nobody has waited for, here as there.
    """
    shell = "['sh', '-c', 'sleep 600 >/dev/null 2>&1 & echo $!']"
    return psutil.Process(int(run(client, f"import subprocess\nint(subprocess.check_output({shell}))").result))


def kernel_process(client: BlockingKernelClient) -> psutil.Process:
    """Give the remote kernel's process: the remote host is this machine."""
    return psutil.Process(int(run(client, "import os\nprint(os.getpid())").streams["stdout"]))


def listens(connection_file: dict[str, object]) -> list[str]:
    """Name the channels whose local port still answers."""
    found = []
    for channel in CHANNELS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(str(connection_file[f"{channel}_port"])))) == 0:
                found.append(channel)
    return found


@contextlib.contextmanager
def other_front_end(connection_file: str) -> Iterator[BlockingKernelClient]:
    """Give a client of a kernel that somebody else has started, as a front end that joins it has."""
    client = BlockingKernelClient(connection_file=connection_file)
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        client.context.term()


@contextlib.contextmanager
def kernel_of(manager: KernelManager) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Start a manager's kernel, wait until it answers, and leave its end to the block."""
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=START_SECONDS)
        settle(client)
        yield manager, client
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


class RawKernel:
    """A kernel as vscode-jupyter runs one: it spawns kernel.json's argv itself and signals it itself.

    Unlike with jupyter_client the launcher stays in the front end's process group, has no JPY_PARENT_PID, and
    keeps its stdin open. A context manager that kills the launcher if it is still there.
    """

    def __init__(self, folder: Path, options: LaunchOptions, name: str = "remote") -> None:
        spec = folder / name
        if not spec.exists():
            write_kernelspec(folder, name, options)
        argv: list[str] = json.loads((spec / "kernel.json").read_text())["argv"]
        self.connection_file = folder / f"kernel-v3{uuid.uuid4()}.json"
        self.connection = {
            "key": str(uuid.uuid4()),
            "signature_scheme": "hmac-sha256",
            "transport": "tcp",
            "ip": "127.0.0.1",
            **dict(zip((f"{channel}_port" for channel in CHANNELS), _ports_from_9000(), strict=True)),
        }
        self.connection_file.write_text(json.dumps(self.connection))
        self._stderr = (folder / f"{self.connection_file.stem}.stderr").open("w+b")
        self.launcher = subprocess.Popen(
            [word.replace("{connection_file}", str(self.connection_file)) for word in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            cwd=folder,
        )
        self.client = BlockingKernelClient()
        self.client.load_connection_info(dict(self.connection))

    def __enter__(self) -> RawKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self.launcher.kill()
        self.launcher.wait(10)
        assert self.launcher.stdin
        self.launcher.stdin.close()
        self._stderr.close()

    def ready(self) -> RawKernel:
        """Wait until the kernel answers; on four channels, for VS Code opens no heartbeat."""
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=START_SECONDS)
        settle(self.client)
        return self

    def descendants(self) -> list[psutil.Process]:
        """Give the processes that VS Code signals before the launcher: all below it by parent pid."""
        return psutil.Process(self.launcher.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Interrupt as in signal mode: SIGINT to every descendant, then to the launcher."""
        for process in (*self.descendants(), psutil.Process(self.launcher.pid)):
            process.send_signal(signal.SIGINT)

    def dispose(self) -> None:
        """Shut down: SIGTERM to every descendant, up to a second for them to go, SIGTERM to the launcher."""
        below = self.descendants()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                process.terminate()
        psutil.wait_procs(below, timeout=1)
        self.launcher.terminate()

    def exit_status(self, timeout_seconds: float = 15.0) -> int:
        """Wait for the launcher to end and give its exit status."""
        return self.launcher.wait(timeout_seconds)

    def stderr(self) -> str:
        """Give what the launcher has printed for the user to read."""
        self._stderr.flush()
        return Path(str(self._stderr.name)).read_text(errors="replace")


def _ports_from_9000() -> list[int]:
    found: list[int] = []
    # VS Code counts up from 9000; test sessions that run at once would pick the same ones.
    port = 9000 + random.randrange(8000)
    while len(found) < len(CHANNELS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        port += 1
    return found
