"""From what ssh printed to the error, and to the hop that it names. The texts are OpenSSH 9.2's unless noted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import (
    AccountRefused,
    AuthenticationFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    HostKeyChanged,
    HostKeyUnknown,
    JumpHostFailed,
    LocalFilesError,
    PythonNotFound,
    RemoteKernelError,
    RemoteShellNoise,
    SshConfigError,
    SshNotFound,
    TransportError,
    UnknownHost,
)
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.ssh_errors import explain

DIRECT = LaunchOptions(Endpoint.parse("gpu1"))
THROUGH = LaunchOptions(Endpoint.parse("gpu1"), jumps=parse_jumps("me@door:2222"))
PROXY_ENDED = "kex_exchange_identification: Connection closed by remote host\n"

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:khl23OIv8Ijt1xdOf8otudHV77ClZuK3qqGR42A37Ls.
Please contact your system administrator.
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/.ssh/known_hosts:1
  remove with:
  ssh-keygen -f "/home/me/.ssh/known_hosts" -R "[10.0.0.7]:2222"
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""
UNKNOWN = "No ED25519 host key is known for [10.0.0.7]:2222 and you have requested strict checking.\n"
UNKNOWN += "Host key verification failed.\n"
DENIED = "me@10.0.0.7: Permission denied (publickey).\n"

# Name: what ssh printed, the error, what the message has to say.
DIRECTLY: dict[str, tuple[str, type[RemoteKernelError], str]] = {
    "refused": ("ssh: connect to host 10.0.0.7 port 22: Connection refused\n", ConnectionRefused, "gpu1"),
    "no name": ("ssh: Could not resolve hostname gpu1: Name or service not known\n", UnknownHost, "gpu1"),
    "no name, macOS": (
        "ssh: Could not resolve hostname gpu1: nodename nor servname provided, or not known\n", UnknownHost, "gpu1"),
    "no name now": (
        "ssh: Could not resolve hostname gpu1: Temporary failure in name resolution\n", UnknownHost, "gpu1"),
    "denied": (DENIED, AuthenticationFailed, "gpu1 does not let you in: permission denied (publickey) for user 'me'"),
    "denied, other methods": (
        "me@gpu1: Permission denied (publickey,gssapi-keyex,gssapi-with-mic,password).\n",
        AuthenticationFailed, "(publickey,gssapi-keyex,gssapi-with-mic,password)"),
    "denied, an old ssh": ("Permission denied (publickey,keyboard-interactive).\r\n", AuthenticationFailed, "gpu1"),
    "account refused": (
        "Account refused by 10.0.0.7 port 22: no job on this node\nConnection closed by 10.0.0.7 port 22\n",
        AccountRefused, "gpu1 does not let this account in: no job on this node"),
    "account refused, silently": (
        "Account refused by 10.0.0.7 port 22: \nConnection closed by 10.0.0.7 port 22\n",
        AccountRefused, "gpu1 closes the connection after the login, and does not say why"),
    "too many keys": (
        "Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures\n",
        AuthenticationFailed, "too many keys"),
    "too many keys, OpenSSH 7": (
        "Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures\n"
        "Authentication failed.\n", AuthenticationFailed, "too many keys"),
    "no room for a socket": (
        "unix_listener: cannot bind to path /run/user/1/remote_kernel/ssh/42b7.twPmh: No space left on device\n",
        LocalFilesError, "cannot make a socket in /run/user/1/remote_kernel/ssh: no space left on device"),
    "unknown key": (UNKNOWN, HostKeyUnknown, "gpu1"),
    "unknown key, RSA": (UNKNOWN.replace("ED25519", "RSA"), HostKeyUnknown, "gpu1"),
    "changed key": (CHANGED, HostKeyChanged, "host key of gpu1 has changed"),
    "no banner": ("Connection timed out during banner exchange\n", ConnectTimeout, "gpu1 does not answer"),
    "no banner, OpenSSH 8": (
        "Connection timed out during banner exchange\nConnection to 10.0.0.7 port 22 timed out\n",
        ConnectTimeout, "gpu1"),
    "timed out": ("ssh: connect to host 10.0.0.7 port 22: Connection timed out\n", ConnectTimeout, "gpu1"),
    "timed out, macOS": ("ssh: connect to host gpu1 port 22: Operation timed out\n", ConnectTimeout, "gpu1"),
    "no route": ("ssh: connect to host 10.0.0.7 port 22: No route to host\n", ConnectTimeout, "gpu1"),
    "no network": ("ssh: connect to host 10.0.0.7 port 22: Network is unreachable\n", ConnectTimeout, "gpu1"),
    "bad option": (
        "/home/me/.ssh/config: line 2: Bad configuration option: colour\n"
        "/home/me/.ssh/config: terminating, 1 bad configuration options\n", SshConfigError, "configuration"),
    "closed": (PROXY_ENDED, TransportError, "gpu1 closed the connection before the login"),
    "reset": (
        "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.7 port 22\n",
        TransportError, "gpu1 closed the connection"),
    "closed, OpenSSH 7": (
        "ssh_exchange_identification: Connection closed by remote host\r\n", TransportError, "gpu1"),
    "no common cipher": (
        "Unable to negotiate with 10.0.0.7 port 22: no matching host key type found. Their offer: ssh-rsa,ssh-dss\n",
        TransportError, "no matching host key type found"),
    "a proxy command ended at once": (
        "no way today\nbanner exchange: Connection to UNKNOWN port 65535: Broken pipe\n",
        TransportError, "gpu1 closed the connection before the login: no way today"),
    "unheard of": ("the moon is in the way\n", TransportError, "cannot reach gpu1: the moon is in the way"),
    "a word of warning first": (
        "Warning: Permanently added '10.0.0.7' (ED25519) to the list of known hosts.\n" + DENIED,
        AuthenticationFailed, "gpu1 does not let you in"),
    "a long text of the server first": (
        "*** This host is for staff only. ***\n" * 50 + DENIED, AuthenticationFailed, "gpu1 does not let you in"),
}  # fmt: skip

# The same through a jump host. Its ssh speaks first, then the one to the target notices that it is gone.
BEHIND: dict[str, tuple[str, type[RemoteKernelError], str]] = {
    "jump refused": (
        "ssh: connect to host 10.0.0.9 port 2222: Connection refused\n" + PROXY_ENDED, JumpHostFailed, "me@door:2222"),
    "jump refused, at LogLevel INFO": (
        "ssh: connect to host 10.0.0.9 port 2222: Connection refused\n" + PROXY_ENDED
        + "Connection closed by UNKNOWN port 65535\n", JumpHostFailed, "me@door:2222"),
    "jump without a name, and gone while ssh spoke": (
        "ssh: Could not resolve hostname door: Name or service not known\n"
        "kex_exchange_identification: read: Connection reset by peer\n", JumpHostFailed, "door"),
    "jump refuses the account": (
        "Account refused by 10.0.0.9 port 22: expired\nConnection closed by 10.0.0.9 port 22\n" + PROXY_ENDED,
        AccountRefused, "jump host me@door:2222 does not let this account in: expired"),
    "jump without a name": (
        "ssh: Could not resolve hostname door: Name or service not known\n" + PROXY_ENDED, JumpHostFailed, "door"),
    "jump timed out": (
        "ssh: connect to host 10.0.0.9 port 2222: Connection timed out\n" + PROXY_ENDED,
        JumpHostFailed, "me@door:2222"),
    "jump refused, and gone before ssh had spoken": (
        "ssh: connect to host 10.0.0.9 port 2222: Connection refused\n"
        "banner exchange: Connection to UNKNOWN port 65535: Broken pipe\n", JumpHostFailed, "me@door:2222"),
    "jump with an unknown key": (
        UNKNOWN.replace("10.0.0.7", "10.0.0.9") + PROXY_ENDED, HostKeyUnknown, "jump host [10.0.0.9]:2222"),
    "jump with a changed key": (
        CHANGED.replace("10.0.0.7", "10.0.0.9") + PROXY_ENDED, HostKeyChanged, "jump host [10.0.0.9]:2222"),
    "jump denied": (
        DENIED.replace("10.0.0.7", "10.0.0.9") + PROXY_ENDED,
        AuthenticationFailed, "jump host me@10.0.0.9 does not let"),
    "target refused": (
        "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n" + PROXY_ENDED,
        JumpHostFailed, "jump host me@door:2222 cannot reach gpu1: connection refused"),
    "target without a name": (
        "channel 0: open failed: connect failed: Name or service not known\nstdio forwarding failed\n" + PROXY_ENDED,
        JumpHostFailed, "cannot reach gpu1: name or service not known"),
    "forwarding forbidden": (
        "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed\n" + PROXY_ENDED,
        JumpHostFailed, "cannot reach gpu1: administratively prohibited"),
    "target with an unknown key": (UNKNOWN, HostKeyUnknown, "the host key of gpu1"),
    "target with a changed key": (CHANGED, HostKeyChanged, "the host key of gpu1"),
    "target denied": (DENIED, AuthenticationFailed, "gpu1 does not let you in"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTLY)
def test_words_of_ssh_name_the_error(name: str) -> None:
    stderr, kind, says = DIRECTLY[name]
    error = explain(DIRECT, stderr, 255, b"")
    assert type(error) is kind
    assert says in error.message
    assert "\n" not in str(error)
    assert error.hint or kind is not TransportError


@pytest.mark.parametrize("name", BEHIND)
def test_words_through_a_jump_host_name_the_hop(name: str) -> None:
    stderr, kind, says = BEHIND[name]
    error = explain(THROUGH, stderr, 255, b"")
    assert type(error) is kind
    assert says in error.message
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in BEHIND.items() if kind is JumpHostFailed])
def test_jump_host_of_the_ssh_config_is_told_too(name: str) -> None:
    error = explain(DIRECT, BEHIND[name][0], 255, b"")
    assert type(error) is JumpHostFailed
    assert "of the ssh config" in error.message


def test_jump_host_of_the_ssh_config_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host gpu1\n    ProxyJump gate\n")
    for transport in ("openssh", "paramiko"):
        options = DIRECT._replace(ssh_config=str(config), transport=transport)
        refused = explain(options, BEHIND["jump refused"][0], 255, b"")
        assert refused.message.startswith("jump host gate cannot be reached: ")
        unknown = explain(options, f"Host key verification failed.\n{PROXY_ENDED}", 255, b"")
        assert unknown.message == "the host key of jump host gate is not known here"


IN_FULL = "me@[::1]:2222"
LOCKED = "/home/me/my keys/id: the key has a passphrase and is not in the agent\n"
ASKED = DENIED.replace("publickey", "publickey,keyboard-interactive")
ASKABLE = UNKNOWN.replace(" and you have requested strict checking", " here")


@pytest.mark.parametrize(
    ("options", "stderr", "hint"),
    [
        (DIRECT, DENIED, "run 'ssh-copy-id gpu1', or ask who runs it to add the key; otherwise load the key"),
        (LaunchOptions(Endpoint.parse(IN_FULL)), DENIED, "'ssh-copy-id -p 2222 me@::1'"),
        (THROUGH._replace(ssh_config="/c"), DENIED, "'ssh-copy-id -F /c -o ProxyJump=me@door:2222 gpu1'"),
        (THROUGH, DENIED.replace("10.0.0.7", "door") + PROXY_ENDED, "'ssh-copy-id -p 2222 me@door'"),
        (DIRECT, DENIED + PROXY_ENDED, "'ssh-copy-id me@10.0.0.7'"),
        (DIRECT, ASKED, "run 'remote_kernel login gpu1' in a terminal; to log in with your key from then on"),
        (DIRECT, DENIED.replace("publickey", "keyboard-interactive"), "run 'remote_kernel login gpu1' in a terminal"),
        (DIRECT, LOCKED + DENIED, "run 'remote_kernel login gpu1' in a terminal"),
        (LaunchOptions(Endpoint.parse(IN_FULL)), ASKED, "run \"remote_kernel login 'me@[::1]:2222'\" in a terminal"),
        (DIRECT._replace(ssh_config="/c", transport="paramiko"), ASKED,
         "run 'remote_kernel login gpu1 --transport paramiko --ssh-config /c' in a terminal"),
        (THROUGH, ASKED + PROXY_ENDED, "run 'remote_kernel login gpu1 -J me@door:2222' in a terminal"),
        (THROUGH, ASKABLE + PROXY_ENDED, "it once: run 'remote_kernel login gpu1 -J me@door:2222' in a terminal"),
        (DIRECT, "Host key verification failed.\n", "accept it once: run 'remote_kernel login gpu1' in a terminal"),
        (DIRECT, UNKNOWN, "set 'ask' and run 'remote_kernel login gpu1' in a terminal"),
        (DIRECT, CHANGED, "if the server was reinstalled, run 'remote_kernel login gpu1' in a terminal"),
        (THROUGH, DIRECTLY["no name"][0] + PROXY_ENDED, "try: ssh -l me -p 2222 door true"),
        (DIRECT, "the moon is in the way\n", "try: ssh gpu1 true"),
        (DIRECT._replace(transport="paramiko"), "the moon is in the way\n",
         "try: remote_kernel connect gpu1 --transport paramiko -- true"),
        (THROUGH._replace(transport="paramiko"), DIRECTLY["no name"][0] + PROXY_ENDED,
         "try: remote_kernel connect me@door:2222 --transport paramiko -- true"),
    ],
)  # fmt: skip
def test_hint_is_a_command_that_goes_the_same_way(options: LaunchOptions, stderr: str, hint: str) -> None:
    assert hint in explain(options, stderr, 255, b"").hint


def test_locked_key_and_fingerprint_are_named() -> None:
    assert "the key /home/me/my keys/id has a passphrase" in explain(DIRECT, LOCKED + DENIED, 255, b"").message
    assert "(SHA256:khl23OIv8Ijt1xdOf8otudHV77ClZuK3qqGR42A37Ls)" in explain(DIRECT, CHANGED, 255, b"").message
    shown = f"key fingerprint is SHA256:{'a' * 43}.\n{ASKABLE}"
    assert f"(SHA256:{'a' * 43})" in explain(DIRECT, shown, 255, b"").message


@pytest.mark.parametrize(
    ("stderr", "status", "noise", "kind", "says"),
    [
        ("remote_kernel: no python\n", 127, b"", PythonNotFound, "no Python on gpu1"),
        ("/bin/sh: 1: exec: /nothing/ssh: not found\n", 127, b"", SshNotFound, "no such ssh program"),
        ("/bin/sh: line 1: ssh: command not found\n", 127, b"", SshNotFound, "no such ssh program"),
        ("bash: line 1: /x/python: Permission denied\n", 126, b"", PythonNotFound, "does not run"),
        ("Unknown option: -I\nusage: python …\n", 2, b"", PythonNotFound, "does not run"),
        ("", 0, b"Welcome!\n", RemoteShellNoise, "Welcome!"),
        ("", 0, b"", RemoteShellNoise, "answered something else"),
        ("This account is not available.\n", 1, b"", AccountRefused, "This account is not available."),
        ("", 1, b"This account is currently not available.\n", AccountRefused, "currently not available"),
        ("Killed\n", 137, b"", RemoteShellNoise, "status 137"),
        ("", None, b"", ConnectionLost, "broke before"),
        ("", 255, b"", ConnectionLost, "broke before"),
        ("", 1, b"\xff\xfe" + b"x" * 100000, RemoteShellNoise, "xxx"),
    ],
)
def test_end_of_the_remote_command_is_told(
    stderr: str, status: int | None, noise: bytes, kind: type[RemoteKernelError], says: str
) -> None:
    error = explain(DIRECT, stderr, status, noise)
    assert type(error) is kind
    assert says in error.message
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("status", "noise", "stderr", "words"),
    [
        (254, b"There were too many logins for 'me'.\n", "", "too many logins.*'who' and 'ps'"),
        (254, b"", "The system is down for maintenance.\n", "in: The system is down for maintenance.*do what it says"),
        (254, b"", "", "it opens no session; see what it says: ssh gpu1 true"),
        (1, b"", "Password change required but no TTY available.\n", "Password change required.*do what it says"),
        (1, b"This account is currently not available.\n", "", "This account is currently not available"),
    ],
)
def test_session_that_the_server_does_not_open_is_the_accounts(
    status: int, noise: bytes, stderr: str, words: str
) -> None:
    error = explain(DIRECT, stderr, status, noise)
    assert type(error) is AccountRefused
    assert re.search(words, str(error))
