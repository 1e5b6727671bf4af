"""Real OpenSSH servers on loopback: a target and a jump host, unprivileged, with keys of their own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from tests.support.account import Account

REMOTE_MARKER = "RK_TEST_REMOTE"
_START_SECONDS = 20.0


def find_sshd() -> str:
    """Give sshd's absolute path: it starts itself again for each connection and insists on one."""
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        raise RuntimeError("there is no sshd: install openssh-server, or run scripts/test, which does")
    return found


def free_port() -> int:
    """Pick a free TCP port on 127.0.0.1 below the range that outgoing connections use, so that it stays free."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port between 20000 and 32000")


def make_key(path: Path) -> None:
    """Make an ed25519 key pair without a passphrase at `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "remote_kernel tests", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Server:
    """One sshd on 127.0.0.1. `start` and `stop` may be called any number of times; the port stays.

    `marker` is the value of RK_TEST_REMOTE in the environment of all that it starts.
    """

    host = "127.0.0.1"

    privileged = False
    """Whether it runs as root, where this is root; its sessions are the account's all the same."""

    def __init__(self, name: str, account: Account, folder: Path, client_key: Path, marker: str) -> None:
        self.name = name
        self.account = account
        self.user = account.user
        self.home = account.home
        self.port = 0
        self._folder = folder
        self._client_key = client_key
        self.marker = marker
        self.extra: tuple[str, ...] = ()
        self.prefix: tuple[str, ...] = ()
        """What runs sshd: a command that ends in `exec "$@"`."""
        self._listener: subprocess.Popen[bytes] | None = None
        self._sessions: set[psutil.Process] = set()

    @property
    def host_key(self) -> str:
        """The server's public host key, as `type base64`, for a known_hosts line."""
        return " ".join((self._folder / "host_key.pub").read_text().split()[:2])

    def prepare(self) -> None:
        """Make the folder with the host key, the authorized key and the configuration. Called once."""
        self._folder.mkdir(mode=0o700)
        make_key(self._folder / "host_key")
        shutil.copy(self._client_key.with_suffix(".pub"), self._folder / "authorized_keys")
        for path in (self._folder, *self._folder.iterdir()):
            os.chown(path, self.account.uid, self.account.gid)
        self.port = free_port()
        self._write_config()

    def _write_config(self) -> None:
        # sshd takes the first value that it meets for each keyword: the extra lines win.
        lines = [
            *self.extra,
            f"Port {self.port}",
            f"ListenAddress {self.host}",
            f"HostKey {self._folder / 'host_key'}",
            f"AuthorizedKeysFile {self._folder / 'authorized_keys'}",
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "PidFile none",
            "PermitUserEnvironment no",
            "MaxStartups 100:30:200",
            "LogLevel VERBOSE",
            "PrintMotd no",
            "Subsystem sftp internal-sftp",
            f"SetEnv {REMOTE_MARKER}={self.marker}",
        ]
        path = self._folder / "sshd_config"
        path.write_text("\n".join(lines) + "\n")
        os.chown(path, self.account.uid, self.account.gid)

    def start(self) -> None:
        """Start listening; returns once the port answers."""
        if self._listener is not None:
            return
        seen = self._times_listening()
        switch: dict[str, object] = {}
        if self.account.is_own and not self.privileged:
            switch = {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        self._listener = subprocess.Popen(
            [*self.prefix, find_sshd(), "-D", "-f", str(self._folder / "sshd_config"), "-E", str(self._folder / "log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self.home)},
            cwd="/",
            start_new_session=True,
            **switch,  # type: ignore[call-overload]
        )
        self._wait_listening(seen)

    def stop(self) -> None:
        """Stop listening. Sessions that are up stay up; new connections are refused."""
        if self._listener is None:
            return
        self._remember_sessions()
        self._listener.send_signal(signal.SIGCONT)
        self._listener.terminate()
        self._listener.wait(10)
        self._listener = None

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def freeze(self, *, sessions: bool = False) -> None:
        """Stop answering: new connections are accepted by the system and hear nothing; with `sessions`, all do."""
        self._signal(signal.SIGSTOP, sessions)

    def thaw(self) -> None:
        """Answer again."""
        self._signal(signal.SIGCONT, sessions=True)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Take the network away inside the block: no session is left, and none can be made."""
        self.stop()
        self.kill_sessions()
        try:
            yield
        finally:
            self.start()

    def kill_sessions(self) -> int:
        """Kill the sshd processes of the connections that are up: a clean drop. What they started is left alone."""
        self._remember_sessions()
        killed = 0
        for process in self._sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed += 1
        wait_ended(self._sessions)
        self._sessions.clear()
        return killed

    def sessions(self) -> list[psutil.Process]:
        """Give the sshd processes of the connections that are up (one or two for each)."""
        self._remember_sessions()
        return sorted(self._sessions, key=lambda process: process.pid)

    def log_text(self) -> str:
        """Give all that the server has logged since it was first started."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Give the remote side's living processes apart from sshd: whatever the account runs.

        Without an account of its own for the tests: what descends from the server, and what carries its marker.
        """
        own = {process.pid for process in self._descendants()}
        return [
            process
            for process in psutil.process_iter()
            if is_alive(process) and not _is_sshd(process) and (self._is_remote(process) or process.pid in own)
        ]

    def own_processes(self) -> list[psutil.Process]:
        """Give the listener and sshd's processes for its connections."""
        self._remember_sessions()
        listener = [psutil.Process(self._listener.pid)] if self._listener is not None else []
        return [*listener, *self._sessions]

    @contextlib.contextmanager
    def configured(self, *lines: str) -> Iterator[None]:
        """Serve new connections with these lines of sshd_config as well, ahead of all others, inside the block."""
        self._reconfigure(lines)
        try:
            yield
        finally:
            self._reconfigure(())

    @contextlib.contextmanager
    def login_shell(self, shell: str) -> Iterator[None]:
        """Give the remote user another login shell inside the block.

        Without an account of its own the shell is put in with ForceCommand, which leaves sftp out.
        """
        if not self.account.is_own:
            with self.configured(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"', f"SetEnv SHELL={shell}"):
                yield
            return
        subprocess.run(["usermod", "--shell", shell, self.user], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["usermod", "--shell", "/bin/bash", self.user], check=True, capture_output=True)

    def _reconfigure(self, lines: tuple[str, ...]) -> None:
        self.extra = lines
        self._write_config()
        if self._listener is not None:
            seen = self._times_listening()
            self._listener.send_signal(signal.SIGHUP)
            self._wait_listening(seen)

    def _is_remote(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            if self.account.is_own:
                return bool(process.uids().real == self.account.uid)
            return process.environ().get(REMOTE_MARKER) == self.marker
        return False

    def _descendants(self) -> list[psutil.Process]:
        if self._listener is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._listener.pid).children(recursive=True)
        return []

    def _remember_sessions(self) -> None:
        # Sessions outlive the listener as orphans, so they are noted before it goes.
        self._sessions.update(filter(_is_sshd, self._descendants()))
        self._sessions = {process for process in self._sessions if is_alive(process)}

    def _signal(self, number: int, sessions: bool) -> None:
        if self._listener is not None:
            self._listener.send_signal(number)
        if sessions:
            self._remember_sessions()
            for process in self._sessions:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _times_listening(self) -> int:
        return self.log_text().count(f"Server listening on {self.host} port {self.port}")

    def _wait_listening(self, seen: int) -> None:
        assert self._listener is not None
        deadline = time.monotonic() + _START_SECONDS
        while self._times_listening() <= seen:
            if self._listener.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd '{self.name}' does not listen on port {self.port}:\n{self.log_text()}")
            time.sleep(0.01)


def is_alive(process: psutil.Process) -> bool:
    """Tell whether the process still runs; one that has ended and was not yet waited for does not."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_ended(processes: Iterable[psutil.Process], timeout_seconds: float = 10.0) -> None:
    """Wait until none of the processes runs. psutil's own wait would also wait for orphans to be reaped."""
    deadline = time.monotonic() + timeout_seconds
    left = list(processes)
    while left := [process for process in left if is_alive(process)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"still running after {timeout_seconds:g} s: {left}")
        time.sleep(0.01)


def _is_sshd(process: psutil.Process) -> bool:
    # OpenSSH 9.8 split sshd into sshd, sshd-session and sshd-auth.
    with contextlib.suppress(psutil.Error):
        return process.name().startswith("sshd")
    return False


class Servers:
    """The target, the jump host, and the client's files for them."""

    def __init__(self, account: Account, marker: str, remote_folder: Path, client_folder: Path) -> None:
        self.account = account
        self.client_key = client_folder / "client_key"
        self.known_hosts = client_folder / "known_hosts"
        self.ssh_config = client_folder / "ssh_config"
        self.target = Server("target", account, remote_folder / "target", self.client_key, marker)
        self.jump = Server("jump", account, remote_folder / "jump", self.client_key, marker)

    def __iter__(self) -> Iterator[Server]:
        return iter((self.target, self.jump))

    def write_client_files(self) -> None:
        """Write known_hosts with the real host keys, and a configuration with `target`, `jump` and `behind`."""
        lines = [f"[{server.host}]:{server.port} {server.host_key}" for server in self]
        self.known_hosts.write_text("\n".join(lines) + "\n")
        # `behind` is the target once more; HostName decides which known_hosts line is looked at.
        self.ssh_config.write_text(
            f"""\
Host target behind
    HostName {self.target.host}
    Port {self.target.port}
Host jump
    HostName {self.jump.host}
    Port {self.jump.port}
Host behind
    ProxyJump jump
Host *
    User {self.account.user}
    IdentityFile {self.client_key}
    IdentitiesOnly yes
    UserKnownHostsFile {self.known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""
        )


@contextlib.contextmanager
def running_servers(account: Account, marker: str) -> Iterator[Servers]:
    """Run the target and the jump host for one test session."""
    with contextlib.ExitStack() as undo:
        folders = []
        for side in ("remote", "client"):
            folder = tempfile.mkdtemp(prefix=f"rk-{side}-", dir="/var/tmp")
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folders.append(Path(folder))
        os.chmod(folders[0], 0o711)  # the account passes through it to the servers' own folders
        servers = Servers(account, marker, folders[0], folders[1])
        make_key(servers.client_key)
        for server in servers:
            server.prepare()
            undo.callback(server.kill_sessions)
            undo.callback(server.stop)
            server.start()
        servers.write_client_files()
        yield servers


@contextlib.contextmanager
def server_with_terminals(servers: Servers, folder: Path) -> Iterator[Path]:
    """Run one more server, which can give terminals; give an ssh config whose `target` it is.

    Only root's sshd can where the system's devpts has no `gid=5`, as in containers. Where the tests are not root's, the
    usual target serves.
    """
    if not servers.account.is_own:
        yield servers.ssh_config
        return
    with _server_of_root(servers, folder, "terminals") as config:
        yield config


@contextlib.contextmanager
def server_with_pam(servers: Servers, folder: Path, account: str, session: str) -> Iterator[Path]:
    """Run one more server, of root, whose PAM does so for an account and its session; give an ssh config for `target`.

    Each is a control and a module with its arguments; the files that they name are to be readable for all.
    """
    rules = folder / "pam"
    rules.write_text(f"auth required pam_permit.so\naccount {account}\nsession {session}\n")
    prefix = ("unshare", "-m", "sh", "-c", f'mount --bind {rules} /etc/pam.d/sshd && exec "$@"', "sh")
    with _server_of_root(servers, folder, "pam-server", prefix, "UsePAM yes", "PrintLastLog no") as config:
        yield config


@contextlib.contextmanager
def _server_of_root(
    servers: Servers, folder: Path, name: str, prefix: tuple[str, ...] = (), *lines: str
) -> Iterator[Path]:
    # Without PAM root's sshd lets nobody in whose password is `!`; no password has the hash `*` either.
    subprocess.run(["usermod", "--password", "*", servers.account.user], check=True, capture_output=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = Server(name, servers.account, folder / name, servers.client_key, servers.target.marker)
    server.privileged, server.prefix, server.extra = True, prefix, lines
    server.prepare()
    os.chmod(folder, 0o711)
    config = folder / f"ssh_config_{name}"
    known = folder / f"known_hosts_{name}"
    known.write_text(f"[{server.host}]:{server.port} {server.host_key}\n")
    text = servers.ssh_config.read_text().replace(f"Port {servers.target.port}", f"Port {server.port}")
    config.write_text(text.replace(str(servers.known_hosts), str(known)))
    try:
        server.start()
        yield config
    finally:
        server.kill_sessions()
        server.stop()
