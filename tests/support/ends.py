"""Look at the two ends of a running kernel: the launcher here, the agent and the kernel there."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from remote_kernel.handshake import ask
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice
from tests.support.isolation import Isolation
from tests.support.kernels import log_of, options_for, running_kernel, wait_until
from tests.support.servers import Server, is_alive


class Running(NamedTuple):
    """A kernel with both of its ends."""

    manager: KernelManager
    client: BlockingKernelClient
    options: LaunchOptions
    kernel: psutil.Process

    def away(self) -> str:
        """Wait until its agent knows that it is alone, and say why it thinks so."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = ask_agents(self.options)
            return not found or bool(found[0]["away"])

        assert wait_until(look, 10)
        return str(found[0]["away"]) if found else "ended"

    def kill_launcher(self) -> None:
        """Kill the launcher as the system does when memory is short."""
        process: subprocess.Popen[bytes] = self.manager.provisioner.process  # type: ignore[union-attr]
        process.kill()
        process.wait()


@contextmanager
def running(
    folder: Path, target: Server, ssh_config: Path, python: Path, *, config: str = "", **more: Any
) -> Iterator[Running]:
    """Start a kernel on the target; `config` goes before the ssh config, `more` are launch options."""
    if config:
        path = folder / "config"
        path.write_text(f"{config}\n{ssh_config.read_text()}")
        ssh_config = path
    options = options_for("target", ssh_config, python, **more)
    with running_kernel(folder, options) as (manager, client):
        (kernel,) = kernels_on(target)
        yield Running(manager, client, options, kernel)


def launcher_of(manager: KernelManager) -> psutil.Process:
    """Give the launcher that a manager has started."""
    assert manager.provisioner
    return psutil.Process(manager.provisioner.process.pid)  # type: ignore[attr-defined]


def kernels_on(target: Server) -> list[psutil.Process]:
    """Give the kernels that run on the remote side."""
    return [process for process in target.processes() if "ipykernel_launcher" in _command(process)]


def agent_of(kernel: psutil.Process) -> psutil.Process:
    """Give the agent that owns a kernel."""
    agent = kernel.parent()
    assert agent and "zlib" in _command(agent)
    return agent


def ask_agents(options: LaunchOptions, do: str = "tell", identity: str = "") -> list[dict[str, Any]]:
    """Ask the agents on the remote side, or one of them, for their state; `do` may be `keep` or `stop`."""
    found, _ = ask(options, "ask", {"id": identity, "do": do, "folder": ""}, 30.0)
    kernels: list[dict[str, Any]] = found["kernels"]
    return kernels


def notes_left(runtime: Path) -> list[str]:
    """Name the notes for the watcher on this machine, but for those of launchers that live."""
    return sorted(path.name for path in (runtime / "remote_kernel").glob("away-*") if not _is_of_a_launcher(path))


def _is_of_a_launcher(note: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # it is being written, or has just gone
        pid = int(json.loads(note.read_text())["launcher"])
        return pid > 0 and psutil.pid_exists(pid)
    return False


def watchers() -> list[psutil.Process]:
    """Return the watchers of this test session that run."""
    runtime = os.environ["XDG_RUNTIME_DIR"]
    found = []
    for process in psutil.process_iter():
        try:
            if (
                "remote_kernel.launcher.orphans" in _command(process)
                and process.environ()["XDG_RUNTIME_DIR"] == runtime
            ):
                found.append(process)
        except (psutil.Error, KeyError):
            continue
    return found


def carriers() -> list[psutil.Process]:
    """Give what carries this test session's bytes: ssh, its masters included, and what stands in for it."""
    runtime = os.environ["XDG_RUNTIME_DIR"]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # A master writes its title over its environment.
            texts = (*process.cmdline(), process.environ().get("XDG_RUNTIME_DIR", ""))
            if is_carrier(process) and any(runtime in text for text in texts):
                found.append(process)
    return found


def is_carrier(process: psutil.Process) -> bool:
    """Tell whether a process is ssh, or what stands in for it."""
    with contextlib.suppress(psutil.Error):
        return process.name().startswith("ssh") or choice.PROGRAM in process.cmdline()
    return False


def nothing_there(target: Server, seconds: float = 20.0) -> bool:
    """Wait until nothing runs on the remote side any more and no agent's folder is left; print what is."""
    folder = target.account.agent_folder

    def left() -> list[object]:
        return [*map(_command, target.processes()), *(folder.iterdir() if folder.exists() else ())]

    done = wait_until(lambda: not left(), seconds)
    if not done:
        print(*left(), sep="\n")
    return done


def nothing_noted(isolation: Isolation, seconds: float = 20.0) -> bool:
    """Wait until neither the watcher nor a note for it is left on this machine."""
    return wait_until(lambda: not watchers() and not notes_left(isolation.runtime), seconds)


def is_lost(manager: KernelManager) -> bool:
    """Wait until a launcher has noticed that its connection is lost."""
    return wait_until(lambda: "trying to reconnect" in log_of(manager))


def ends_within(process: psutil.Process, seconds: float) -> bool:
    """Wait until a process has ended."""
    return wait_until(lambda: not is_alive(process), seconds)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
