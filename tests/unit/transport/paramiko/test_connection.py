"""What the transport in Python makes of the user's files, without a connection; and which transport is chosen."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import UsageError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice
from remote_kernel.transport.known_hosts import fingerprint
from remote_kernel.transport.paramiko.config import Config, Hop
from remote_kernel.transport.paramiko.connection import connect
from remote_kernel.transport.paramiko.host_keys import verify
from remote_kernel.transport.ssh_config import transport_name, uses_openssh
from remote_kernel.transport.ssh_messages import SshFailure

CONFIG = """\
Host gpu1
    HostName gpu1.cluster.example.org
    User me
    ProxyJump gate,inner
Host gate
    Port 2222
    ProxyJump outer
    HostKeyAlias the-gate
Host direct
    ProxyJump none
    IdentityFile ~/keys/one
    IdentityFile ~/keys/two
    ServerAliveInterval 7
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config").write_text(CONFIG)
    return Config(str(tmp_path / "config"))


def test_way_follows_the_jump_hosts_of_the_config(config: Config) -> None:
    hops = config.hops(Endpoint("gpu1"))
    assert [(hop.host, hop.port) for hop in hops] == [
        ("outer", 22),
        ("gate", 2222),
        ("inner", 22),
        ("gpu1.cluster.example.org", 22),
    ]
    assert hops[-1].user == "me"
    assert hops[1].alias == "the-gate"


def test_way_of_the_command_line_wins(config: Config) -> None:
    hops = config.hops(Endpoint("gpu1", "you", 22022), parse_jumps("a@b:1"))
    assert [(hop.user, hop.host, hop.port) for hop in hops] == [
        ("a", "b", 1),
        ("you", "gpu1.cluster.example.org", 22022),
    ]


def test_values_are_those_of_the_host(config: Config) -> None:
    (hop,) = config.hops(Endpoint("direct"))
    assert hop.keys == tuple(os.path.expanduser(f"~/keys/{name}") for name in ("one", "two"))
    assert hop.keepalive_seconds == 7
    assert hop.strict == "ask"


def test_way_that_leads_back_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(SshFailure, match="Bad configuration option"):
        Config(str(tmp_path / "config")).hops(Endpoint("a"))


def test_included_files_stand_where_they_are_included(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("Host a\n Port 1\n")
    (tmp_path / "config").write_text(f"Include {tmp_path}/one\nUser all\nHost a b\n Port 2\n")
    config = Config(str(tmp_path / "config"))
    assert [(config.hops(Endpoint(name))[0].port, config.hops(Endpoint(name))[0].user) for name in "ab"] == [
        (1, "all"),
        (2, "all"),
    ]


MATCHES = """\
Match host *.example.org,!bad.example.org
    Port 2201
Match originalhost short user somebody
    Port 2202
Match user me
    Port 2203
Match all
    Port 2204
"""


@pytest.mark.parametrize(
    ("host", "user", "port"),
    [("a.example.org", "x", 2201), ("bad.example.org", "x", 2204), ("other", "me", 2203), ("other", "x", 2204)],
)
def test_match_blocks_hold_for_whom_they_name(tmp_path: Path, host: str, user: str, port: int) -> None:
    (tmp_path / "config").write_text(MATCHES)
    assert Config(str(tmp_path / "config")).hops(Endpoint(host, user))[0].port == port


def test_what_cannot_be_honoured_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n GSSAPIAuthentication yes\n KnownHostsCommand none\n")
    config = Config(str(tmp_path / "config"))
    config.hops(Endpoint("a"))
    assert config.warnings == ["gssapiauthentication yes"]


def test_revoked_keys_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("RevokedHostKeys /some/file\n")
    with pytest.raises(SshFailure, match="RevokedHostKeys"):
        Config(str(tmp_path / "config")).hops(Endpoint("a"))


@pytest.fixture
def key(tmp_path: Path) -> paramiko.PKey:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return paramiko.PKey.from_path(tmp_path / "key")


def hop_to(host: str, port: int, known: Path, strict: str = "yes") -> Hop:
    return Hop(host, host, port, "u", "", (), (), "", (), False, (str(known),), strict, "", 1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("line", "trusted"),
    [
        ("gpu1 KEY", True),
        ("other,gpu1 KEY", True),
        ("gpu? KEY", True),
        ("GPU1 KEY", True),
        ("*,!gpu1 KEY", False),
        ("[gpu1]:2222 KEY", False),
        ("# gpu1 KEY", False),
        ("@cert-authority gpu1 KEY", False),
        ("@revoked gpu1 KEY\ngpu1 KEY", False),
        ("other KEY", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("strict", ["yes", "ask"])
def test_host_key_is_trusted_only_if_its_line_says_so(
    tmp_path: Path, key: paramiko.PKey, line: str, trusted: bool, strict: str
) -> None:
    (tmp_path / "known").write_text(line.replace("KEY", f"{key.get_name()} {key.get_base64()}") + "\n")
    if trusted:
        verify(hop_to("gpu1", 22, tmp_path / "known", strict), key)
        return
    with pytest.raises(SshFailure, match="Host key verification failed"):
        verify(hop_to("gpu1", 22, tmp_path / "known", strict), key)


@pytest.mark.parametrize("strict", ["yes", "accept-new"])
@pytest.mark.parametrize("port", [22, 2222])
def test_a_key_that_is_revoked_for_the_host_is_refused_on_every_port(
    tmp_path: Path, key: paramiko.PKey, port: int, strict: str
) -> None:
    words = f"{key.get_name()} {key.get_base64()}"
    (tmp_path / "known").write_text(f"@revoked gpu1 {words}\ngpu1 {words}\n")
    with pytest.raises(SshFailure, match="REVOKED HOST KEY"):
        verify(hop_to("gpu1", port, tmp_path / "known", strict), key)


def test_fingerprint_is_the_one_of_ssh_keygen(tmp_path: Path, key: paramiko.PKey) -> None:
    said = subprocess.run(["ssh-keygen", "-lf", str(tmp_path / "key")], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == fingerprint(key.asbytes())


@pytest.mark.parametrize("strict", ["accept-new", "no"])
def test_revoked_or_changed_key_is_refused_whatever_the_config_says(
    tmp_path: Path, key: paramiko.PKey, strict: str
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    for line in (f"gpu1 {other}", f"@revoked gpu1 {key.get_name()} {key.get_base64()}"):
        (tmp_path / "known").write_text(f"{line}\n")
        with pytest.raises(SshFailure, match="Host key verification failed"):
            verify(hop_to("gpu1", 22, tmp_path / "known", strict), key)
        assert (tmp_path / "known").read_text() == f"{line}\n"


def test_transport_is_what_there_is_unless_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = LaunchOptions(Endpoint("gpu1"))
    assert uses_openssh(options)
    assert transport_name(options._replace(transport="paramiko")) == "paramiko"
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", "paramiko")
    assert transport_name(options) == "paramiko"
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", "pigeon")
    with pytest.raises(UsageError):
        transport_name(options)
    monkeypatch.delenv("REMOTE_KERNEL_TRANSPORT")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert transport_name(options) == "paramiko"
    monkeypatch.setenv("REMOTE_KERNEL_SSH", "/nothing/ssh")  # a missing program that was named is told, not replaced
    assert uses_openssh(options)


def test_program_gets_no_secret_in_its_words() -> None:
    options = LaunchOptions(Endpoint("gpu1", "me", 22), parse_jumps("gate"), transport="paramiko", ssh_config="/c")
    argv = choice.carrier_argv(options, "command")
    assert argv[1:4] == ["-Wignore", "-m", choice.PROGRAM]
    assert argv[4:] == ["-F", "/c", "-J", "gate", "-l", "me", "-p", "22", "gpu1", "command"]


def test_a_connection_that_is_reset_at_once_is_one_that_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS refuses TCP_NODELAY then; a ProxyCommand's and a forward's sockets may be no TCP sockets at all."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        hop = hop_to("127.0.0.1", port, tmp_path / "known")
        closer = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        closer.start()
        monkeypatch.setattr(socket.socket, "setsockopt", refuse)
        with ExitStack() as undo, pytest.raises(SshFailure, match=f"Connection closed by 127.0.0.1 port {port}"):
            connect([hop], undo)
        closer.join(20)
