"""A small SSH server in Python, so that the demonstration needs none of the system.

`python -m remote_kernel.demo.embedded FOLDER NAME=VALUE` listens on a free port of 127.0.0.1, prints the port, and
serves until its input ends. FOLDER holds `host_key` (private) and `authorized_key` (public); NAME=VALUE goes into the
environment of what it runs. Lets in the user that it runs as, with that one key, and does one thing: run a command
through the user's shell as sshd does, with three pipes, end of input both ways, and the exit status. No terminal, no
forwarding, no sftp.
"""

from __future__ import annotations

import base64
import logging
import os
import pwd
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import paramiko

CHUNK_BYTES = 32 << 10
LOGIN_SECONDS = 20
_CLOSED_SECONDS = 0.1  # how often a silent command is looked at for a client that has gone
_ENDING_SECONDS = 0.5  # a client that has the end of the output may close before it has the exit status


class CommandSession(threading.Thread):
    """One command of one channel. The client's disappearance closes its output before its input.

    In that order, as sshd does: a program that finds its input at the end can then tell whether anyone still reads.
    """

    def __init__(self, channel: paramiko.Channel, command: bytes, variables: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._channel, self._command, self._variables = channel, command, variables

    def run(self) -> None:
        """Run the command and pass its bytes on until it has ended and its output is all sent."""
        user = pwd.getpwuid(os.getuid())
        try:
            process = subprocess.Popen(
                [login_shell(user), "-c", self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=user.pw_dir if os.path.isdir(user.pw_dir) else "/",
                env={**login_environment(user), **self._variables},
                start_new_session=True,
            )
        except OSError as error:
            self._channel.sendall_stderr(f"{error}\n".encode())
            self._finish(127)
            return
        outputs = ((process.stdout, self._channel.sendall), (process.stderr, self._channel.sendall_stderr))
        pumps = [threading.Thread(target=self._pump, args=args, daemon=True) for args in outputs]
        feeder = threading.Thread(target=self._feed, args=(process.stdin, pumps), daemon=True)
        for thread in (*pumps, feeder):
            thread.start()
        for pump in pumps:
            pump.join()
        try:
            status = process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its outputs and lives on
            with suppress(OSError, EOFError):
                self._channel.shutdown_write()
            status = process.wait()
        self._finish(128 - status if status < 0 else status)
        feeder.join()

    def _finish(self, status: int) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.send_exit_status(status)
            self._channel.close()

    def _feed(self, stdin: IO[bytes], pumps: list[threading.Thread]) -> None:
        """Pass on the client's bytes, then the end of them."""
        with suppress(OSError, EOFError):
            while data := self._channel.recv(CHUNK_BYTES):
                stdin.write(data)
                stdin.flush()
        if self._channel.closed:
            for pump in pumps:
                pump.join()
        with suppress(OSError):
            stdin.close()

    def _pump(self, output: IO[bytes], send: Callable[[bytes], object]) -> None:
        """Pass on one of the command's outputs until it ends or the client is gone, and close it."""
        with output, suppress(OSError, EOFError):
            while not self._channel.closed:
                if select.select([output], [], [], _CLOSED_SECONDS)[0]:
                    data = os.read(output.fileno(), CHUNK_BYTES)
                    if not data:
                        return
                    send(data)


class SingleKeyServer(paramiko.ServerInterface):  # type: ignore[misc]
    """Let in one user with one key, to run commands."""

    def __init__(self, user: str, key: paramiko.PKey, variables: dict[str, str]) -> None:
        self._user, self._key, self._variables = user, key, variables

    def get_allowed_auths(self, username: str) -> str:
        """Name the ways to log in."""
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Accept the one key."""
        known = username == self._user and key == self._key
        return int(paramiko.common.AUTH_SUCCESSFUL if known else paramiko.common.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Accept sessions and nothing else."""
        refused = paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        return int(paramiko.common.OPEN_SUCCEEDED if kind == "session" else refused)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run a command."""
        CommandSession(channel, command, {**self._variables, **connection_variables(channel)}).start()
        return True


def connection_variables(channel: paramiko.Channel) -> dict[str, str]:
    """Return SSH_CONNECTION as sshd does: the client's address and port, then the server's."""
    transport = channel.get_transport()
    client, server = transport.getpeername(), transport.sock.getsockname()
    return {"SSH_CONNECTION": f"{client[0]} {client[1]} {server[0]} {server[1]}"}


def login_shell(user: pwd.struct_passwd) -> str:
    """Return the user's shell; /bin/sh for an account that is not meant for logins."""
    shell = user.pw_shell or "/bin/sh"
    usable = os.access(shell, os.X_OK) and os.path.basename(shell) not in ("nologin", "false", "true")
    return shell if usable else "/bin/sh"


def login_environment(user: pwd.struct_passwd) -> dict[str, str]:
    """Return what sshd would: nothing of this process's own but the language."""
    language = {name: value for name, value in os.environ.items() if name == "LANG" or name.startswith("LC_")}
    return {
        **language,
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": login_shell(user),
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    }


class ClientConnection(threading.Thread):
    """One client: log in, then serve its channels until it goes."""

    def __init__(self, client: socket.socket, interface: SingleKeyServer, host_key: paramiko.PKey) -> None:
        super().__init__(daemon=True)
        self._client, self._interface, self._host_key = client, interface, host_key

    def run(self) -> None:
        """Serve; a client that does not speak SSH is dropped."""
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(self._client)
        try:
            transport.add_server_key(self._host_key)
            transport.auth_timeout = LOGIN_SECONDS
            transport.start_server(server=self._interface)
            channels: list[paramiko.Channel] = []  # one that nobody holds is closed, also before its command comes
            while transport.is_active():
                accepted = transport.accept(LOGIN_SECONDS)
                channels = [channel for channel in (*channels, accepted) if channel and not channel.closed]
        except (paramiko.SSHException, EOFError, OSError):
            pass
        finally:
            transport.close()


def serve(folder: Path, variables: dict[str, str]) -> None:
    """Listen, say where, and serve until the input ends."""
    host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host_key"))
    kind, text = (folder / "authorized_key").read_text().split()[:2]
    user = pwd.getpwuid(os.getuid()).pw_name
    interface = SingleKeyServer(user, paramiko.PKey.from_type_string(kind, base64.b64decode(text)), variables)
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            readable = select.select([listener, sys.stdin], [], [])[0]
            if sys.stdin in readable and not os.read(sys.stdin.fileno(), CHUNK_BYTES):
                return
            if listener in readable:
                ClientConnection(listener.accept()[0], interface, host_key).start()


if __name__ == "__main__":
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    serve(Path(sys.argv[1]), dict([sys.argv[2].split("=", 1)]) if len(sys.argv) > 2 else {})
