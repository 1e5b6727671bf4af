"""`remote_kernel sync`: one contract, over every way that the bytes can take, in both directions."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_kernel.cli.manager import main
from tests.support.servers import Server

WAYS = ("openssh", "paramiko")


class Way(NamedTuple):
    """A transport, and the folders at both ends: `here` belongs to the tests, `there` to the remote user."""

    name: str
    here: Path
    there: Path
    config: Path
    host: str

    def run(self, *words: str, host: str = "", inside: str = "") -> int:
        """Run `sync`; relative remote paths start from `there`."""
        options = ["--transport", self.name, "--ssh-config", str(self.config)]
        return main(["sync", host or self.host, *words, *options])

    def push(self, source: str | Path, target: str = "", *more: str) -> int:
        return self.run(str(source), f"remote:{self.there}/{target}", *more)

    def pull(self, source: str, target: str | Path, *more: str) -> int:
        return self.run(f"remote:{self.there}/{source}", str(target), *more)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path, remote_folder: Path, ssh_config: Path) -> Way:
    """Give each way in turn."""
    here = tmp_path / "here"
    here.mkdir()
    return Way(request.param, here, remote_folder, ssh_config, "target")


def tree(root: Path, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Give all that a copy has to have, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            at = os.lstat(path)
            time = at.st_mtime_ns if times else 0
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
    assert tree(way.there / "work") == tree(way.here)
    assert (way.there / "work/sparse").stat().st_blocks * 512 < 1 << 20
    back = tmp_path / "back"
    assert way.pull("work/", back) == 0
    assert tree(back) == tree(way.here)
    assert (back / "sparse").stat().st_blocks * 512 < 1 << 20
