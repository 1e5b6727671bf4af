"""After a refused login the server is left alone for a while."""

from __future__ import annotations

import os
import stat
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from remote_kernel import files
from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import AccountRefused, AuthenticationFailed, TransportError
from remote_kernel.files import private_folder
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import notes

GPU1 = LaunchOptions(Endpoint.parse("gpu1"))
ERROR = AuthenticationFailed("gpu1 does not let you in", "load the key")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runtime = Path(f"/tmp/rkb-{os.getpid()}")  # a long path would not do for sockets, and is not used
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    yield runtime / "remote_kernel"  # type: ignore[misc]
    for path in sorted(runtime.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    runtime.rmdir()


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(notes.time, "time", lambda: 1000000.0 + seconds)


def test_refused_login_is_told_again_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 0)
    notes.raise_recent_refusal(GPU1)
    notes.write_refused_login(GPU1, ERROR)
    for seconds in (0, 30, 59.9):
        at(monkeypatch, seconds)
        with pytest.raises(AuthenticationFailed) as caught:
            notes.raise_recent_refusal(GPU1)
        assert (caught.value.message, caught.value.hint) == (ERROR.message, ERROR.hint)


def test_minute_later_it_is_forgotten(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    at(monkeypatch, 0)
    notes.write_refused_login(GPU1, ERROR)
    at(monkeypatch, 60)
    notes.raise_recent_refusal(GPU1)
    assert not list(own_folder.iterdir())


def test_refused_account_is_told_again_to_the_restarts_of_one_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = GPU1._replace(connection_file="/k/1.json"), GPU1._replace(connection_file="/k/2.json")
    at(monkeypatch, 0)
    notes.write_refused_account(first, AccountRefused("gpu1 does not let this account in: no job", "ask"))
    notes.raise_recent_refusal(other)
    at(monkeypatch, 29)
    with pytest.raises(AccountRefused, match="no job; ask"):
        notes.raise_recent_refusal(first)
    at(monkeypatch, 31)
    notes.raise_recent_refusal(first)
    at(monkeypatch, 0)
    notes.clear_refusals(first)
    notes.raise_recent_refusal(first)


def test_clock_that_was_set_back_locks_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 0)
    notes.write_refused_login(GPU1, ERROR)
    at(monkeypatch, -3600)
    notes.raise_recent_refusal(GPU1)


def test_other_ways_to_other_hosts_are_not_concerned() -> None:
    notes.write_refused_login(GPU1, ERROR)
    notes.raise_recent_refusal(LaunchOptions(Endpoint.parse("gpu2")))
    notes.raise_recent_refusal(LaunchOptions(Endpoint.parse("me@gpu1")))
    notes.raise_recent_refusal(LaunchOptions(Endpoint.parse("gpu1"), jumps=parse_jumps("door")))
    notes.raise_recent_refusal(LaunchOptions(Endpoint.parse("gpu1"), ssh_config="other"))
    with pytest.raises(AuthenticationFailed):
        notes.raise_recent_refusal(LaunchOptions(Endpoint.parse("gpu1"), python="another/python"))


def test_another_way_in_the_ssh_config_is_tried_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    options = GPU1._replace(ssh_config=str(config))
    for seconds, is_tried in ((-100, False), (100, True)):
        config.write_text("Host gpu1\n User me\n")
        os.utime(config, (time.time() + seconds,) * 2)
        notes.write_refused_login(options, ERROR)
        with nullcontext() if is_tried else pytest.raises(AuthenticationFailed):
            notes.raise_recent_refusal(options)


def test_other_transport_is_not_concerned() -> None:
    # Without the OpenSSH client there is no shared connection: a refusal there says nothing of those who have one.
    notes.write_refused_login(GPU1._replace(transport="paramiko"), ERROR)
    notes.raise_recent_refusal(GPU1._replace(transport="openssh"))
    with pytest.raises(AuthenticationFailed):
        notes.raise_recent_refusal(GPU1._replace(transport="paramiko"))


def test_clear_is_idempotent() -> None:
    notes.write_refused_login(GPU1, ERROR)
    for _ in range(2):
        notes.clear_refusals(GPU1)
        notes.raise_recent_refusal(GPU1)


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '["x", "y", "z"]', "[null, 1, 2]", "3"])
def test_note_that_cannot_be_read_locks_nobody_out(own_folder: Path, text: str) -> None:
    notes.write_refused_login(GPU1, ERROR)
    (note,) = own_folder.iterdir()
    note.write_text(text)
    notes.raise_recent_refusal(GPU1)


def test_note_is_private_and_names_nobody(own_folder: Path) -> None:
    notes.write_refused_login(GPU1, ERROR)
    (note,) = own_folder.iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_folder.stat().st_mode) == 0o700
    assert "gpu1" not in note.name


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have three folders in place of /tmp and the like; give the private ones in them, which are not there."""
    found = [tmp_path / name for name in "abc"]
    for place in found:
        place.mkdir()
    monkeypatch.setattr(files, "PLACES", tuple(map(str, found)))
    monkeypatch.setattr(files, "_LONGEST", 200)
    return [place / f"remote_kernel-ssh-{os.getuid()}" for place in found]


# Only root can give a folder away.
@pytest.mark.parametrize(
    "why", ["others can enter it", "it is a link", *([] if os.getuid() else ["it is somebody else's"])]
)
def test_folder_that_is_not_ours_alone_is_passed_over(
    why: str, places: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    if why == "it is a link":
        (tmp_path / "mine").mkdir(mode=0o700)
        places[0].symlink_to(tmp_path / "mine")
    else:
        places[0].mkdir()
        places[0].chmod(0o700 if why == "it is somebody else's" else 0o750)
    if why == "it is somebody else's":
        os.chown(places[0], 65534, 65534)
    places[1].write_text("a file")
    for _ in range(2):
        assert private_folder() == str(places[2])
    assert stat.S_IMODE(places[2].stat().st_mode) == 0o700
    assert private_folder("ssh") == str(places[2] / "ssh")
    assert stat.S_IMODE((places[2] / "ssh").stat().st_mode) == 0o700


def test_runtime_folder_comes_first(own_folder: Path, places: list[Path]) -> None:
    assert private_folder() == str(own_folder)
    own_folder.chmod(0o755)
    assert private_folder() == str(places[0])


def test_no_folder_at_all_is_an_error_that_names_them(own_folder: Path, places: list[Path]) -> None:
    for path in (own_folder, *places):
        path.symlink_to("/nowhere")
    with pytest.raises(TransportError, match="is not a folder of yours alone") as caught:
        private_folder()
    assert all(str(path) in caught.value.message for path in (own_folder, *places))
