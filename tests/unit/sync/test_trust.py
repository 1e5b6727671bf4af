"""What a sync believes of its other end, and of what it finds in place: nothing that leads a file elsewhere."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_kernel import handshake
from remote_kernel.cli import sync as sync_command
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectionLost, ConnectTimeout, ProtocolMismatch, RemoteKernelError
from remote_kernel.options import LaunchOptions
from remote_kernel.sync import partial_file, remote_end, sftp, validate, wire
from remote_kernel.sync.contents import SmallFileWriter
from remote_kernel.sync.engine import retry, sync
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.partial_file import PartialFile, new_partial_path, partial_path, sweep
from remote_kernel.sync.plan import Disk
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.remote_end import RemoteEnd
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import Sender, Source, find_source
from remote_kernel.sync.sftp import SftpFetch
from remote_kernel.sync.sftp_client import Job, Sftp
from remote_kernel.sync.transfer import SyncPath, Transfer
from remote_kernel.sync.tree import Entry, Listing, list_folder
from remote_kernel.sync.wire import LENGTH, Broken, MessageWire, SyncFailure, Violation
from remote_kernel.transport import carrier

BEGIN: dict[str, Any] = {
    "name": "",
    "is_folder": True,
    "mode": 0o755,
}
NOTES: dict[str, Any] = {
    "left_out": 0,
    "gitignore": False,
}
OPTIONS = SyncOptions()


def row(path: str, kind: str = "f", mode: int = 0o644, size: int = 0, extra: str = "") -> list[Any]:
    return [path, kind, mode, size, 10**18, extra, 0]


@contextmanager
def wires() -> Iterator[tuple[MessageWire, MessageWire]]:
    """Give the two ends of a conversation."""
    (near_in, far_out), (far_in, near_out) = os.pipe(), os.pipe()
    try:
        yield MessageWire(near_in, near_out), MessageWire(far_in, far_out)
    finally:
        for fd in (near_in, far_out, far_in, near_out):
            os.close(fd)


def fetch(
    target: Path,
    rows: list[list[Any]],
    after: Callable[[MessageWire], None] = lambda far: None,
    options: SyncOptions = OPTIONS,
    asked: bytes | None = None,
    **begin: Any,
) -> dict[str, Any]:
    """Receive from an end that follows this script, whatever it is asked for."""
    with wires() as (near, far):
        far.write_object(wire.BEGIN, {**BEGIN, **begin})
        far.write_object(wire.ENTRIES, rows)
        far.write_object(wire.ENTRIED, NOTES)
        after(far)
        far.write(wire.SENT)
        far.flush()
        receiver = Receiver(near, bytes(target), options, lambda *_: None, asked)
        receiver.ask(receiver.consider())
        return receiver.receive()


def copy(
    source: Path, target: Path, options: SyncOptions = OPTIONS, between: Callable[[], object] = lambda: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copy what is in a folder, from an honest end; give the plan and the summary."""
    with wires() as (near, far):
        found = find_source(bytes(source) + b"/", options)
        sender = Sender(far, found, lambda *_: None, options)

        def send() -> None:
            sender.offer()
            sender.deliver()

        thread = threading.Thread(target=send)
        thread.start()
        receiver = Receiver(near, bytes(target), options, lambda *_: None)
        described = receiver.consider()
        receiver.ask(described)
        between()
        summary = receiver.receive()
        thread.join(20)
        return described, summary


def send_file(number: int, data: bytes) -> Callable[[MessageWire], None]:
    def after(far: MessageWire) -> None:
        far.write(wire.FILE, number)
        far.write(wire.DATA, 0, data)
        far.write(wire.DONE)

    return after


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_link_of_one_round_leads_no_file_of_the_next_elsewhere(there: Path, outside: Path) -> None:
    assert fetch(there, [row("a", "l", extra=str(outside))])["links"] == 1
    rows = [row("a", "d", 0o755), row("a/authorized_keys", size=6)]
    for after in (send_file(1, b"ssh-ed"), lambda far: far.write(wire.SMALL, 1, b"ssh-ed")):
        with pytest.raises(Violation):
            fetch(there, rows, after)
    assert not list(outside.iterdir())


def test_file_comes_once_and_only_as_it_was_asked_for(there: Path) -> None:
    def twice(far: MessageWire) -> None:
        send_file(0, b"1")(far)
        send_file(0, b"2")(far)

    with pytest.raises(Violation):
        fetch(there, [row("a", size=1)], twice)
    assert (there / "a").read_bytes() == b"1"
    with pytest.raises(Violation):
        fetch(there, [row("b", size=1)], lambda far: far.write(wire.SMALL, 0, b"more"))
    with pytest.raises(Violation):
        fetch(there, [row("c", size=1)], send_file(1 << 40, b"1"))


def test_nothing_goes_through_a_link_that_could_not_be_cleared(
    here: Path, there: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a/b").mkdir(parents=True)
    (here / "a/file").write_text("new")
    (here / "a/b").chmod(0o777)
    (outside / "b").mkdir(mode=0o700)
    (outside / "file").write_text("old")
    (there / "a").symlink_to(outside)

    def refuse(self: Receiver, path: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Receiver, "_clear", refuse)
    _, summary = copy(here, there, SyncOptions(delete=True))
    assert summary["files"] == 0
    assert ["a/file", "the destination is not a folder"] in summary["failed"]
    assert (outside / "file").read_text() == "old"
    assert (outside / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("asked", "name", "is_folder", "entries"),
    [
        (b"results", ".ssh", True, [row("authorized_keys", size=1)]),
        (b"results", "", True, [row("authorized_keys", size=1)]),
        (b"results", ".bashrc", False, [row(".bashrc", size=1)]),
        (b"results", "results", False, [row(".bashrc", size=1)]),
        (b"results/", "results", True, []),
        (b"results/.", "", False, [row(".bashrc", size=1)]),
        (b"", "x", True, []),
    ],
)
def test_other_end_does_not_choose_where_a_fetch_goes(
    there: Path, asked: bytes, name: str, is_folder: bool, entries: list[list[Any]]
) -> None:
    (there / "thesis").write_text("x")
    options = SyncOptions(delete=True)
    with pytest.raises(Violation):
        fetch(there, entries, send_file(0, b"x"), options, asked, name=name, is_folder=is_folder)
    assert [path.name for path in there.iterdir()] == ["thesis"]


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_sftp_brings_nothing_through_a_link(
    here: Path, there: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (here / "a").mkdir()
    for name in ("top", "a/file"):
        (here / name).write_bytes(bytes(size))
    (there / "a").symlink_to(outside)

    def read_file(_: Sftp, path: bytes, start: int, end: int, take: Callable[[int, bytes], None]) -> Job:
        take(start, b"x" * (end - start))
        yield from ()

    class Server(Sftp):
        def __init__(self) -> None:
            self.handles = 4

        def run(self, jobs: Iterable[Job], at_once: int) -> None:
            for job in jobs:
                assert list(job) == []

    monkeypatch.setattr(sftp, "read_file", read_file)
    monkeypatch.setattr(Receiver, "_clear", lambda *_: None)
    source = find_source(bytes(here) + b"/", OPTIONS).listed()
    receiver = SftpFetch(Server(), source, bytes(there), SyncOptions(delete=True), lambda *_: None)
    receiver.ask(receiver.consider())
    summary = receiver.receive()
    assert summary["files"] == 1
    assert ["a/file", "the destination is not a folder"] in summary["failed"]
    assert (there / "top").read_bytes() == b"x" * size
    assert not list(outside.iterdir())


def test_time_of_another_age_is_no_reason_to_refuse(there: Path) -> None:
    summary = fetch(there, [["a", "f", 0o644, 0, 10**27, "", 0]], send_file(0, b""))
    assert summary["files"] + summary["failures"] == 1  # as the file system likes


def test_link_that_goes_while_it_is_compared_is_made_anew(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (here, there):
        (folder / "link").symlink_to("to")
    lstat = os.lstat

    def and_go(path: bytes) -> os.stat_result:
        found = lstat(path)
        if path == bytes(there / "link"):
            os.unlink(path)
        return found

    monkeypatch.setattr(os, "lstat", and_go)
    assert copy(here, there)[1]["links"] == 1
    assert os.readlink(there / "link") == "to"


def test_folder_that_was_removed_under_our_feet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for path in (b".", b"x"):
        with pytest.raises(SyncFailure, match="is gone"):
            find_source(path, OPTIONS)
    with wires() as (near, far):
        far.write_object(wire.BEGIN, BEGIN)
        far.flush()
        receiver = Receiver(near, b".", OPTIONS, lambda *_: None)
        with pytest.raises(SyncFailure, match="is gone"):
            receiver.consider()


def test_home_is_fetched_only_into_a_folder_that_is_named_here(there: Path) -> None:
    with pytest.raises(SyncFailure, match="what a remote home is called"):
        fetch(there, [], asked=b"~", name="me")
    assert fetch(there, [row("a")], send_file(0, b""), asked=b"~/")["files"] == 1


def test_own_exclude_holds_whatever_the_other_end_says(there: Path) -> None:
    (there / "keep.ckpt").write_text("mine")
    (there / "old").write_text("old")
    options = SyncOptions((b"*.ckpt",), no_ignore=True, delete=True)
    assert fetch(there, [], options=options, asked=b".")["deleted"] == 1
    assert [path.name for path in there.iterdir()] == ["keep.ckpt"]
    with pytest.raises(Violation):
        fetch(there, [row("keep.ckpt", size=1)], send_file(0, b"x"), options, asked=b".")
    assert (there / "keep.ckpt").read_text() == "mine"


def test_mode_is_changed_of_no_file_that_a_link_leads_to(there: Path, outside: Path) -> None:
    secret = outside / "id_rsa"
    secret.write_text("secret")
    secret.chmod(0o600)

    def same(far: MessageWire) -> None:
        far.write(wire.FILE, 0)
        far.write(wire.SAME, 0, LENGTH.pack(6))
        far.write(wire.DONE)

    with pytest.raises(Violation):
        fetch(there, [row("k", "l", 0o777, 6, str(secret))], same)
    summary = fetch(there, [row("k", "f", 0o777, 6)], same)  # a file that is asked for, where the link is
    assert (summary["files"], summary["failures"]) == (0, 1)
    assert secret.stat().st_mode & 0o777 == 0o600


def test_file_that_changed_while_it_was_compared_is_not_called_copied(here: Path, there: Path) -> None:
    for folder in (here, there):
        (folder / "big").write_bytes(b"a" * (4 << 20))
    os.utime(there / "big", (1, 1))

    def change() -> None:
        with (there / "big").open("r+b") as file:
            file.write(b"CHANGED")

    _, summary = copy(here, there, between=change)
    assert (summary["files"], summary["failures"]) == (0, 1)
    assert copy(here, there)[1]["files"] == 1
    assert (there / "big").read_bytes() == (here / "big").read_bytes()


def test_hole_of_a_small_file_is_not_filled_by_what_an_unfinished_one_held(here: Path, there: Path) -> None:
    with (here / "ck").open("wb") as file:
        file.write(b"H" * 4096)
        file.seek((600 << 10) - 4096)
        file.write(b"T" * 4096)
    Path(os.fsdecode(partial_path(bytes(there / "ck")))).write_bytes(b"\xff" * (3 << 19))
    copy(here, there)
    assert (there / "ck").read_bytes() == (here / "ck").read_bytes()


def test_delete_is_refused_for_a_home_and_what_it_is_in(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "homes/me"
    (home / "work").mkdir(parents=True)
    (home / "precious").touch()
    monkeypatch.setenv("HOME", str(home))
    for root in (home, home.parent, Path("/")):
        for options in (SyncOptions(delete=True), SyncOptions(delete=True, dry_run=True)):
            with pytest.raises(SyncFailure, match="--delete"):
                fetch(root, [], options=options)
    assert (home / "precious").exists()
    assert fetch(home / "work", [row("a")], send_file(0, b""), SyncOptions(delete=True))["files"] == 1


def test_content_goes_into_no_file_that_may_be_somebody_elses(
    tmp_path: Path, here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / ".env").write_text("TOKEN=secret")
    known = Path(os.fsdecode(partial_path(bytes(there / ".env"))))
    trap = tmp_path / "trap"
    trap.touch()
    known.hardlink_to(trap)
    assert copy(here, there)[1]["files"] == 1
    assert trap.read_text() == ""
    assert known.samefile(trap)  # nor is it swept away
    known.unlink()
    known.touch()
    mine = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: mine + 1)
        first = PartialFile(bytes(there / ".env"))
    assert first.path != bytes(known)
    first.remove()
    known.unlink()
    os.mkfifo(known)
    (there / ".env").unlink()
    assert copy(here, there)[1]["files"] == 1
    assert (there / ".env").read_text() == "TOKEN=secret"


def test_write_protected_destination_stays_so_and_a_folder_of_the_source_does_not(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GuardedPart(PartialFile):
        """Heeds the folder's mode, also where the tests are run by root."""

        def __init__(self, target: bytes, folder: int | None = None, version: bytes = b"") -> None:
            assert folder is not None
            if not os.fstat(folder).st_mode & 0o200:
                raise PermissionError(errno.EACCES, "Permission denied")
            super().__init__(target, folder, version)

    monkeypatch.setattr(partial_file, "PartialFile", GuardedPart)
    monkeypatch.setattr(SmallFileWriter, "write", lambda *_: False)
    (here / "sub").mkdir()
    for name in ("top", "sub/below"):
        (here / name).write_text("1")
    (there / "sub").mkdir(mode=0o555)
    there.chmod(0o555)
    (here / "sub").chmod(0o555)
    _, summary = copy(here, there)
    assert summary["failed"] == [["top", "Permission denied"]]
    assert there.stat().st_mode & 0o777 == 0o555
    assert (there / "sub/below").read_text() == "1"
    assert (there / "sub").stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOTSUP])
def test_file_system_without_modes_takes_what_is_copied_all_the_same(
    refusal: int, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "folder").mkdir()
    for name, size in (("folder/small", 10), ("large", 2 << 20)):
        (here / name).write_bytes(os.urandom(size))
        (here / name).chmod(0o666)
    os.utime(here / "large", (1, 1))
    (here / "folder").chmod(0o777)

    def refuse(path: object, mode: int, *, dir_fd: int | None = None) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "chmod", refuse)
    new = tmp_path / "new"
    assert copy(here, new)[1]["failed"] == []
    for name in ("folder/small", "large"):
        assert (new / name).read_bytes() == (here / name).read_bytes()
        assert (new / name).stat().st_mtime_ns == (here / name).stat().st_mtime_ns
    _, summary = copy(here, new)
    assert [summary[key] for key in ("files", "touched", "unchanged", "failed")] == [0, 0, 2, []]
    os.utime(new / "large", (2, 2))
    assert copy(here, new, OPTIONS._replace(checksum=True))[1]["touched"] == 1
    assert (new / "large").stat().st_mtime == 1


def test_mode_of_somebody_elses_file_that_cannot_be_set_is_told(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (here, there):
        (folder / "file").touch()
        os.utime(folder / "file", (1, 1))
    (here / "file").chmod(0o666)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    assert copy(here, there)[1]["failed"] == [["file", "Operation not permitted"]]


def test_delete_looks_at_nothing_behind_a_link_in_a_folders_place(here: Path, there: Path, outside: Path) -> None:
    (here / "a/b").mkdir(parents=True)
    (here / "a/b/f").write_text("1")
    (outside / "b").mkdir()
    (outside / "b/precious").write_text("1")
    (there / "a").symlink_to(outside)
    described, _ = copy(here, there, SyncOptions(delete=True, dry_run=True))
    assert not [path for verb, path in described["actions"] if verb == "delete"]
    _, summary = copy(here, there, SyncOptions(delete=True))
    assert summary["failed"] == []
    assert (there / "a/b/f").read_text() == "1"
    assert not (there / "a").is_symlink()
    assert (outside / "b/precious").exists()


def test_delete_spares_what_is_an_entry_under_another_spelling(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where README is found under Readme; here the file system is told to find it."""
    for name in ("Readme", "Data"):
        (here / name).touch()
    for name in ("README", "data", "other"):
        (there / name).touch()
    look = Disk.look

    def find(disk: Disk, path: bytes) -> object:
        names = {os.fsencode(item).lower(): os.fsencode(item) for item in os.listdir(there)}
        return look(disk, names.get(path.lower(), path))

    options = SyncOptions(delete=True, dry_run=True)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "look", find)
        described, _ = copy(here, there, options)
    assert [path for verb, path in described["actions"] if verb == "delete"] == ["other"]
    described, _ = copy(here, there, options)  # where they are two names, the old ones go
    assert [path for verb, path in described["actions"] if verb == "delete"] == ["README", "data", "other"]


def test_two_transfers_keep_apart_where_there_are_no_locks(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    first, second = PartialFile(bytes(there / "a")), PartialFile(bytes(there / "a"))
    assert first.path != second.path
    sweep(bytes(there))
    assert len(list(there.iterdir())) == 2
    for one in (first, second):
        one.write(b"x", 0)
        one.finish(1, 0o600, 0)
        one.close()
    assert [path.name for path in there.iterdir()] == ["a"]
    data = os.urandom(3 << 20)
    (here / "big").write_bytes(data)
    Path(os.fsdecode(partial_path(bytes(there / "big")))).write_bytes(data[: 2 << 20])  # nobody knows who writes to it
    assert copy(here, there)[1]["files"] == 1
    assert (there / "big").read_bytes() == data


def test_link_that_never_got_its_name_is_swept_away_once_nobody_can_be_at_it(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Path(os.fsdecode(new_partial_path(bytes(there / "link"))))
    left.symlink_to("anywhere")
    sweep(bytes(there))
    assert left.is_symlink()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    sweep(bytes(there))
    assert not left.is_symlink()


def test_folder_that_becomes_a_link_while_it_is_listed_is_listed_as_a_link(
    here: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a").mkdir()
    (outside / "file").touch()
    lstat = os.lstat

    def swap(path: bytes) -> os.stat_result:
        if path == bytes(here / "a") and not (here / "a").is_symlink():
            (here / "a").rmdir()
            (here / "a").symlink_to(outside)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", swap)
    entries = list_folder(bytes(here), Rules([], False), with_digests=False).entries
    assert [(entry.path, entry.kind) for entry in entries] == [(b"a", "l")]


def test_what_a_file_system_says_nothing_about_is_told_and_the_rest_is_listed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (here / name).touch()
    scandir, lstat = os.scandir, os.lstat

    class Refusing:
        def __init__(self, item: os.DirEntry[bytes]) -> None:
            self.name, self.path = item.name, item.path

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return stat.S_ISDIR(os.lstat(self.path).st_mode)

    @contextmanager
    def unknowing(path: bytes) -> Iterator[Iterator[Refusing]]:
        with scandir(path) as items:
            yield map(Refusing, items)

    def refusing(path: bytes) -> os.stat_result:
        if path == bytes(here / "a"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(os, "scandir", unknowing)
    monkeypatch.setattr(os, "lstat", refusing)
    found = list_folder(bytes(here), Rules([], False), with_digests=False)
    assert [entry.path for entry in found.entries] == [b"b"]
    assert found.left == [(b"a", "Permission denied")]


@pytest.mark.parametrize(
    "messages",
    [
        [(wire.BEGIN, [])],
        [(wire.BEGIN, {"name": "x"})],
        [(wire.BEGIN, {**BEGIN, "name": 1})],
        [(wire.BEGIN, {**BEGIN, "mode": 0o4755})],
        [(wire.BEGIN, {**BEGIN, "name": "a/b"})],
        [(wire.PLAN, {})],
        [(wire.BEGIN, BEGIN), (wire.SENT, {})],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, 1)],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [1])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["a"]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["a", "f", 0o644, float("inf"), 0, "", 0]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["a", "f", 0o644, 1 << 70, 0, "", 0]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["a", "f", 0o644, 0, -(10**40), "", 0]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["a", "l", 0o777, 0, 0, "x\0y", 0]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [["\ud800", "f", 0o644, 0, 0, "", 0]])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIES, [[["a"], {}, "x", None, 0, "", 0]])],
        [(wire.BEGIN, BEGIN), (wire.LEFT, [["a"]])],
        [(wire.BEGIN, BEGIN), (wire.LEFT, [["a", 1]])],
        [(wire.BEGIN, BEGIN), (wire.LEFT, 1)],
        [(wire.BEGIN, BEGIN), (wire.ENTRIED, {**NOTES, "left_out": "x"})],
        [(wire.BEGIN, BEGIN), (wire.ENTRIED, {**NOTES, "left_out": -1})],
        [(wire.BEGIN, BEGIN), (wire.PASSED, [1])],
        [(wire.BEGIN, BEGIN), (wire.ENTRIED, [])],
        [(wire.ABORT, {"name": 1})],
    ],
)
def test_offer_that_makes_no_sense_is_refused_as_such(there: Path, messages: list[tuple[bytes, Any]]) -> None:
    with wires() as (near, far):
        for kind, value in [*messages, (wire.ENTRIED, NOTES)]:
            far.write_object(kind, value)
        far.flush()
        receiver = Receiver(near, bytes(there), OPTIONS, lambda *_: None)
        with pytest.raises(Violation):
            receiver.consider()


@pytest.mark.parametrize(("kind", "body"), [(wire.SAME, b"1"), (wire.SAME, LENGTH.pack(1 << 62)), (wire.WANT, b"")])
def test_content_that_makes_no_sense_is_refused_as_such(there: Path, kind: bytes, body: bytes) -> None:
    def after(far: MessageWire) -> None:
        far.write(wire.FILE, 0)
        far.write(kind, 0, body)

    with pytest.raises(Violation):
        fetch(there, [row("a", size=1)], after)


def test_plan_and_summary_of_a_receiving_end_are_of_the_right_types() -> None:
    described = {"root": "/x", "files": 1, "bytes": 2}
    counts: dict[str, Any] = dict.fromkeys(validate.COUNTS, 0)
    failed = [["a", "why"]]
    assert validate.check_plan(described) == described
    assert validate.check_actions([["copy", "a"], ["\x1b[2J", "a"]]) == [["copy", "a"]]
    assert validate.check_summary({**counts, "more": 1}, failed) == {**counts, "failed": failed}
    for key, value in (("bytes", "2"), ("files", -1), ("root", 1)):
        with pytest.raises(Violation):
            validate.check_plan({**described, key: value})
    for key, value in (("files", "\x1b]52;c;x\x07"), ("bytes", 1.5)):
        with pytest.raises(Violation):
            validate.check_summary({**counts, key: value}, [])
    for rows in ([["copy"]], [["copy", 1]], [1]):
        with pytest.raises(Violation):
            validate.check_summary(counts, rows)
        with pytest.raises(Violation):
            validate.check_actions(rows)
    for whatever in (None, [], 1, "x", {}):
        with pytest.raises(Violation):
            validate.check_plan(whatever)
        with pytest.raises(Violation):
            validate.check_summary(whatever, [])


@pytest.mark.parametrize(
    ("kind", "row_of"),
    [
        (wire.ENTRIES, lambda number: row(f"{number:05}")),
        (wire.LEFT, lambda number: ["a", "why"]),
        (wire.PASSED, lambda number: "a"),
        (wire.ACTIONS, lambda number: ["copy", "a"]),
    ],
)
def test_list_that_fills_the_memory_here_is_refused(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, row_of: Callable[[int], Any]
) -> None:
    monkeypatch.setattr(wire, "MOST_LISTED", 4 << 20)
    with (tmp_path / "said").open("w+b", buffering=0) as said, open(os.devnull, "r+b", buffering=0) as nothing:
        far = MessageWire(nothing.fileno(), said.fileno())
        if kind != wire.ACTIONS:
            far.write_object(wire.BEGIN, BEGIN)
        far.write_rows(kind, list(map(row_of, range(8_000))))
        far.flush()
        said.seek(0)
        near = MessageWire(said.fileno(), nothing.fileno())
        receiver = Receiver(near, bytes(there), OPTIONS, lambda *_: None)
        sender = Sender(near, find_source(bytes(there), OPTIONS), lambda *_: None, SyncOptions(verbose=True))
        read = sender.hear if kind == wire.ACTIONS else receiver.consider
        tracemalloc.start()
        try:
            with pytest.raises(Violation, match="half of the memory"):
                read()
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("rows", [[], [["a", 1]] * 2500, [["x" * 50_000]] * 60, [["x" * 500_000]] * 3])
def test_long_list_travels_in_parts(rows: list[list[Any]], tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+b", buffering=0) as said:
        far = MessageWire(said.fileno(), said.fileno())
        far.write_rows(wire.ENTRIES, rows)
        far.write(wire.SENT)
        far.flush()
        said.seek(0)
        found: list[Any] = []
        while (message := far.read())[0] == wire.ENTRIES:
            assert len(zlib.decompress(message[2])) <= 1 << 20
            found += far.rows(message[2])
    assert found == rows


def test_every_path_of_many_is_told(here: Path, there: Path) -> None:
    for number in range(1100):
        (here / f"{number:04}").touch()
    described, _ = copy(here, there, OPTIONS._replace(dry_run=True))
    assert described["actions"] == [["copy", f"{number:04}"] for number in range(1100)]


def test_reasons_cannot_steer_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    sync_command._note_failed((("y\x1b[2J", "bad\x1b]52;c;ZWNobw==\x07"), ("", "all\x1b[2J")))
    said = capfd.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "bad" in said


SPEAKS = """
import os, sys
from remote_kernel.sync import wire
far = wire.MessageWire(0, 1)
far.write_object(wire.BEGIN, {"name": "x", "is_folder": True, "mode": 493})
far.write_object(wire.ENTRIES, [["../evil", "f", 0o644, 1, 1, "", 0]])
far.write_object(wire.ENTRIED, {"left_out": 0, "gitignore": False})
far.flush()
sys.stdin.buffer.read()
"""
NEVER_ENDS = "import time\nwhile True: time.sleep(60)"


class Silent:
    """A progress that nobody looks at."""

    def planned(self, size: int, files: int) -> None: ...

    def moved(self, size: int, files: int) -> None: ...

    def fell_back(self, error: RemoteKernelError) -> None: ...


def play(monkeypatch: pytest.MonkeyPatch, program: str) -> LaunchOptions:
    """Let a program of this machine be what a connection leads to, already greeted."""
    monkeypatch.setattr(remote_end.choice, "carrier_argv", lambda *_, **__: [sys.executable, "-c", program])
    monkeypatch.setattr(RemoteEnd, "greet", lambda self: None)
    monkeypatch.setattr(handshake, "uses_openssh", lambda *_: False)
    return LaunchOptions(Endpoint.parse("nowhere"))


# Runs the far end, and lets no more of what it is told through than its program and a little, until a file is there.
STALLS = """
import os, subprocess, sys, time
far = subprocess.Popen(["/bin/sh", "-c", sys.argv[1]], stdin=subprocess.PIPE, bufsize=0)
passed, deadline = 0, time.monotonic() + 60
while data := os.read(0, 4096):
    far.stdin.write(data)
    passed += len(data)
    while passed > 200_000 and not os.path.exists(sys.argv[2]) and time.monotonic() < deadline:
        time.sleep(0.02)
far.stdin.close()
far.wait(20)
"""


def test_other_end_that_takes_long_to_compare_is_not_taken_for_one_that_does_not_answer(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def argv(_: LaunchOptions, command: str, **__: object) -> list[str]:
        return [sys.executable, "-c", STALLS, command, str(tmp_path / "greeted")]

    greet = RemoteEnd.greet
    launch = play(monkeypatch, "")
    monkeypatch.setattr(remote_end.choice, "carrier_argv", argv)
    monkeypatch.setattr(RemoteEnd, "greet", lambda *_: (greet(*_), (tmp_path / "greeted").touch()))
    monkeypatch.setattr(remote_end, "GREETING_SECONDS", 20.0)
    monkeypatch.setattr(carrier, "_PIPE_BYTES", 1 << 16)
    monkeypatch.setattr("remote_kernel.sync.sender._AHEAD", 1 << 16)
    listing = Listing()
    listing.entries = [
        Entry(os.urandom(8).hex().encode(), "f", 0o644, 1, 1, os.urandom(16), False) for _ in range(15_000)
    ]
    source = Source(bytes(tmp_path), b"", True, listing, Rules([], False))
    monkeypatch.setattr("remote_kernel.sync.local_ends.find_source", lambda *_: source)
    asked = SyncOptions(dry_run=True, checksum=True)
    transfer = Transfer(launch, SyncPath(b"x/", False), SyncPath(bytes(there), True), asked, Silent())
    outcome = sync(transfer)
    assert outcome.files == 15_000


def test_other_end_that_breaks_the_protocol_is_refused_at_once_and_for_good(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = play(monkeypatch, SPEAKS)
    transfer = Transfer(launch, SyncPath(b"x", True), SyncPath(bytes(there), False), OPTIONS, Silent())
    begun = time.monotonic()
    with pytest.raises(ProtocolMismatch, match="was refused"):
        retry(lambda: sync(transfer), print)
    assert time.monotonic() - begun < 30


def test_last_words_are_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_end, "_END_SECONDS", 0.3)
    with RemoteEnd(play(monkeypatch, NEVER_ENDS), "send", {}) as far:
        assert isinstance(far.why(Broken()), ConnectionLost)


# Is about to read the program, and then reads nothing.
STOPS = """
import re, sys, time
print("\\n" + re.search(r"remote_kernel-[0-9a-f]{16}", sys.argv[1])[0], "reads", flush=True)
time.sleep(60)
"""


def test_other_end_that_stops_reading_before_it_answers_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greet = RemoteEnd.greet
    launch = play(monkeypatch, "")
    monkeypatch.setattr(
        remote_end.choice, "carrier_argv", lambda _, command, **__: [sys.executable, "-c", STOPS, command]
    )
    monkeypatch.setattr(remote_end, "GREETING_SECONDS", 1.0)
    with RemoteEnd(launch, "receive", {}) as far:

        def begin() -> None:
            far.wire.write(wire.ENTRIES, 0, bytes(8 << 20))
            far.wire.flush()

        with pytest.raises(ConnectTimeout):
            greet(far, begin)
