"""The SSH server of one run, on loopback: the system's own sshd, or the one in `embedded`."""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote_kernel.demo.keys import make_key
from remote_kernel.demo.place import HOST, MARK, Place, uninterrupted
from remote_kernel.errors import RemoteKernelError, SshNotFound
from remote_kernel.transport import choice
from remote_kernel.transport.ssh_config import ssh_program, uses_openssh

AUTO, SYSTEM, EMBEDDED = SERVERS = ("auto", "sshd", "embedded")
START_SECONDS = 15.0
LOGIN_SECONDS = 15.0
_SEPARATION = Path("/run/sshd")  # root's sshd insists on it; whatever starts sshd at boot makes it


@dataclass(frozen=True)
class SshServer:
    """A running server: what it is, its port and process, and how long one cold login took."""

    name: str
    port: int
    pid: int
    login_seconds: float

    @contextmanager
    def frozen(self, seconds: float) -> Iterator[None]:
        """Stop answering for so long, as a network that is down does; the block's end is the latest."""
        thaw = threading.Timer(seconds, self._signal, (signal.SIGCONT,))
        with ExitStack() as undo:
            undo.callback(self._signal, signal.SIGCONT)
            undo.callback(thaw.cancel)
            self._signal(signal.SIGSTOP)
            thaw.start()
            yield

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass


def check_ssh(place: Place) -> None:
    """Raise SshNotFound when the ssh client that is asked for is not there; without any, paramiko does."""
    if uses_openssh(place.options()) and not shutil.which(ssh_program()):
        raise SshNotFound(
            f"there is no ssh program '{ssh_program()}' here",
            "install the OpenSSH client (Debian and Ubuntu: openssh-client; Fedora: openssh-clients)",
        )


def find_sshd() -> str | None:
    """Give sshd's absolute path: it is rarely on a user's PATH, and starts itself again by its own path."""
    places = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin:/opt/local/sbin"
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":" + places)


@contextmanager
def running_server(place: Place, choice: str) -> Iterator[tuple[SshServer, str]]:
    """Start a server, log in to it once, stop it at the end. Gives it, and why it is not the system's, if it is not.

    `choice` is one of SERVERS. `auto` takes the embedded one where there is no sshd, or where sshd does not let this
    user in: a policy of the system's, an account without a shell. Raises RemoteKernelError.
    """
    check_ssh(place)
    host_key = make_key(place.server / "host_key")
    with ExitStack() as undo:
        reason = ""
        if choice != EMBEDDED:
            try:
                with ExitStack() as attempt:
                    server = _log_in(place, host_key, *attempt.enter_context(_system_server(place)))
                    undo.push(attempt.pop_all())
            except RemoteKernelError as error:
                if choice == SYSTEM:
                    raise
                reason = error.message
            else:
                yield server, ""
                return
        server = _log_in(place, host_key, *undo.enter_context(_embedded_server(place)))
        yield server, reason


def _log_in(place: Place, host_key: str, name: str, port: int, pid: int) -> SshServer:
    """Write the client's files and run `true` there."""
    place.write_client_files(pwd.getpwuid(os.getuid()).pw_name, port, host_key)
    if uses_openssh(place.options()):
        command = [ssh_program(), "-F", str(place.ssh_config), "-oBatchMode=yes", HOST, "true"]  # not a shared one
    else:
        command = choice.carrier_argv(place.options(), "true")
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOGIN_SECONDS,
            env=choice.environment(place.options()),
        )
    except subprocess.TimeoutExpired as error:
        raise RemoteKernelError(f"{name} did not let us in within {LOGIN_SECONDS:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].strip()
        raise RemoteKernelError(f"{name} does not let us in: {last}", "try --server embedded")
    return SshServer(name, port, pid, time.monotonic() - begun)


@contextmanager
def _system_server(place: Place) -> Iterator[tuple[str, int, int]]:
    program = find_sshd()
    if program is None:
        raise RemoteKernelError("there is no sshd here", "install the OpenSSH server, or use --server embedded")
    with ExitStack() as undo:
        if os.getuid() == 0:
            undo.enter_context(_separation_folder())
        port = _free_port()
        config = place.server / "sshd_config"
        config.write_text(
            f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {place.server / "host_key"}
AuthorizedKeysFile {place.server / "authorized_key"}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
PrintMotd no
AllowTcpForwarding no
X11Forwarding no
PermitUserRC no
SetEnv {MARK}={place.folder}
"""
        )
        process = undo.enter_context(
            _child([program, "-D", "-e", "-f", str(config)], {"PATH": os.environ.get("PATH", os.defpath)})
        )
        assert process.stderr
        said = _read_until(process.stderr.fileno(), f"listening on 127.0.0.1 port {port}")
        if "listening on" not in said:
            last = (said.strip().splitlines() or ["it says nothing"])[-1].strip()
            raise RemoteKernelError(f"sshd does not start: {last}", "try --server embedded")
        yield f"{_version(program)} (sshd)", port, process.pid


@contextmanager
def _embedded_server(place: Place) -> Iterator[tuple[str, int, int]]:
    command = [sys.executable, "-m", "remote_kernel.demo.embedded", str(place.server), f"{MARK}={place.folder}"]
    with _child(command, os.environ) as process:
        assert process.stdout and process.stderr
        said = _read_until(process.stdout.fileno(), "\n").strip()
        if not said.isdigit():
            raise RemoteKernelError("the SSH server in Python does not start", "report this")
        yield "the SSH server in Python (paramiko)", int(said), process.pid


@contextmanager
def _child(command: list[str], variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, where the terminal's Ctrl-C does not reach it, and end it."""
    with ExitStack() as undo:
        with uninterrupted():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(variables),
                cwd="/",
                start_new_session=True,
            )
            undo.callback(_end, process)
        yield process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe
        pipe.close()


def _read_until(fd: int, text: str) -> str:
    """Read until `text` has come, the output ends, or START_SECONDS have passed; give what was read."""
    said = b""
    deadline = time.monotonic() + START_SECONDS
    while text.encode() not in said:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        data = os.read(fd, 4096)
        if not data:
            break
        said += data
    return said.decode("utf-8", "replace")


@contextmanager
def _separation_folder() -> Iterator[None]:
    """Have /run/sshd for as long as root's sshd runs, and take it away again if it was not there before."""
    made = False
    try:
        _SEPARATION.mkdir(mode=0o755)
        made = True
    except FileExistsError:
        pass
    except OSError as error:
        raise RemoteKernelError(f"sshd does not start: cannot make {_SEPARATION}: {error.strerror}") from error
    fd = os.open(_SEPARATION, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # another demonstration may rely on it at the same time
        yield
    finally:
        try:
            if made:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _SEPARATION.rmdir()
        except OSError:
            pass
        os.close(fd)


def _free_port() -> int:
    """Pick a free port on loopback below the range that outgoing connections take theirs from."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RemoteKernelError("there is no free port on 127.0.0.1 from 20000 to 32000", "try again")


def _version(program: str) -> str:
    """Give sshd's version: a new one tells it on request, an old one with its complaint about the request."""
    asked = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"OpenSSH_[\w.]+", asked.stderr + asked.stdout)
    return found[0].replace("_", " ") if found else "OpenSSH"
