"""Start the SSH server of one run, `embedded`, as a process of its own; freeze it, and end it."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from remote_kernel.demo.folder import HOST, MARK, DemoFolder, make_key
from remote_kernel.errors import RemoteKernelError, SshNotFound
from remote_kernel.signals import uninterrupted
from remote_kernel.transport import choice
from remote_kernel.transport.ssh_config import ssh_program, uses_openssh

START_SECONDS = 15.0
LOGIN_SECONDS = 15.0


@dataclass(frozen=True)
class SshServer:
    """A running server: its port and process, and how long one cold login took."""

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


def check_ssh(folder: DemoFolder) -> None:
    """Raise SshNotFound when the ssh client that is asked for is not there; without any, paramiko does."""
    if uses_openssh(folder.options()) and not shutil.which(ssh_program()):
        raise SshNotFound(
            f"there is no ssh program '{ssh_program()}' here",
            "install the OpenSSH client (Debian and Ubuntu: openssh-client; Fedora: openssh-clients)",
        )


@contextmanager
def running_server(folder: DemoFolder) -> Iterator[SshServer]:
    """Start the server, log in to it once, stop it at the end. Raises RemoteKernelError."""
    check_ssh(folder)
    host_key = make_key(folder.server / "host_key")
    command = [sys.executable, "-m", "remote_kernel.demo.embedded", str(folder.server), f"{MARK}={folder.path}"]
    with ExitStack() as undo:
        with uninterrupted():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,  # where the terminal's Ctrl-C does not reach it
                text=True,
            )
            undo.enter_context(process)
            undo.callback(process.kill)
        assert process.stdout and process.stderr
        if not select.select([process.stdout], [], [], START_SECONDS)[0]:
            process.kill()
        said = process.stdout.readline().strip()
        if not said.isdigit():
            last = (process.stderr.read().splitlines() or ["it said nothing"])[-1]
            raise RemoteKernelError(f"the demo's SSH server does not start: {last}", "report this")
        yield SshServer(int(said), process.pid, _log_in(folder, host_key, int(said)))


def _log_in(folder: DemoFolder, host_key: str, port: int) -> float:
    """Write the client's files and run `true` there; return the seconds that it took."""
    folder.write_client_files(pwd.getpwuid(os.getuid()).pw_name, port, host_key)
    if uses_openssh(folder.options()):
        command = [ssh_program(), "-F", str(folder.ssh_config), "-oBatchMode=yes", HOST, "true"]  # not a shared one
    else:
        command = choice.carrier_argv(folder.options(), "true")
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOGIN_SECONDS,
            env=choice.environment(folder.options()),
        )
    except subprocess.TimeoutExpired as error:
        raise RemoteKernelError(f"the demo's SSH server did not let us in within {LOGIN_SECONDS:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].strip()
        raise RemoteKernelError(f"the demo's SSH server does not let us in: {last}", "report this")
    return time.monotonic() - begun
