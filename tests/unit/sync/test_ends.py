"""The two ends of a sync without a network between: what is saved, refused and kept apart."""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from remote_kernel.cli import progress
from remote_kernel.errors import ConnectionLost, ConnectTimeout, RemoteKernelError
from remote_kernel.sync import blocks, sender
from remote_kernel.sync.contents import Contents, SmallFileWriter
from remote_kernel.sync.engine import retry
from remote_kernel.sync.folders import Folders
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.partial_file import PartialFile, partial_path, sweep
from remote_kernel.sync.plan import Disk, below, is_same_time
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import Sender, find_source, pack
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry
from remote_kernel.sync.validate import OfferedPaths, SourceOffer, unpack
from remote_kernel.sync.wire import BEGIN, DATA, ENTRIED, ENTRIES, SMALL, Broken, MessageWire, SyncFailure
from remote_kernel.sync.wire import FILE as FILE_COMES


def entry(path: bytes, kind: str = FILE) -> Entry:
    return Entry(path, kind, 0o644, 0, 0, b"", False)


@pytest.mark.parametrize(
    "entries",
    [
        [entry(b"../x")],
        [entry(b"/etc/passwd")],
        [entry(b"..")],
        [entry(b"")],
        [entry(b"a/b")],
        [entry(b"a", FOLDER), entry(b"a/../b")],
        [entry(b"a", LINK), entry(b"a/b")],
        [entry(b"a", FOLDER), entry(b"a", LINK)],
        [entry(b".remote_kernel-0123.part")],
        [entry(b"a", "b")],
        [entry(b"a")._replace(mode=0o4755)],
        [entry(b"a")._replace(size=-1)],
    ],
)
def test_receiver_believes_no_path_that_leads_elsewhere(entries: list[Entry]) -> None:
    with pytest.raises(Broken):
        OfferedPaths(None).take(entries)


def test_single_file_is_no_folder_and_no_link() -> None:
    OfferedPaths(b"a").take([entry(b"a")])
    for entries in ([entry(b"a"), entry(b"b")], [entry(b"a", LINK)], [entry(b"a", FOLDER)]):
        with pytest.raises(Broken):
            OfferedPaths(b"a").take(entries)


@pytest.mark.parametrize(
    ("wanted", "there", "same"),
    [
        (1_500_000_000_123_456_789, 1_500_000_000_123_456_789, True),
        (1_500_000_000_123_456_789, 1_500_000_000_000_000_000, True),
        (1_500_000_000_123_456_789, 1_500_000_000_123_456_000, True),
        (1_500_000_000_123_456_789, 1_500_000_000_123_456_788, False),
        (1_500_000_001_000_000_000, 1_500_000_000_000_000_000, False),
    ],
)
def test_times_are_equal_as_far_as_the_file_system_can_tell(wanted: int, there: int, same: bool) -> None:
    assert is_same_time(wanted, there) is same


@pytest.mark.parametrize("raw", [b"plain", b"not utf-8 \xff", "ünï ☃\n".encode()])
def test_entries_survive_the_journey(raw: bytes) -> None:
    for kind in (FILE, LINK):
        sent = Entry(raw, kind, 0o640, 5, 123, raw, True)
        assert unpack(pack(sent)) == sent
    with pytest.raises(Broken):
        unpack(["a", FILE])


def test_what_is_listed_is_told_and_taken_in_while_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}").touch()
    monkeypatch.setattr(sender, "_BATCH", 10)
    source = find_source(bytes(tmp_path) + b"/", SyncOptions())
    told: list[tuple[bytes, int]] = []

    class Noting(MessageWire):
        def write(self, kind: bytes, number: int = 0, body: bytes | memoryview = b"") -> None:
            told.append((kind, len(source.listing.entries)))
            super().write(kind, number, body)

    reader, writer = os.pipe()
    try:
        Sender(Noting(reader, writer), source, lambda *_: None, SyncOptions()).tell()
        offer = SourceOffer(MessageWire(reader, writer), SyncOptions())
        arriving = offer.arriving()
        assert next(arriving).path == b"00"
        assert len(offer.entries) == 10
        assert len(list(arriving)) == 24
    finally:
        os.close(reader)
        os.close(writer)
    assert told == [(BEGIN, 0), (ENTRIES, 10), (ENTRIES, 20), (ENTRIES, 25), (ENTRIED, 25)]


def converse(source: Path, target: Path) -> int:
    """Send a file from one folder to another; give how many bytes came over the wire as data."""
    (to_receiver, from_sender), (to_sender, from_receiver) = os.pipe(), os.pipe()
    receiver = Receiver(MessageWire(to_receiver, from_receiver), bytes(target) + b"/", SyncOptions(), lambda *_: None)

    def receive() -> None:
        receiver.ask(receiver.consider())
        receiver.receive()

    thread = threading.Thread(target=receive)
    thread.start()
    wire = CountingWire(to_sender, from_sender)
    end = Sender(wire, find_source(bytes(source), SyncOptions()), lambda *_: None, SyncOptions())
    end.offer()
    summary = end.deliver()
    thread.join(20)
    for fd in (to_receiver, from_sender, to_sender, from_receiver):
        os.close(fd)
    assert summary["failed"] == []
    return wire.sent


def test_deep_tree_is_copied_and_deleted_with_few_files_open(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    path = bytes(here)
    os.mkdir(path)
    for _ in range(1100):  # more than calls may be nested
        path += b"/d"
        os.mkdir(path)
    Path(os.fsdecode(path + b"/file")).write_text("deep down")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        converse(here, there)
        with open(path.replace(bytes(here), bytes(there / "here")) + b"/file", "rb") as file:
            assert file.read() == b"deep down"
        found, is_all = below(Disk(bytes(there)), b"here", Rules([], False))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        subprocess.run(["rm", "-rf", str(here), str(there)], check=True)
    assert is_all
    assert [path[-4:] for path in found[:2]] == [b"file", b"/d/d"]
    assert len(found) == 1101


def test_what_is_below_a_folder_goes_before_it_and_stays_with_what_a_rule_protects(tmp_path: Path) -> None:
    for name in ("top/a/kept.log", "top/a/b/x", "top/c/.remote_kernel-1.part", "top/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, is_all = below(Disk(bytes(tmp_path)), b"top", Rules([b"*.log", b".*"], False))
    assert found == [b"top/a/b/x", b"top/a/b", b"top/c/.remote_kernel-1.part", b"top/c", b"top/d"]
    assert not is_all


class CountingWire(MessageWire):
    sent = 0

    def write(self, kind: bytes, number: int = 0, body: bytes | memoryview = b"") -> None:
        self.sent += len(body) if kind == b"D" else 0
        super().write(kind, number, body)


def test_unfinished_file_and_old_version_save_what_they_hold(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "there"
    target.mkdir()
    data = os.urandom(8 << 20)
    source.write_bytes(data)
    Path(os.fsdecode(partial_path(bytes(target / "data")))).write_bytes(data[: 5 << 20])
    assert converse(source, target) == 3 << 20
    assert (target / "data").read_bytes() == data
    changed = data[: 2 << 20] + b"x" + data[(2 << 20) + 1 :] + b"end"
    source.write_bytes(changed)
    assert converse(source, target) == blocks.block_size(len(data)) + 3
    assert (target / "data").read_bytes() == changed
    os.utime(target / "data", (1, 1))
    inode = (target / "data").stat().st_ino
    assert converse(source, target) == 0
    assert (target / "data").stat().st_ino == inode
    # an unfinished file of something else altogether is not believed
    Path(os.fsdecode(partial_path(bytes(target / "data")))).write_bytes(os.urandom(6 << 20))
    source.write_bytes(data)
    assert converse(source, target) == 6 << 20
    assert (target / "data").read_bytes() == data
    assert [path.name for path in target.iterdir()] == ["data"]


def test_hole_takes_the_place_of_what_an_unfinished_file_had(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "there"
    target.mkdir()
    with source.open("wb") as file:
        file.write(b"x" * (1 << 20))
        file.truncate(6 << 20)
    Path(os.fsdecode(partial_path(bytes(target / "data")))).write_bytes(b"y" * (4 << 20) + b"z" * 100)
    converse(source, target)
    assert (target / "data").read_bytes() == source.read_bytes()


def test_small_file_that_another_sync_sweeps_away_is_written_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "data", tmp_path / "there"
    target.mkdir()
    source.write_bytes(b"all of it")
    source.chmod(0o640)
    os.utime(source, ns=(1, 10**18 + 1))
    rename, swept = os.rename, []

    def sweep_first(old: bytes, new: bytes, **folders: int) -> None:
        if not swept:
            sweep(bytes(target))
            swept.append(old)
        rename(old, new, **folders)

    monkeypatch.setattr(os, "rename", sweep_first)
    converse(source, target)
    assert swept
    about = (target / "data").stat()
    assert (target / "data").read_bytes() == b"all of it"
    assert (about.st_mode & 0o777, about.st_mtime_ns) == (0o640, 10**18 + 1)
    assert [path.name for path in target.iterdir()] == ["data"]


@pytest.mark.parametrize("size", [100, 3 << 20])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_or_quota_that_is_full_ends_the_transfer(
    size: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: bytes, *where: int) -> int:
        raise OSError(number, os.strerror(number))

    messages = iter([(SMALL, 0, b"x" * 100)] if size == 100 else [(FILE_COMES, 0, b""), (DATA, 0, b"x" * 100)])
    monkeypatch.setattr(MessageWire, "read", lambda self: next(messages))
    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr("remote_kernel.sync.contents.os.write", write)
    with Folders(bytes(tmp_path)) as folders, pytest.raises(SyncFailure) as failure:
        Contents(MessageWire(0, 1), folders, [entry(b"a")._replace(size=size)], {0: 0}, lambda *_: None).receive()
    assert failure.value.name == "NoRoom"
    assert os.strerror(number) in failure.value.message
    assert not (tmp_path / "a").exists()


def test_small_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    small_file = entry(b"a")._replace(size=3)
    folder = os.open(tmp_path, os.O_RDONLY)
    assert not SmallFileWriter().write(folder, 1, b"a", small_file, b"new")  # a folder is in its place
    os.close(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def test_small_files_get_their_modes_whatever_the_umask_and_the_acl_of_a_folder_are(tmp_path: Path) -> None:
    modes = [0o644, 0o644, 0o666, 0o400, 0o444, 0o755, 0o644, 0o000, 0o600, 0o666, 0o644]
    # A default ACL: user::rw- group::r-- other::---, so that a new file gets at most 0640, whatever the umask is.
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, right, 0xFFFFFFFF) for tag, right in ((1, 6), (4, 4), (32, 0))
    )
    (tmp_path / "plain").mkdir()
    (tmp_path / "acl").mkdir()
    os.setxattr(tmp_path / "acl", "system.posix_acl_default", acl)
    writer = SmallFileWriter()
    for turn, inner in enumerate(("plain", "acl", "plain"), start=1):
        folder = os.open(tmp_path / inner, os.O_RDONLY)
        for number, mode in enumerate(modes):
            about = entry(b"x")._replace(mode=mode, size=3)
            assert writer.write(folder, turn, b"file%d" % number, about, b"new")
        os.close(folder)
        found = [stat.S_IMODE((tmp_path / inner / f"file{number}").stat().st_mode) for number in range(len(modes))]
        assert found == modes, inner


def test_small_file_with_a_hole_and_one_that_shrank_are_not_sent_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100 + bytes(8192))
    about = entry(b"a")._replace(size=8292)
    assert sender.read_small(bytes(path), about) == path.read_bytes()
    assert sender.read_small(bytes(path), about._replace(is_sparse=True)) is None
    assert sender.read_small(bytes(path), about._replace(size=sender.SMALL + 1)) is None
    with pytest.raises(OSError, match="shorter"):
        sender.read_small(bytes(path), about._replace(size=9000))


def test_two_transfers_of_one_file_keep_apart(tmp_path: Path) -> None:
    first = PartialFile(bytes(tmp_path / "a"))
    second = PartialFile(bytes(tmp_path / "a"))
    assert first.path != second.path
    sweep(bytes(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    first.write(b"1", 0)
    second.write(b"2", 0)
    first.finish(1, 0o600, 0)
    second.finish(1, 0o600, 0)
    first.close()
    second.close()
    assert (tmp_path / "a").read_text() == "2"
    Path(os.fsdecode(partial_path(bytes(tmp_path / "b")))).touch()
    sweep(bytes(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_trying_again_ends_and_begins_only_after_a_connection_had_been_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_kernel.sync.engine.FIRST_PAUSE_SECONDS", 0.01)
    errors: list[RemoteKernelError] = [ConnectionLost("lost"), ConnectTimeout("away"), ConnectTimeout("away")]
    told: list[RemoteKernelError] = []

    def action() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert retry(action, told.append) == "done"
    assert len(told) == 3
    errors = [ConnectTimeout("never reached")]
    with pytest.raises(ConnectTimeout):
        retry(action, told.append)
    errors = [ConnectionLost("lost")] * 50
    with pytest.raises(ConnectionLost):
        retry(action, told.append, patience_seconds=0.05)


def test_bar_shows_rate_and_time_left_on_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_FIRST_SECONDS", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.reporter("x") as report:
        report.planned(2_000_000, 2)
        report.moved(500_000, 1)
        report.moved(1_500_000, 1)
    said = capfd.readouterr().err
    assert "2/2" in said
    assert "MB" in said


def test_lines_tell_now_and_then_elsewhere(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.reporter("x") as report:
        report.planned(2_000_000, 2)
        report.moved(500_000, 1)
    assert re.fullmatch(r"1 of 2 files, 500 kB of 2 MB, \S+ \w+/s, \S+( s)? left\n", capfd.readouterr().err)


def test_names_that_could_steer_a_terminal_are_spelled_out() -> None:
    assert progress.shown("a\n\x1b[2J\udcff ü") == "a\\n\\x1b[2J\\xff ü"
