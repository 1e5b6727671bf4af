"""Who is taken for dead: a launcher's number may be another process's by now."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_kernel import probe, process, undertaker
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import AuthenticationFailed
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import breaker, outage
from remote_kernel.transport.private import private_folder
from remote_kernel.undertaker import Undertaker, take_over_the_dead
from tests.support.ends import undertakers
from tests.support.kernels import wait_until

OPTIONS = LaunchOptions(Endpoint.parse("me@nowhere"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note for which kernels an undertaker would be started."""
    found: list[str] = []
    monkeypatch.setattr(undertaker, "_start", lambda identity, _: found.append(identity))
    return found


@pytest.fixture
def note() -> Path:
    return Path(private_folder(), "away-0123456789ab")


def test_a_launcher_that_lives_keeps_its_note(started: list[str], note: Path) -> None:
    one = Undertaker(OPTIONS, "0123456789ab")
    one.remember()
    assert note.stat().st_mode & 0o777 == 0o600
    take_over_the_dead()
    assert not started
    one.forget()
    assert not note.exists()


def test_a_process_with_a_dead_launchers_number_is_not_taken_for_it(started: list[str], note: Path) -> None:
    Undertaker(OPTIONS, "0123456789ab").remember()
    note.write_text(json.dumps({**json.loads(note.read_text()), "born": "long ago"}))
    take_over_the_dead()
    assert started == ["0123456789ab"]
    note.unlink()


def test_a_launcher_of_another_container_is_not_taken_for_dead(started: list[str], note: Path) -> None:
    """They may share the folder, and each counts its processes from 1."""
    Undertaker(OPTIONS, "0123456789ab").remember()
    note.write_text(json.dumps({**json.loads(note.read_text()), "pids": "pid:[1]", "launcher": 0}))
    take_over_the_dead()
    assert not started
    note.unlink()


def test_a_launcher_lives_on_where_no_undertaker_can_be_started(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError("no process to spare")

    monkeypatch.setattr(undertaker, "_start", refuse)
    Undertaker(OPTIONS, "0123456789ab")._write(0, "")
    take_over_the_dead()
    assert note.exists()
    note.unlink()


def test_a_note_of_an_earlier_boot_is_dropped(started: list[str], note: Path) -> None:
    Undertaker(OPTIONS, "0123456789ab").remember()
    note.write_text(json.dumps({**json.loads(note.read_text()), "boot": "another", "launcher": 0}))
    take_over_the_dead()
    assert not started and not note.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"launcher": 0}'])
def test_a_note_that_cannot_be_used_is_dropped(started: list[str], note: Path, text: str) -> None:
    note.write_text(text)
    take_over_the_dead()
    assert not started and not note.exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_notes_that_find_no_room_stop_no_kernel() -> None:
    one = Undertaker(OPTIONS, "0123456789ab")
    before = set(Path(private_folder()).iterdir())
    with full_disk():
        one.remember()
        breaker.trip(OPTIONS, AuthenticationFailed("permission denied", "log in"))
    breaker.check(OPTIONS)
    assert set(Path(private_folder()).iterdir()) <= before


def test_an_undertaker_that_is_not_needed_ends_with_the_note() -> None:
    one = Undertaker(OPTIONS, "0123456789ab")
    one.remember()
    one.hire()
    one.forget()  # the leak check sees to the rest


def test_an_undertaker_that_was_not_needed_leaves_the_note_for_the_next_loss_alone(note: Path) -> None:
    """It starts slowly on a busy machine, and the connection may be lost again by then."""
    one = Undertaker(OPTIONS, "0123456789ab")
    one.remember()
    one.hire()
    one.dismiss()
    assert wait_until(lambda: not undertakers())
    assert json.loads(note.read_text())["launcher"] == os.getpid()
    one.forget()


def test_an_undertaker_leaves_a_launcher_that_lives_alone(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undertaker, "_DEATH_SECONDS", 0.1)
    monkeypatch.setattr(sys, "argv", ["undertaker", "0123456789ab"])
    one = Undertaker(OPTIONS, "0123456789ab")
    one.remember()
    with open(os.devnull) as nothing:
        assert undertaker.serve(nothing.fileno()) == 0
    assert json.loads(note.read_text())["launcher"] == os.getpid()
    one.forget()


def test_an_undertaker_goes_on_until_the_agent_itself_has_heard(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of several login nodes may lead to another one than the kernel's; an agent may not answer just now."""
    answers = [
        BlockingIOError("no process to spare"),
        {"kernels": [{"id": "0123456789ab", "unreadable": "it is on login2"}]},
        {"kernels": [{"pid": 1}]},
    ]

    def ask(*_: object) -> tuple[dict[str, object], str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer, ""

    monkeypatch.setattr(probe, "ask", ask)
    monkeypatch.setattr(undertaker, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["undertaker", "0123456789ab"])
    Undertaker(OPTIONS, "0123456789ab")._write(0, "")
    with open(os.devnull) as nothing:
        assert undertaker.serve(nothing.fileno()) == 0
    assert not answers and not note.exists()


def test_a_process_is_told_from_its_successor() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = process.birth(child.pid)
    assert born and process.is_alive(child.pid) and process.is_alive(child.pid, born)
    assert not process.is_alive(child.pid, born + "0")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive(child.pid), "a zombie does not live"
    child.communicate()
    assert process.birth(child.pid) == ""


def test_an_outage_explains_only_what_may_pass() -> None:
    from remote_kernel.errors import AuthenticationFailed, ConnectionRefused

    assert not outage.explains(OPTIONS, ConnectionRefused("no"))
    outage.begin(OPTIONS)
    assert outage.explains(OPTIONS, ConnectionRefused("no"))
    assert not outage.explains(OPTIONS, AuthenticationFailed("no"))
    assert not outage.explains(OPTIONS._replace(endpoint=Endpoint.parse("me@elsewhere")), ConnectionRefused("no"))
    outage.end(OPTIONS)
    outage.end(OPTIONS)
    assert not outage.explains(OPTIONS, ConnectionRefused("no"))
