"""What the transport in Python reads in an ssh config, beside what ssh itself makes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.transport.paramiko.config import Config, Hop
from remote_kernel.transport.ssh_messages import SshFailure

ALIKE = {
    "values with comments and quotes": (
        'Host a "b"  # both\n Port 2201 # mine\n User "me"\n HostName=%h.example.org\n IdentityFile ~/x#y\n'
        "HOST *\n Port 23\n"
    ),
    "proxy command": "ProxyCommand nc -x '#1' %h %p # it is\nHost a\n User x\n",
    "negated host": "Host * !b\n Port 2201\nHost *\n Port 2202\n",
    "match host and user": "User me\nMatch host a user me\n Port 2201\nMatch !host a\n Port 2202\n",
    "match in capitals": "Match Host a OriginalHost a\n Port 2201\nMatch ALL\n Port 2202\n",
    "match original host": "Host a\n HostName c\nMatch originalhost a\n Port 2201\nMatch host c\n User later\n",
    "match local user": f"Match localuser {'root' if os.getuid() == 0 else '*'}\n Port 2201\n",
    "match final": "Host a\n HostName c\nMatch final host c\n Port 2201\n",
    "match exec": 'Match host a exec "test %h = a"\n Port 2201\nMatch exec "test %n = b"\n Port 2202\n',
    "match not exec": "Match !exec false\n Port 2201\n",
    "match exec that fails": 'Match exec "false"\n Port 2201\nMatch all\n Port 2202\n',
    "keyword to be ignored": "IgnoreUnknown Odd*,strange\nOddity yes\nHost a\n Strange 1\n Port 2201\n",
    "deprecated keyword": "RSAAuthentication no\nPort 2201\n",
    "include in a block": "Host a\n Include one\n User me\n",
    "include with a pattern": "Include t*o o[mn]e missing\nHost *\n User late\n",
    "include of an include": "Include three\nHost b\n User of-b\n",
}
INCLUDED = {
    "one": "Port 2201\nIdentityFile /of/one\n",
    "two": "Host a\n User of-two\nHost b\n Port 2202\n",
    "three": "Include two\nHost a\n Port 2203\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home with files to include; ssh itself looks for them in the real one, so they have whole paths."""
    for name, text in INCLUDED.items():
        (tmp_path / name).write_text(absolute(text, tmp_path))
    return tmp_path


def absolute(text: str, folder: Path) -> str:
    lines = []
    for line in text.splitlines():
        head, keyword, rest = line.partition("Include ")
        lines.append(head + keyword + " ".join(f"{folder}/{word}" for word in rest.split()) if keyword else line)
    return "\n".join(lines) + "\n"


def by_ssh(path: Path, host: str) -> dict[str, list[str]]:
    done = subprocess.run(
        ["ssh", "-T", "-F", str(path), "-G", host], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("host", ["a", "b"])
@pytest.mark.parametrize("name", ALIKE)
def test_config_means_what_it_means_to_ssh(name: str, host: str, home: Path) -> None:
    path = home / "config"
    path.write_text(absolute(ALIKE[name], home))
    config = Config(str(path))
    (hop,) = config.hops(Endpoint(host))
    ssh = by_ssh(path, host)
    assert (hop.host, str(hop.port), hop.user) == (ssh["hostname"][0], ssh["port"][0], ssh["user"][0])
    command = ssh.get("proxycommand", [""])[0].replace("%h", hop.host).replace("%p", str(hop.port))
    assert hop.proxy_command == command
    if "IdentityFile" in path.read_text():
        assert list(hop.keys) == [os.path.expanduser(key) for key in ssh["identityfile"]]
    assert config.warnings == []


@pytest.mark.parametrize(
    "text",
    [
        "Hostt a\nHost z\n Prot 3\n",
        "Host other\n StrictHostKeyCheking yes\n",
        "Match user me hots a\n Port 1\n",
        "Host a\n Port\n",
        "Odd yes\nIgnoreUnknown odd\n",
    ],
)
def test_what_ssh_refuses_is_refused_in_its_words(text: str, home: Path) -> None:
    path = home / "config"
    path.write_text(text)
    done = subprocess.run(["ssh", "-T", "-F", str(path), "-G", "a"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    with pytest.raises(SshFailure) as raised:
        Config(str(path))
    ours, theirs = str(raised.value).splitlines(), done.stderr.splitlines()
    assert ours[-1] == theirs[-1]
    assert ours[0].split(": ")[:2] == theirs[-len(ours)].split(": ")[:2]


def test_criterion_that_the_parser_does_not_know_holds_for_nobody_and_is_named(home: Path) -> None:
    (home / "config").write_text("Match localnetwork 10.0.0.0/8\n Port 2201\nMatch tagged x host a\n Port 2202\n")
    config = Config(str(home / "config"))
    assert config.hops(Endpoint("a"))[0].port == 22
    assert config.warnings == ["match localnetwork 10.0.0.0/8", "match tagged x host a"]


def test_hosts_of_a_file_that_is_included_in_a_block_are_named(home: Path) -> None:
    (home / "config").write_text(f"Host c\n Include {home}/two\n")
    config = Config(str(home / "config"))
    assert config.warnings == [
        f"host a in {home}/two holds also outside 'Host c', which includes that",
        f"host b in {home}/two holds also outside 'Host c', which includes that",
    ]


def hop_of(home: Path, text: str) -> Hop:
    (home / "config").write_text(text)
    return Config(str(home / "config")).hops(Endpoint("a", "me"))[0]


def test_names_are_put_in_once_and_not_looked_through_again(home: Path) -> None:
    (home / "config").write_text("Host a*\n HostName %h.x\n ProxyCommand nc ~/y %h %n %r %%h %p\n")
    (hop,) = Config(str(home / "config")).hops(Endpoint("a%p~b", "me%n"))
    assert hop.proxy_command == "nc ~/y a%p~b.x a%p~b me%n %h 22"


def test_paths_have_tokens_and_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    text = "IdentityFile ${KEYS}/%r\nCertificateFile ${KEYS}/%h-cert\nUserKnownHostsFile /known/%h ~/k\n"
    hop = hop_of(home, text)
    assert (hop.keys, hop.certificates) == (("/keys/me",), ("/keys/a-cert",))
    assert hop.known_hosts[:2] == ("/known/a", os.path.expanduser("~/k"))


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ("", "/the/agent"),
        ("IdentityAgent none", ""),
        ("IdentityAgent SSH_AUTH_SOCK", "/the/agent"),
        ("IdentityAgent $OTHER", "/other"),
        ("IdentityAgent ${OTHER}", "/other"),
        ('IdentityAgent "~/an agent"', "~/an agent"),
    ],
)
def test_agent_is_the_one_of_the_config(line: str, agent: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/the/agent")
    monkeypatch.setenv("OTHER", "/other")
    assert hop_of(home, f"{line}\n").agent == os.path.expanduser(agent)


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("", ("publickey", "keyboard-interactive", "password")),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication no\n", ("publickey",)),
        ("ChallengeResponseAuthentication no\nPubkeyAuthentication no\n", ("password",)),
        ("PreferredAuthentications password,publickey\n", ("password", "publickey")),
    ],
)
def test_ways_to_log_in_are_those_of_the_config(text: str, methods: tuple[str, ...], home: Path) -> None:
    assert hop_of(home, text).methods == methods
