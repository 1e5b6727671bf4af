"""Which kernels the watcher ends: a launcher's number may be another process's by now."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_kernel import process
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import AuthenticationFailed, ConnectTimeout
from remote_kernel.files import private_folder, write_private
from remote_kernel.launcher import orphans
from remote_kernel.launcher.orphans import OrphanNote, watch_orphans
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import notes
from tests.support.ends import watchers
from tests.support.kernels import wait_until

OPTIONS = LaunchOptions(Endpoint.parse("me@nowhere"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note when a watcher would be started."""
    found: list[bool] = []
    monkeypatch.setattr(orphans, "start_watcher", lambda: found.append(True))
    return found


@pytest.fixture
def note() -> Iterator[Path]:
    path = Path(private_folder(), "away-0123456789ab")
    yield path
    path.unlink(missing_ok=True)


def change(note: Path, **fields: object) -> None:
    write_private(str(note), json.dumps({**json.loads(note.read_text()), **fields}))


def test_a_launcher_that_lives_keeps_its_note(started: list[bool], note: Path) -> None:
    one = OrphanNote(OPTIONS, "0123456789ab")
    one.write()
    assert note.stat().st_mode & 0o777 == 0o600
    watch_orphans()
    assert not started
    one.remove()
    assert not note.exists()


def test_a_process_with_a_dead_launchers_number_is_not_taken_for_it(started: list[bool], note: Path) -> None:
    OrphanNote(OPTIONS, "0123456789ab").write()
    change(note, born="long ago")
    watch_orphans()
    assert started


def test_a_launcher_of_another_container_is_not_taken_for_dead(started: list[bool], note: Path) -> None:
    """They may share the folder, and each counts its processes from 1."""
    OrphanNote(OPTIONS, "0123456789ab").write()
    change(note, pids="pid:[1]", launcher=0)
    watch_orphans()
    assert not started


def test_a_launcher_lives_on_where_no_watcher_can_be_started(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no process to spare")

    monkeypatch.setattr(subprocess, "run", refuse)
    OrphanNote(OPTIONS, "0123456789ab").hand_over()
    watch_orphans()
    assert note.exists()


def test_a_note_of_an_earlier_boot_is_dropped(started: list[bool], note: Path) -> None:
    OrphanNote(OPTIONS, "0123456789ab").write()
    change(note, boot="another", launcher=0)
    watch_orphans()
    assert not started and not note.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"launcher": 0}'])
def test_a_note_that_cannot_be_used_is_dropped(started: list[bool], note: Path, text: str) -> None:
    note.write_text(text)
    watch_orphans()
    assert not started and not note.exists()


@pytest.mark.parametrize(
    "wrong", [{"launcher": None}, {"launcher": "x"}, {"linger": []}, {"boot": 1}, {"arguments": 5}, {"lost": "x"}]
)
def test_a_note_of_another_form_is_dropped(started: list[bool], note: Path, wrong: dict[str, object]) -> None:
    OrphanNote(OPTIONS, "0123456789ab").write()
    change(note, **wrong)
    watch_orphans()
    assert not started and not note.exists()


def test_a_note_of_an_earlier_version_is_understood(started: list[bool], note: Path) -> None:
    """Of a launcher that was killed: it says neither where the kernel is nor whether the connection was lost."""
    OrphanNote(OPTIONS, "0123456789ab").write()
    said = json.loads(note.read_text())
    for name in ("lost", "may_have_successor", "host", "restart"):
        del said[name]
    write_private(str(note), json.dumps({**said, "launcher": 0, "linger": 86400}))
    watch_orphans()
    assert started and note.exists()


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
    one = OrphanNote(OPTIONS, "0123456789ab")
    before = set(Path(private_folder()).iterdir())
    with full_disk():
        one.write()
        notes.write_refused_login(OPTIONS, AuthenticationFailed("permission denied", "log in"))
    notes.raise_recent_refusal(OPTIONS)
    assert set(Path(private_folder()).iterdir()) <= before


def test_one_watcher_waits_for_all_launchers_that_have_lost_their_connection() -> None:
    """And ends when their connections are back; their notes stay."""
    notes = [OrphanNote(OPTIONS, f"0123456789a{number}") for number in range(4)]
    for note in notes:
        note.write()
    for note in notes:
        note.connection_lost()
    time.sleep(1.5)  # all have started by then, and the first has looked again
    assert wait_until(lambda: len(watchers()) == 1)
    for note in notes:
        note.connection_back()
    assert wait_until(lambda: not watchers())
    left = [json.loads(Path(private_folder(), f"away-0123456789a{number}").read_text()) for number in range(4)]
    assert {found["launcher"] for found in left} == {os.getpid()}
    for note in notes:
        note.remove()


def answer(monkeypatch: pytest.MonkeyPatch, *answers: object) -> list[object]:
    """Let the agents that the watcher asks answer so, in this order; returns what has not been given yet."""
    left = list(answers)

    def ask(*_: object) -> tuple[object, str]:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found, ""

    monkeypatch.setattr(orphans, "ask", ask)
    monkeypatch.setattr(orphans, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(orphans, "_LOOK_SECONDS", 0.01)
    return left


def test_the_watcher_goes_on_until_the_agent_itself_has_heard(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of several login nodes may lead to another one than the kernel's; an agent may not answer just now."""
    left = answer(
        monkeypatch,
        BlockingIOError("no process to spare"),
        ConnectTimeout("no answer", "wait"),
        {"host": "login1", "kernels": [{"id": "0123456789ab", "unreadable": "it is on login2"}]},
        {"host": "login1", "kernels": []},
        {"host": "login2", "kernels": [{"pid": 1}]},
    )
    one = OrphanNote(OPTIONS, "0123456789ab")
    one.host = "login2"
    one.hand_over()
    assert orphans.main() == 0
    assert not left and not note.exists()


@pytest.mark.parametrize("restart", [False, True])
def test_a_restart_that_nobody_heard_ends_a_kept_kernel_too(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """An agent that keeps its kernel does not take a `bye` for its end."""
    asked: list[object] = []

    def ask(_: object, __: str, settings: dict[str, object], ___: float) -> tuple[object, str]:
        asked.append((settings["do"], settings["restart"]))
        return {"kernels": [{"pid": 1}]}, ""

    monkeypatch.setattr(orphans, "ask", ask)
    OrphanNote(OPTIONS, "0123456789ab").hand_over(restart=restart)
    assert orphans.main() == 0
    assert asked == [("bye", restart)] and not note.exists()


def test_the_watcher_ends_with_the_lease_of_the_last_kernel(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, *[ConnectTimeout("no answer", "wait")] * 10000)
    OrphanNote(OPTIONS._replace(linger_seconds=0.2), "0123456789ab").hand_over()
    assert orphans.main() == 0
    assert not note.exists()


def test_a_server_out_of_reach_is_tried_once_for_all_its_kernels(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = OPTIONS._replace(endpoint=Endpoint.parse("me@elsewhere"))
    left = answer(monkeypatch, ConnectTimeout("no answer", "wait"), {"kernels": []}, {"kernels": []}, {"kernels": []})
    monkeypatch.setattr(orphans, "_FIRST_WAIT_SECONDS", 0.5)
    for options, identity in ((OPTIONS, "0123456789ab"), (OPTIONS, "1"), (elsewhere, "2")):
        OrphanNote(options, identity).hand_over()
    asked: list[str] = []
    monkeypatch.setattr(notes, "raise_recent_refusal", lambda options: asked.append(str(options.endpoint)))
    assert orphans.main() == 0
    assert asked == ["me@nowhere", "me@elsewhere", "me@nowhere", "me@nowhere"] and not left


def test_the_watcher_leaves_a_kernel_to_the_launcher_that_takes_the_place_of_a_killed_one(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = answer(monkeypatch, {"kernels": []})
    monkeypatch.setenv("REMOTE_KERNEL_STATE_FILE", "/dev/null")  # as under a session of rkernel, which starts another
    OrphanNote(OPTIONS, "0123456789ab").write()
    change(note, born="long ago")
    later = threading.Timer(0.2, OrphanNote(OPTIONS, "0123456789ab").write)
    later.start()
    assert orphans.main() == 0
    later.join()
    assert left and note.exists()
    change(note, born="long ago")
    monkeypatch.setattr(orphans, "_SUCCESSOR_SECONDS", 0.2)
    assert orphans.main() == 0
    assert not left and not note.exists()


def test_a_note_of_another_version_keeps_no_kernel_from_its_end(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = answer(monkeypatch, {"kernels": []})
    for identity in ("0123456789ab", "1"):
        OrphanNote(OPTIONS, identity).hand_over()
    change(note, arguments=["--no-such-flag", *OPTIONS.to_arguments()])
    assert orphans.main() == 0
    assert not left and not note.exists()


def test_a_second_watcher_leaves_all_to_the_first(
    note: Path, started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    OrphanNote(OPTIONS, "0123456789ab").hand_over()
    with orphans._lock() as is_mine:
        assert is_mine
        assert orphans.main() == 0
    assert note.exists()


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

    assert not notes.is_from_outage(OPTIONS, ConnectionRefused("no"))
    notes.write_outage(OPTIONS)
    assert notes.is_from_outage(OPTIONS, ConnectionRefused("no"))
    assert not notes.is_from_outage(OPTIONS, AuthenticationFailed("no"))
    assert not notes.is_from_outage(OPTIONS._replace(endpoint=Endpoint.parse("me@elsewhere")), ConnectionRefused("no"))
    notes.clear_outage(OPTIONS)
    notes.clear_outage(OPTIONS)
    assert not notes.is_from_outage(OPTIONS, ConnectionRefused("no"))
