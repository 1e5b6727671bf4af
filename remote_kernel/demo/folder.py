"""The folder of one run: everything that the demonstration makes is in it, and goes with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions
from remote_kernel.process import processes, read_text
from remote_kernel.signals import uninterrupted
from remote_kernel.transport import choice
from remote_kernel.transport.masters import MASTERS_FOLDER, end_master, master_at, pid_at
from remote_kernel.transport.ssh_config import uses_openssh

HOST = "demo"
MARK = "REMOTE_KERNEL_DEMO"
"""The variable that the SSH server puts into the environment of all that it starts; its value is the folder."""

_OURS = ("REMOTE_KERNEL_", "JUPYTER_", "JPY_", "LOCAL_KERNELS_DIR", "REMOTE_CONN_DIR")


@dataclass(frozen=True)
class DemoFolder:
    """Its paths. Short ones: a Unix socket's path ends at about 104 bytes."""

    path: Path

    @property
    def server(self) -> Path:
        """The SSH server's files: host key, authorized key, configuration."""
        return self.path / "server"

    @property
    def ssh_config(self) -> Path:
        """The client's configuration; it knows one host, `demo`."""
        return self.path / "ssh_config"

    @property
    def agents(self) -> Path:
        """Where the agent makes the folder for its kernel."""
        return self.path / "agents"

    @property
    def runtime(self) -> Path:
        """XDG_RUNTIME_DIR of the launcher: the shared SSH connection's socket is in it."""
        return self.path / "run"

    def options(self) -> LaunchOptions:
        """Return what the kernel is started with."""
        return LaunchOptions(
            Endpoint(HOST),
            python=sys.executable,
            ssh_config=str(self.ssh_config),
            env=(("IPYTHONDIR", str(self.path / "ipython")),),
        )

    def launcher_environment(self) -> dict[str, str]:
        """Return an environment that keeps the launcher's files in the folder and the user's settings out."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OURS) or name in ("REMOTE_KERNEL_SSH", "REMOTE_KERNEL_TRANSPORT")
        }
        return {
            **kept,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_RUNTIME_DIR": str(self.path / "jupyter"),
            "REMOTE_CONN_DIR": str(self.agents),
        }

    def write_client_files(self, user: str, port: int, host_key: str) -> None:
        """Write known_hosts and ssh_config for the server on `port`."""
        known_hosts = self.path / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{port} {host_key}\n")
        self.ssh_config.write_text(
            f"""\
Host {HOST}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {self.path / "client_key"}
    IdentitiesOnly yes
    IdentityAgent none
    PreferredAuthentications publickey
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""
        )

    def end_shared_connections(self) -> None:
        """End the SSH connection that outlives its kernel."""
        for path in self._shared_connections():
            end_master(master_at(path))

    def kill_connections(self) -> int:
        """Kill the processes that hold the connections, without a word to the server; return their number."""
        if uses_openssh(self.options()):
            pids = [pid for path in self._shared_connections() if (pid := pid_at(path))]
        else:
            wanted = (choice.PROGRAM, str(self.ssh_config))
            pids = [pid for pid, command in _commands().items() if all(word in command for word in wanted)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def _shared_connections(self) -> list[str]:
        found = self.runtime.glob(f"remote_kernel/{MASTERS_FOLDER}/*")
        return [str(path) for path in found if path.is_socket()]


@contextmanager
def temporary_folder() -> Iterator[DemoFolder]:
    """Make the folder, 0700, with the keys in it; remove it at the end."""
    parent = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else None  # TMPDIR can be too long for a socket
    with ExitStack() as undo:
        with uninterrupted():
            folder = Path(tempfile.mkdtemp(prefix="rk-demo-", dir=parent)).resolve()
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        made = DemoFolder(folder)
        for path in (made.server, made.runtime, folder / "jupyter", folder / "ipython"):
            path.mkdir(mode=0o700)
        public = make_key(folder / "client_key")
        (made.server / "authorized_key").write_text(f"{public} {HOST}\n")
        yield made


def make_key(path: Path) -> str:
    """Write a new ed25519 private key to `path`, mode 0600, and return the public one as `type base64`."""
    # cryptography comes with paramiko; so there is a key where there is no ssh-keygen.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def marked_processes(folder: Path) -> dict[int, str]:
    """Return the living processes that an SSH server of this folder has started: pid and command line.

    Only Linux shows other processes' environments in a way that can be read here; elsewhere the answer is empty.
    """
    wanted = f"{MARK}={folder}"
    return {pid: line for pid, line in _commands().items() if wanted in read_text(f"/proc/{pid}/environ").split("\0")}


def _commands() -> dict[int, str]:
    """Return every living process's command line by its pid, from /proc where there is one, else from ps."""
    if os.path.isdir("/proc/self"):
        return {pid: read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip() for pid, *_ in processes()}
    shown = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, timeout=10)
    lines = [line.strip().partition(" ") for line in shown.stdout.splitlines()]
    return {int(pid): command for pid, _, command in lines}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Look every 20 ms until the condition holds; False when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.02)
    return True
