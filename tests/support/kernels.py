"""Start kernels through a kernelspec as a front end does, and run code in them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions, find_program

START_SECONDS = 60


@dataclass
class Outcome:
    """What one cell gave: its reply's status, its text by stream name, its other outputs' data by MIME type."""

    status: str
    streams: dict[str, str] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def result(self) -> str:
        """The text of the last result."""
        return str(self.data[-1]["text/plain"]) if self.data else ""


def options_for(host: str, ssh_config: Path, python: Path | str, **more: Any) -> LaunchOptions:
    """Give launch options for an alias or endpoint of the test's ssh config."""
    return LaunchOptions(Endpoint.parse(host), ssh_config=str(ssh_config), python=str(python), **more)


def write_kernelspec(folder: Path, name: str, options: LaunchOptions) -> Path:
    """Write a kernelspec for these options below `folder`, which then serves as a kernels folder."""
    path = folder / name
    path.mkdir(parents=True)
    program = find_program()
    assert program
    spec = {
        "argv": [program, *options.to_arguments()],
        "display_name": f"Remote {name}",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {"debugger": True},
    }
    (path / "kernel.json").write_text(json.dumps(spec))
    return path


def manager_for(folder: Path, name: str) -> KernelManager:
    """Give a KernelManager for a kernelspec in that kernels folder."""
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return KernelManager(kernel_name=name, kernel_spec_manager=specs)


def log_of(manager: KernelManager) -> str:
    """Give what the launcher has written to its log file so far."""
    name = os.path.basename(manager.connection_file).removesuffix(".json")
    path = Path(os.environ["JUPYTER_RUNTIME_DIR"], f"remote_kernel-{name}.log")
    return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def running_kernel(
    folder: Path, options: LaunchOptions, name: str = "remote", **popen: Any
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Start a kernel, wait until it answers, and shut it down as jupyter_client does."""
    if not (folder / name).exists():
        write_kernelspec(folder, name, options)
    manager = manager_for(folder, name)
    manager.start_kernel(**popen)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_SECONDS)
        settle(client)
        yield manager, client
    except BaseException:
        print(f"the launcher's log:\n{log_of(manager)}")  # pytest shows it with the failure
        raise
    finally:
        client.stop_channels()
        if manager.has_kernel:  # a test may have ended it
            manager.shutdown_kernel(now=False)
            manager.cleanup_resources()


def settle(client: BlockingKernelClient) -> None:
    """Take what is left of the start: `wait_for_ready` asks once a second, and leaves the answers to all but one."""
    request = client.kernel_info()
    while client.get_shell_msg(timeout=START_SECONDS)["parent_header"].get("msg_id") != request:
        pass
    while (message := client.get_iopub_msg(timeout=START_SECONDS))["parent_header"].get("msg_id") != request or (
        message["content"].get("execution_state") != "idle"
    ):
        pass


def run(client: BlockingKernelClient, code: str, timeout: float = 30, **execute: Any) -> Outcome:
    """Run one cell and collect all of its output."""
    streams: dict[str, str] = {}
    data: list[dict[str, Any]] = []
    error = ""

    def take(message: dict[str, Any]) -> None:
        nonlocal error
        content = message["content"]
        if message["msg_type"] == "stream":
            streams[content["name"]] = streams.get(content["name"], "") + content["text"]
        elif message["msg_type"] in ("execute_result", "display_data"):
            data.append(content["data"])
        elif message["msg_type"] == "error":
            error = f"{content['ename']}: {content['evalue']}"

    reply = client.execute_interactive(code, timeout=timeout, output_hook=take, **execute)
    return Outcome(reply["content"]["status"], streams, data, error)


def reply_to(client: BlockingKernelClient, request: str, timeout: float = 30) -> dict[str, Any]:
    """Give the reply to a request; on a busy machine late replies to what waited for the kernel come before it."""
    while True:
        reply: dict[str, Any] = client.get_shell_msg(timeout=timeout)
        if reply["parent_header"].get("msg_id") == request:
            return reply


def launch(options: LaunchOptions, connection_file: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the launcher alone, as a front end would, until it ends by itself."""
    program = find_program()
    assert program
    words = options._replace(connection_file=str(connection_file)).to_arguments()
    return subprocess.run(
        [program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False, **more
    )


def write_connection_file(path: Path, **values: Any) -> Path:
    """Write a connection file with free ports, as a front end does; `values` replace what it holds."""
    from jupyter_client.connect import write_connection_file as write

    write(str(path), key=os.urandom(16).hex().encode())
    if values:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


def wait_until(condition: Any, seconds: float = 15.0) -> bool:
    """Wait until a condition without an event of its own holds, looking every 20 ms; False when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
