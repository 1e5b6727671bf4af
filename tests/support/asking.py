"""An SSH server that asks for passwords and codes: an sshd that may check them takes root and PAM.

`python -m tests.support.asking FOLDER POLICY` is remote_kernel's embedded server with other ways to log in: FOLDER
holds `host_key` and `authorized_key`, POLICY is a key of POLICIES.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import pwd
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paramiko

from remote_kernel.demo import embedded
from tests.support.servers import Servers, make_key

PASSWORD = "corréct-horse battery"
CODE = "493817"

# The methods that are wanted one after the other.
POLICIES = {
    "password": ("password",),
    "interactive password": ("keyboard-interactive",),
    "key and code": ("publickey", "keyboard-interactive"),
}
_DONE = paramiko.common.AUTH_SUCCESSFUL
_FAILED = paramiko.common.AUTH_FAILED
_MORE = paramiko.common.AUTH_PARTIALLY_SUCCESSFUL


class AskingDoor(embedded.SingleKeyServer):
    """Let in one user, who has to say what the policy wants. One for each connection: it remembers how far it got."""

    def __init__(self, user: str, key: paramiko.PKey, policy: str) -> None:
        super().__init__(user, key, {})
        self._wanted = list(POLICIES[policy])

    def get_allowed_auths(self, username: str) -> str:
        return self._wanted[0]

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._answer("publickey", super().check_auth_publickey(username, key) == _DONE)

    def check_auth_password(self, username: str, password: str) -> int:
        return self._answer("password", password == PASSWORD)

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery:
        if len(self._wanted) < 2 and self._wanted != ["keyboard-interactive"]:
            return _FAILED
        query = paramiko.InteractiveQuery("", "One moment, please.")
        query.add_prompt("Verification code: " if self._asks_code() else "Password: ", self._asks_code())
        return query

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return self._answer("keyboard-interactive", responses == [CODE if self._asks_code() else PASSWORD])

    def _asks_code(self) -> bool:
        return self._passed > 0

    _passed = 0

    def _answer(self, method: str, right: bool) -> int:
        if not right or self._wanted[0] != method:
            return int(_FAILED)
        if len(self._wanted) == 1:
            return int(_DONE)
        del self._wanted[0]
        self._passed += 1
        return int(_MORE)


def serve(folder: Path, policy: str) -> None:
    """Listen, say where, and serve until the input ends."""
    host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host_key"))
    kind, text = (folder / "authorized_key").read_text().split()[:2]
    key = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
    user = pwd.getpwuid(os.getuid()).pw_name
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            readable = select.select([listener, sys.stdin], [], [])[0]
            if sys.stdin in readable and not os.read(sys.stdin.fileno(), 100):
                return
            if listener in readable:
                embedded.ClientConnection(listener.accept()[0], AskingDoor(user, key, policy), host_key).start()


@contextlib.contextmanager
def asking_server(servers: Servers, folder: Path, policy: str) -> Iterator[Path]:
    """Run the server; give an ssh config whose host `asking` leads to it, with a key that it knows."""
    folder.mkdir()
    make_key(folder / "host_key")
    (folder / "authorized_key").write_text(servers.client_key.with_suffix(".pub").read_text())
    command = [sys.executable, "-m", "tests.support.asking", str(folder), policy]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdin
        assert process.stdout
        try:
            port = int(process.stdout.readline())
            host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
            (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
            config = folder / "config"
            config.write_text(
                f"""\
Host asking
    HostName 127.0.0.1
    Port {port}
    User {pwd.getpwuid(os.getuid()).pw_name}
    IdentityFile {servers.client_key}
    IdentitiesOnly yes
    UserKnownHostsFile {folder / "known_hosts"}
    GlobalKnownHostsFile /dev/null
"""
            )
            yield config
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    serve(Path(sys.argv[1]), sys.argv[2])
