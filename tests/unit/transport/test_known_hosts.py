"""The files that remember host keys: which line is whose, and that no other is lost."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import pytest

from remote_kernel.transport import known_hosts, login
from remote_kernel.transport.known_hosts import known_keys, read_line, remove_line

ALPHA, BETA, GAMMA = (base64.b64encode(name * 4).decode() for name in (b"ALPH", b"BETA", b"GAMM"))
# What other programs take for line ends stands in comments; ssh takes it for a sign like any other.
COMMENTED = f"""\
alpha ssh-ed25519 {ALPHA} me\u2028work\x85\x0b\x0c\x1c\x1drest
beta ssh-ed25519 {BETA} größe
gamma ssh-ed25519 {GAMMA}\r
delta ssh-ed25519 größe
"""


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "known_hosts"
    path.write_bytes(COMMENTED.encode() + b"# caf\xe9\n")
    path.chmod(0o640)
    return path


class Person:
    """Agrees to what is asked, after something has happened."""

    def __init__(self, path: Path, happens: bytes) -> None:
        self.path, self.happens = path, happens

    def confirm(self, facts: str, question: str) -> bool:
        self.path.write_bytes(self.happens + self.path.read_bytes())
        return True


@pytest.mark.parametrize(("name", "line"), [("alpha", 1), ("beta", 2), ("gamma", 3)])
def test_lines_are_counted_as_ssh_counts_them(known: Path, name: str, line: int) -> None:
    (key,) = known_keys([str(known)], name)
    assert key.line == line


def test_the_line_is_taken_out_and_no_sign_of_another_changes(known: Path) -> None:
    before = known.read_bytes().split(b"\n")
    remove_line(str(known), 2, read_line(str(known), 2))
    assert known.read_bytes().split(b"\n") == [before[0], *before[2:]]
    assert known.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("line", [0, 99])
def test_a_line_that_is_not_there(known: Path, line: int) -> None:
    with pytest.raises(ValueError, match=f"no line {line}"):
        read_line(str(known), line)


@pytest.mark.parametrize("happens", [b"", b"new ssh-ed25519 AAAA\n"], ids=["nothing", "a line is added"])
def test_the_key_that_the_person_was_asked_about_is_the_one_that_goes(known: Path, happens: bytes) -> None:
    before = known.read_bytes()
    stderr = f"Offending ED25519 key in {known}:2\n"
    if happens:
        with pytest.raises(login.TransportError, match="changed meanwhile"):
            login._remove_old_key(stderr, "it has changed", Person(known, happens))  # type: ignore[arg-type]
        assert known.read_bytes() == happens + before
    else:
        assert login._remove_old_key(stderr, "it has changed", Person(known, happens))  # type: ignore[arg-type]
        assert known_keys([str(known)], "beta") == []


def test_a_line_that_is_added_just_then_is_not_lost(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copymode = shutil.copymode

    def slow(source: str, target: str) -> None:
        copymode(source, target)
        with known.open("ab") as file:
            file.write(b"new ssh-ed25519 AAAA\n")

    monkeypatch.setattr(known_hosts.shutil, "copymode", slow)
    with pytest.raises(ValueError, match="changed just now"):
        remove_line(str(known), 2, read_line(str(known), 2))
    assert known.read_bytes().endswith(b"new ssh-ed25519 AAAA\n")
    assert len(known_keys([str(known)], "beta")) == 1
    assert os.listdir(known.parent) == ["known_hosts"]
