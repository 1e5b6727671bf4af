"""`remote_kernel sync`: one contract, over every way that the bytes can take, in both directions."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_kernel.cli.manager import main
from tests.support.relay import Relay
from tests.support.servers import Server

WAYS = {
    "openssh": ("--transport", "openssh"),
    "paramiko": ("--transport", "paramiko"),
    "sftp": ("--transport", "openssh", "--sftp"),
    "paramiko sftp": ("--transport", "paramiko", "--sftp"),
}
# What differs between the ways is how contents are carried: the other tests go over one of them, and all at night.
ONE_WAY = pytest.mark.parametrize(
    "way",
    ["openssh", *(pytest.param(name, marks=pytest.mark.nightly) for name in WAYS if name != "openssh")],
    indirect=True,
)


class Way(NamedTuple):
    """What carries the files, and the folders at both ends: `here` belongs to the tests, `there` to the remote user."""

    name: str
    here: Path
    there: Path
    config: Path
    host: str

    def run(self, *words: str, host: str = "", inside: str = "") -> int:
        """Run `sync`; relative remote paths start from `there`."""
        return main(["sync", host or self.host, *words, *WAYS[self.name], "--ssh-config", str(self.config)])

    def push(self, source: str | Path, target: str = "", *more: str) -> int:
        return self.run(str(source), f"remote:{self.there}/{target}", *more)

    def tree(self, root: Path) -> dict[bytes, tuple[object, ...]]:
        """Give all that a copy has to have, by path; SFTP tells whole seconds of its time."""
        return tree(root, 10**9 if "sftp" in self.name else 1)

    def pull(self, source: str, target: str | Path, *more: str) -> int:
        return self.run(f"remote:{self.there}/{source}", str(target), *more)


@pytest.fixture(params=["openssh", "paramiko", pytest.param("sftp", marks=pytest.mark.nightly), "paramiko sftp"])
def way(request: pytest.FixtureRequest, tmp_path: Path, remote_folder: Path, ssh_config: Path) -> Way:
    """Give each way in turn."""
    here = tmp_path / "here"
    here.mkdir()
    return Way(request.param, here, remote_folder, ssh_config, "target")


def tree(root: Path, unit: int = 1) -> dict[bytes, tuple[object, ...]]:
    """Give all that a copy has to have, by path; times in units of so many nanoseconds, or not at all for 0."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            at = os.lstat(path)
            time = at.st_mtime_ns // unit if unit else 0
            if stat.S_ISLNK(at.st_mode):
                what: tuple[object, ...] = ("link", os.readlink(path), time)
            elif stat.S_ISDIR(at.st_mode):
                what = ("folder", stat.S_IMODE(at.st_mode), time)
            else:
                with open(path, "rb") as file:
                    what = ("file", stat.S_IMODE(at.st_mode), time, at.st_size, file.read())
            found[os.path.relpath(path, top)] = what
    return found


def make_tree(root: Path) -> None:
    """Fill a folder with everything that could go wrong."""
    (root / "empty").mkdir(parents=True)
    (root / "deep/er/still").mkdir(parents=True)
    (root / "deep/er/still/file.txt").write_text("deep down")
    for name in (
        "plain",
        "with space",
        "new\nline",
        "ünï ☃",
        "'quote'",
        '"double"',
        "-dash",
        "$HOME",
        "*",
        "#c",
        "!b",
        "~",
    ):
        (root / name).write_text(name)
    with open(os.path.join(os.fsencode(root), b"not utf-8 \xff\xfe"), "wb") as file:
        file.write(b"bytes")
    (root / "nothing").touch()
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "secret").write_text("mine")
    (root / "secret").chmod(0o600)
    (root / "read-only").write_text("look")
    (root / "read-only").chmod(0o444)
    (root / "link").symlink_to("plain")
    (root / "broken link").symlink_to("../nowhere/x y")
    (root / "folder link").symlink_to("deep")
    (root / "large").write_bytes(os.urandom(1000) * 3000)
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(3 << 20)
        sparse.write(b"in the middle")
        sparse.truncate(9 << 20)
    locked = root / "locked"
    locked.mkdir()
    (locked / "inside").write_text("inside")
    locked.chmod(0o555)
    for number, path in enumerate([*root.rglob("*")]):
        os.utime(path, ns=(10**18, 10**18 + number * 1_000_000_007), follow_symlinks=False)


def own(server: Server, path: Path) -> None:
    """Give what is below a path to the remote user."""
    subprocess.run(["chown", "-R", f"{server.account.uid}:{server.account.gid}", str(path)], check=True)


def test_everything_arrives_there_and_back_the_same(way: Way, tmp_path: Path) -> None:
    make_tree(way.here)
    assert way.push(f"{way.here}/", "work") == 0
    assert way.tree(way.there / "work") == way.tree(way.here)
    assert (way.there / "work/sparse").stat().st_blocks * 512 < 1 << 20
    back = tmp_path / "back"
    assert way.pull("work/", back) == 0
    assert way.tree(back) == way.tree(way.here)
    assert (back / "sparse").stat().st_blocks * 512 < 1 << 20


@ONE_WAY
def test_second_run_copies_nothing_and_a_change_only_what_changed(way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    make_tree(way.here)
    assert way.push(way.here, "") == 0
    top = way.there / "here"
    before = {path: path.lstat().st_ino for path in top.rglob("*")}
    (way.here / "plain").write_text("other")
    (way.here / "link").unlink()
    (way.here / "link").symlink_to("secret")
    (way.here / "script").chmod(0o700)
    capfd.readouterr()
    assert way.push(way.here, "") == 0
    said = capfd.readouterr().out
    assert said.startswith("copied 1 file (5 B), 1 link made, 1 given another mode or time, ")
    assert way.tree(top) == way.tree(way.here)
    after = {path: path.lstat().st_ino for path in top.rglob("*")}
    assert {path.name for path in before if before[path] != after[path]} == {"plain", "link"}


def test_large_file_that_changed_in_places_is_rewritten_whole(way: Way) -> None:
    data = bytearray(os.urandom(5_000_000))
    file = way.here / "data"
    file.write_bytes(data)
    assert way.push(file) == 0
    data[1_000_000:1_000_010] = b"0123456789"
    data += b"more"
    file.write_bytes(data)
    assert way.push(file) == 0
    assert (way.there / "data").read_bytes() == data
    file.write_bytes(data[:3_000_000])
    assert way.push(file) == 0
    assert (way.there / "data").read_bytes() == data[:3_000_000]
    (way.there / "data").write_bytes(data)
    os.utime(way.there / "data", (1, 1))
    assert way.pull("data", file) == 0
    assert file.read_bytes() == data
    assert file.stat().st_mtime == 1


@ONE_WAY
def test_delete_removes_what_the_source_lacks_but_not_what_is_left_out(way: Way, target: Server) -> None:
    (way.here / ".gitignore").write_text("*.log\n/cache/\n")
    (way.here / "kept").write_text("1")
    for name in ("old", "gone/deep/file", "gone/deep/x.log", "cache/a", "away/b", "skipped", "train.log"):
        (way.there / name).parent.mkdir(parents=True, exist_ok=True)
        (way.there / name).write_text(name)
    own(target, way.there)
    before = tree(way.there)
    assert way.push(f"{way.here}/", "", "--dry-run", "--delete", "--exclude", "/skipped") == 0
    assert tree(way.there) == before
    assert way.push(f"{way.here}/", "", "--exclude", "/skipped") == 0
    assert (way.there / "old").exists()
    assert way.push(f"{way.here}/", "", "--delete", "--exclude", "/skipped") == 0
    files = {str(path.relative_to(way.there)) for path in way.there.rglob("*") if path.is_file()}
    assert files == {".gitignore", "kept", "gone/deep/x.log", "cache/a", "skipped", "train.log"}
    assert way.push(f"{way.here}/", "", "--delete", "--no-ignore") == 0
    assert {path.name for path in way.there.iterdir()} == {".gitignore", "kept"}


@ONE_WAY
def test_gitignore_files_count_at_whichever_end_the_source_is(way: Way, target: Server, tmp_path: Path) -> None:
    for root in (way.here, way.there):
        (root / ".gitignore").write_text("*.ckpt\nbuild/\n")
        for name in ("a.py", "a.ckpt", "build/x", "sub/b.ckpt", "sub/good.ckpt", "sub/c.py", ".git/config"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        (root / "sub/.gitignore").write_text("!good.ckpt\n")
    own(target, way.there)
    expected = {".gitignore", "a.py", "sub/.gitignore", "sub/c.py", "sub/good.ckpt"}
    assert way.push(f"{way.here}/", "copy") == 0
    assert way.pull("sub/", tmp_path / "sub") == 0  # the rules of the work tree's top count inside too
    assert files_in(way.there / "copy") == expected
    assert files_in(tmp_path / "sub") == {".gitignore", "c.py", "good.ckpt"}
    assert way.pull("", tmp_path / "all", "--no-ignore", "--exclude", "copy", "--exclude", ".git/") == 0
    assert files_in(tmp_path / "all") == expected | {"a.ckpt", "build/x", "sub/b.ckpt"}


@pytest.mark.parametrize("way", ["openssh", "sftp"], indirect=True)
def test_folder_whose_gitignore_cannot_be_read_is_not_copied_and_nothing_is_deleted(
    way: Way, target: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    (way.there / "sub").mkdir()
    (way.there / "sub/.gitignore").write_text("secret\n")
    (way.there / "sub/plain").write_text("plain")
    (way.there / "other").write_text("other")
    own(target, way.there)
    assert way.pull("", f"{way.here}/") == 0
    (way.here / "sub/secret").write_text("mine")
    (way.there / "sub/secret").write_text("theirs")
    (way.there / "other").write_text("other one")
    own(target, way.there)
    (way.there / "sub/.gitignore").chmod(0)
    assert way.pull("", f"{way.here}/", "--delete") == 63
    assert "1 path could not be copied: sub/.gitignore: Permission denied" in capfd.readouterr().err
    assert (way.here / "sub/secret").read_text() == "mine"
    assert (way.here / "other").read_text() == "other one"


@ONE_WAY
def test_checksum_finds_what_size_and_time_hide(way: Way) -> None:
    (way.here / "a").write_text("one")
    (way.here / "b").write_text("two")
    assert way.push(f"{way.here}/") == 0
    (way.there / "a").write_text("eno")
    (way.there / "b").touch()
    os.utime(way.there / "a", ns=(0, (way.here / "a").stat().st_mtime_ns))
    inode = (way.there / "b").stat().st_ino
    assert way.push(f"{way.here}/", "") == 0
    assert (way.there / "a").read_text() == "eno"
    os.utime(way.there / "b", (5, 5))
    inode = (way.there / "b").stat().st_ino
    assert way.push(f"{way.here}/", "", "--checksum") == 0
    assert way.tree(way.there) == way.tree(way.here)
    assert (way.there / "b").stat().st_ino == inode


@ONE_WAY
def test_names_follow_the_rules_of_rsync(way: Way) -> None:
    (way.here / "data").mkdir()
    (way.here / "data/x").write_text("x")
    for source, target in (
        ("data", "1"),
        ("data/", "2"),
        ("data/.", "3"),
        ("data/x", "4"),
        ("data/x", "5/"),
        ("data/x", "2"),
    ):
        assert way.push(f"{way.here}/{source}", target) == 0, (source, target)
    assert files_in(way.there) == {"1/data/x", "2/x", "3/x", "4", "5/x"}


@ONE_WAY
def test_what_is_of_another_kind_is_replaced_only_with_delete(way: Way, target: Server) -> None:
    (way.here / "a").mkdir()
    (way.here / "a/x").write_text("x")
    (way.here / "b").write_text("b")
    (way.here / "c").write_text("c")
    (way.there / "a").write_text("file")
    (way.there / "b").mkdir()
    (way.there / "b/y").write_text("y")
    (way.there / "c").symlink_to("/etc/passwd")
    own(target, way.there / "a")
    own(target, way.there / "b")
    assert way.push(f"{way.here}/") == 63
    assert (way.there / "a").read_text() == "file"
    assert (way.there / "b/y").exists()
    assert (way.there / "c").read_text() == "c" and not (way.there / "c").is_symlink()
    assert way.push(f"{way.here}/", "", "--delete") == 0
    assert tree(way.there, 0) == tree(way.here, 0)


@ONE_WAY
def test_path_that_cannot_be_written_does_not_stop_the_others(
    way: Way, target: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    foreign = way.there / "foreign"
    foreign.mkdir()
    for name in ("foreign/a", "b"):
        (way.here / name).parent.mkdir(exist_ok=True)
        (way.here / name).write_text(name)
    os.utime(foreign, (1, 1))  # a folder of somebody else's: it keeps its time
    (way.there / "extra").write_text("stays")
    assert way.push(f"{way.here}/", "", "--delete") == 63
    said = capfd.readouterr().err
    assert "1 path could not be copied: foreign/a: Permission denied" in said
    assert "nothing was deleted" in said
    assert (way.there / "b").read_text() == "b"
    assert (way.there / "extra").exists()


DIRECTIONS = pytest.mark.parametrize("direction", ["push", "pull"])


def across(way: Way, direction: str, source: str, target: str, *more: str) -> int:
    """Copy from below one of the folders of a way to below the other."""
    if direction == "push":
        return way.push(f"{way.here}/{source}", target, *more)
    return way.pull(source, f"{way.here}/{target}", *more)


def ends(way: Way, direction: str) -> tuple[Path, Path]:
    """Give the folder that is copied from, and the one that is copied to."""
    return (way.here, way.there) if direction == "push" else (way.there, way.here)


@DIRECTIONS
def test_folder_that_is_made_is_as_open_to_others_as_the_one_that_is_copied(
    direction: str, way: Way, target: Server
) -> None:
    source, goal = ends(way, direction)
    (source / "private").mkdir(mode=0o700)
    (source / "private/a").write_bytes(b"1" * 2_000_000)
    (goal / "team").mkdir()
    (goal / "team").chmod(0o2775)
    own(target, way.there)
    assert across(way, direction, "private", "team") == 0
    assert stat.S_IMODE((goal / "team/private").stat().st_mode) == 0o2700
    (goal / "team/private").chmod(0o2775)
    (source / "private/a").write_bytes(b"2" * 2_000_000)
    own(target, way.there)
    assert across(way, direction, "private", "team") == 0
    assert stat.S_IMODE((goal / "team/private").stat().st_mode) == 0o2775
    assert (goal / "team/private/a").read_bytes() == b"2" * 2_000_000


@ONE_WAY
@DIRECTIONS
def test_destination_that_is_a_link_to_a_folder_is_followed_and_no_link_below_it(
    direction: str, way: Way, target: Server
) -> None:
    source, goal = ends(way, direction)
    (source / "d/sub").mkdir(parents=True)
    (source / "d/sub/x").write_text("x")
    for name in ("real", "elsewhere"):
        (goal / name).mkdir()
    (goal / "elsewhere/kept").touch()
    for name in ("link", "d"):
        (goal / name).symlink_to("real")
    own(target, way.there)
    for words in (("d/", "link"), ("d/", "link/"), ("d", "")):  # by the name that is given, or the source's
        assert across(way, direction, *words) == 0
        assert (goal / "real/sub/x").read_text() == "x"
        (goal / "real/sub/x").unlink()
    assert (goal / "link").is_symlink() and (goal / "d").is_symlink()
    (goal / "real/sub").rmdir()
    (goal / "real/sub").symlink_to("../elsewhere")
    assert across(way, direction, "d", "") == 63
    assert across(way, direction, "d", "", "--delete") == 0
    assert files_in(goal) == {"real/sub/x", "elsewhere/kept"}


@pytest.mark.parametrize("way", ["openssh"], indirect=True)
@DIRECTIONS
def test_file_that_grows_all_the_time_is_copied_as_it_was_at_some_moment(
    direction: str, way: Way, target: Server
) -> None:
    source, goal = ends(way, direction)
    (source / "log").write_bytes(os.urandom(2 << 20))
    own(target, way.there)
    assert across(way, direction, "log", "") == 0
    is_enough = threading.Event()

    def grow() -> None:
        with (source / "log").open("ab", buffering=0) as file:
            while not is_enough.wait(0.002):
                file.write(b"more")

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        wait_for(lambda: (source / "log").stat().st_size > 2 << 20)
        assert across(way, direction, "log", "") == 0
    finally:
        is_enough.set()
        growing.join()
    found = (goal / "log").read_bytes()
    assert len(found) > 2 << 20
    assert (source / "log").read_bytes().startswith(found)


@pytest.mark.parametrize("way", ["openssh"], indirect=True)
@DIRECTIONS
def test_no_copy_runs_as_its_owner(direction: str, way: Way, target: Server) -> None:
    source, goal = ends(way, direction)
    for content in (b"1", b"2"):
        (source / "program").write_bytes(content * (2 << 20))
        own(target, way.there)
        (source / "program").chmod(0o6755)
        assert across(way, direction, "program", "") == 0
        assert (goal / "program").read_bytes()[:1] == content
        assert stat.S_IMODE((goal / "program").stat().st_mode) == 0o755


@pytest.mark.parametrize("way", ["openssh", "sftp"], indirect=True)
@DIRECTIONS
@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_disk_that_takes_no_more_files_is_told_as_a_full_one(
    kind: str, direction: str, way: Way, target: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    source, goal = ends(way, direction)
    (goal / "disk").mkdir()
    make = {"folder": Path.mkdir, "link": lambda path: path.symlink_to("x"), "file": Path.touch}[kind]
    (source / "many").mkdir()
    for number in range(40):
        make(source / "many" / str(number))
    with mounted(goal / "disk", "size=4m,nr_inodes=20"):
        own(target, way.there)
        assert across(way, direction, "many/", "disk") == 62
    assert "there is no room on" in capfd.readouterr().err


@ONE_WAY
def test_all_that_is_passed_over_is_counted(way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(120):
        os.mkfifo(way.here / f"{number:03}")
    assert way.push(f"{way.here}/") == 0
    assert "skipped 120 socket, pipe or device: 000, 001, 002" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("source", "to", "status", "said"),
    [
        ("here", "there", 2, "one of SRC and DST has to be remote, and neither is"),
        ("remote:a", "remote:b", 2, "and both are"),
        ("missing", "remote:x", 61, "there is no '.*missing' on"),
        ("remote:missing", "x", 61, "there is no 'missing' on .*; it was looked for in '/var/tmp/rkremote"),
        ("", "remote:x", 2, "a path is empty"),
        ("folder", "remote:file", 60, "'file' is not a folder, and the source is one"),
        ("folder/f", "remote:file/", 60, "'file/' is not a folder"),
        ("folder", "remote:/proc/nothing", 60, "cannot make the folder '/proc/nothing/folder'"),
        ("folder", "remote:/etc", 60, "cannot make the folder '/etc/folder': Permission denied"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    source: str,
    to: str,
    status: int,
    said: str,
    ssh_config: Path,
    target_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/f").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["sync", "target", source, to, "--ssh-config", str(ssh_config)]) == status
    err = capfd.readouterr().err
    assert re.search(said, err), err
    assert len(err.splitlines()) == 1


@pytest.fixture
def target_file(target: Server) -> Iterator[Path]:
    """Give a file called `file` in the remote home."""
    path = target.home / "file"
    path.write_text("a file")
    own(target, path)
    yield path
    path.unlink()


@pytest.mark.parametrize("direction", ["there", "here"])
def test_full_disk_is_told_and_the_old_file_stays(
    direction: str,
    remote_folder: Path,
    target: Server,
    tmp_path: Path,
    ssh_config: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    source, full = (tmp_path, remote_folder) if direction == "there" else (remote_folder, tmp_path)
    (full / "disk").mkdir()
    (source / "file").write_bytes(b"new" * 1_000_000)
    own(target, remote_folder)
    with mounted(full / "disk", "size=1m"):
        (full / "disk/file").write_text("old")
        own(target, remote_folder)
        near, far = (
            (f"{source}/file", f"remote:{full}/disk/")
            if direction == "there"
            else (f"remote:{source}/file", f"{full}/disk/")
        )
        assert main(["sync", "target", near, far, "--ssh-config", str(ssh_config)]) == 62
        assert "there is no room on" in capfd.readouterr().err
        assert (full / "disk/file").read_text() == "old"


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_workdir_of_the_only_kernelspec_is_where_paths_start(
    remote_folder: Path,
    ssh_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    (tmp_path / "f").write_text("f")
    add = ["add", "behind", "--ssh-config", str(ssh_config), "--no-check"]
    assert main(["sync", str(tmp_path / "f"), "remote:"]) == 2
    assert "There is no kernelspec" in capfd.readouterr().err
    assert main([*add, "--name", "One", "--workdir", f"{remote_folder}/work"]) == 0
    assert main(["sync", str(tmp_path / "f"), "remote:sub/", "--dry-run"]) == 0  # through the jump host
    assert "would copy 1 file" in capfd.readouterr().out
    assert main(["sync", "remote:sub/f", str(tmp_path / "g")]) == 60
    assert "check the spelling of --workdir" in capfd.readouterr().err
    assert not (remote_folder / "work").exists()  # neither of them makes it
    assert main(["sync", str(tmp_path / "f"), "remote:sub/"]) == 0
    assert (remote_folder / "work/sub/f").read_text() == "f"
    assert main([*add, "--name", "Two"]) == 0
    assert main(["sync", str(tmp_path / "f"), "remote:"]) == 2
    assert "there are several: one, two" in capfd.readouterr().err.lower()
    assert main(["sync", "one", "remote:sub/f", str(tmp_path / "g")]) == 0
    assert (tmp_path / "g").read_text() == "f"


@pytest.mark.parametrize("carried_by", [[], ["--sftp"]], ids=["ssh", "sftp"])
def test_home_loses_nothing_and_a_dry_run_makes_no_workdir(
    carried_by: list[str],
    target: Server,
    remote_folder: Path,
    ssh_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    here = tmp_path / "here"
    here.mkdir()
    (here / "f").touch()
    config = ["--ssh-config", str(ssh_config)]
    words = ["sync", "target", f"{here}/", "remote:", "--delete", "--dry-run", *carried_by, *config]
    assert main(words) == 60
    assert f"in all of '{target.home}'" in capfd.readouterr().err
    add = ["add", "target", *config, "--no-check", "--name", "One", "--workdir", f"{remote_folder}/work"]
    assert main(add) == 0
    assert main(["sync", "one", f"{here}/", "remote:", "--delete", "--dry-run", *carried_by]) == 0
    assert "would copy 1 file" in capfd.readouterr().out
    assert not (remote_folder / "work").exists()


def test_connection_cut_in_the_middle_goes_on_where_it_was(
    network: tuple[Relay, Path], remote_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    relay, config = network
    (tmp_path / "data").write_bytes(os.urandom(30 << 20))
    (remote_folder / "data").write_text("old")
    cut = threading.Thread(target=cut_when_half_is_there, args=(relay, remote_folder, 15 << 20))
    cut.start()
    os.chown(remote_folder / "data", os.stat(remote_folder).st_uid, -1)
    relay.bytes_per_second = 40 << 20
    assert main(["sync", "target", f"{tmp_path}/data", f"remote:{remote_folder}/", "--ssh-config", str(config)]) == 0
    cut.join()
    assert "the connection to target broke; trying again" in capfd.readouterr().err
    assert (remote_folder / "data").read_bytes() == (tmp_path / "data").read_bytes()
    assert [path.name for path in remote_folder.iterdir()] == ["data"]


def cut_when_half_is_there(relay: Relay, folder: Path, size: int) -> None:
    """Cut the connection once an unfinished file is that large; the old one is untouched then."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for part in folder.glob(".remote_kernel-*.part"):
            if part.stat().st_size >= size:
                assert (folder / "data").read_text() == "old"
                relay.cut()
                return
        time.sleep(0.01)


@ONE_WAY
def test_killed_at_any_moment_leaves_whole_files(way: Way, target: Server) -> None:
    old, new = os.urandom(4 << 20), os.urandom(4 << 20)
    names = [*(f"small{number}" for number in range(500)), *(f"file{number}" for number in range(5))]
    old_of = {name: old[:2000] if "small" in name else old for name in names}
    new_of = {name: new[:2001] if "small" in name else new for name in names}
    for name in names:
        (way.there / name).write_bytes(old_of[name])
        os.utime(way.there / name, (1, 1))  # SFTP tells no two times within a second apart
        (way.here / name).write_bytes(new_of[name])
    own(target, way.there)
    words = [sys.executable, "-m", "remote_kernel", "sync", way.host, f"{way.here}/", f"remote:{way.there}"]
    run = subprocess.Popen([*words, *WAYS[way.name], "--ssh-config", str(way.config)], stdout=subprocess.DEVNULL)
    wait_for(lambda: any(way.there.glob(".*")) or run.poll() is not None)
    run.kill()
    run.wait()
    wait_for(lambda: not target.processes())
    assert all((way.there / name).read_bytes() in (old_of[name], new_of[name]) for name in names)
    assert way.push(f"{way.here}/") == 0
    assert way.tree(way.there) == way.tree(way.here)


@ONE_WAY
def test_watch_pushes_what_changes_until_it_is_interrupted(way: Way) -> None:
    (way.here / "a").write_text("1")
    words = [sys.executable, "-m", "remote_kernel", "sync", way.host, f"{way.here}/", f"remote:{way.there}/", "--watch"]
    words += ["--delete", *WAYS[way.name], "--ssh-config", str(way.config)]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: files_in(way.there) == {"a"})
        (way.here / "a").write_text("2")
        (way.here / "b").write_text("3")
        wait_for(lambda: files_in(way.there) == {"a", "b"} and (way.there / "a").read_text() == "2")
        (way.here / "b").unlink()
        wait_for(lambda: files_in(way.there) == {"a"})
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130, err
    assert out.count("copied") >= 3


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["openssh", "paramiko", "sftp", "paramiko sftp"], indirect=True)
def test_many_files_and_a_huge_one(way: Way, tmp_path: Path) -> None:
    for number in range(10_000):
        inner = way.here / f"{number // 100}"
        inner.mkdir(exist_ok=True)
        (inner / f"{number}").write_bytes(os.urandom(number % 3000))
    assert way.push(f"{way.here}/", "many") == 0
    assert way.tree(way.there / "many") == way.tree(way.here)
    with (tmp_path / "huge").open("wb") as file:
        for _ in range(2048):
            file.write(os.urandom(1 << 20))
    assert way.push(tmp_path / "huge") == 0
    assert subprocess.run(["cmp", str(tmp_path / "huge"), str(way.there / "huge")], check=False).returncode == 0


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["openssh", "paramiko", "sftp", "paramiko sftp"], indirect=True)
def test_killed_again_and_again_leaves_whole_files(way: Way, target: Server) -> None:
    names = [f"file{number}" for number in range(5)]
    contents = {name: os.urandom(8 << 20) for name in names}
    for name in names:
        (way.here / name).write_bytes(contents[name])
    words = [sys.executable, "-m", "remote_kernel", "sync", way.host, f"{way.here}/", f"remote:{way.there}"]
    for turn in range(30):
        run = subprocess.Popen([*words, *WAYS[way.name], "--ssh-config", str(way.config)], stdout=subprocess.DEVNULL)
        time.sleep(0.3 + turn * 0.03)  # a moment of its own for each turn
        run.kill()
        run.wait()
        wait_for(lambda: not target.processes())
        for name in names:
            path = way.there / name
            assert not path.exists() or path.read_bytes() == contents[name]
        if turn % 10 == 9:
            for path in way.there.iterdir():
                path.unlink()
    assert way.push(f"{way.here}/") == 0
    assert way.tree(way.there) == way.tree(way.here)


def wait_for(condition: Callable[[], object], timeout_seconds: float = 30.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def files_in(root: Path) -> set[str]:
    """Give the paths of all files."""
    return {
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".remote_kernel-" not in path.name
    }
