"""`remote_kernel sync` where something breaks, is killed, changes all the time, or is not allowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_kernel.cli.manager import main
from tests.e2e.test_sync import files_in, mounted, own, tree, wait_for
from tests.support.relay import Relay
from tests.support.servers import Server

MIB = 1 << 20


def words(config: Path, source: object, target: object, *more: str) -> list[str]:
    return ["sync", "target", str(source), str(target), "--ssh-config", str(config), *more]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "remote_kernel", *arguments]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def when_half_is_there(folder: Path, size: int, action: Callable[[], object]) -> threading.Thread:
    """Do something, once, when an unfinished file in that folder is so large."""

    def look() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(part.stat().st_size >= size for part in folder.glob(".remote_kernel-*.part")):
                action()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def ways(direction: str, here: Path, there: Path) -> tuple[Path, Path, str, str]:
    """Give the folder that is copied from and the one that is copied to, and what both are called."""
    if direction == "push":
        return here, there, f"{here}/", f"remote:{there}/"
    return there, here, f"remote:{there}/", f"{here}/"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_pull_that_is_cut_in_the_middle_goes_on_where_it_was(
    network: tuple[Relay, Path], here: Path, remote_folder: Path, target: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    relay, config = network
    data = os.urandom(24 * MIB)
    (remote_folder / "data").write_bytes(data)
    own(target, remote_folder)
    (here / "data").write_text("old")
    relay.bytes_per_second = 40 * MIB

    def cut() -> None:
        assert (here / "data").read_text() == "old"
        relay.cut()

    cutting = when_half_is_there(here, 12 * MIB, cut)
    assert main(words(config, f"remote:{remote_folder}/data", here)) == 0
    cutting.join()
    assert "the connection to target broke; trying again" in capfd.readouterr().err
    assert (here / "data").read_bytes() == data
    assert [path.name for path in here.iterdir()] == ["data"]


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_remote_end_that_is_killed_is_started_again(
    direction: str,
    network: tuple[Relay, Path],
    here: Path,
    remote_folder: Path,
    target: Server,
    capfd: pytest.CaptureFixture[str],
) -> None:
    relay, config = network
    source, end, first, last = ways(direction, here, remote_folder)
    (source / "data").write_bytes(os.urandom(16 * MIB))
    (source / "small").write_text("small")
    own(target, remote_folder)
    relay.bytes_per_second = 8 * MIB

    def kill() -> None:
        for process in target.processes():
            process.kill()
        relay.bytes_per_second = 0  # the second try is to be quick

    killing = when_half_is_there(end, 4 * MIB, kill)
    assert main(words(config, first, last)) == 0
    killing.join()
    assert "trying again" in capfd.readouterr().err
    assert tree(end) == tree(source)


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_several_syncs_at_a_time_do_not_fail_because_of_each_other(
    direction: str, ssh_config: Path, here: Path, remote_folder: Path, target: Server
) -> None:
    source, end, first, last = ways(direction, here, remote_folder)
    for number in range(300):
        (source / f"link{number}").symlink_to(f"to{number}")
        (source / f"file{number}").write_text(str(number))
        (source / f"folder{number}").mkdir()
        (end / f"gone{number}").mkdir()
    own(target, remote_folder)
    running = [started(words(ssh_config, first, last, "--delete")) for _ in range(3)]
    for process in running:
        said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert tree(end) == tree(source)


def test_pull_killed_at_any_moment_leaves_whole_files(
    ssh_config: Path, here: Path, remote_folder: Path, target: Server
) -> None:
    names = [*(f"small{number}" for number in range(300)), *(f"file{number}" for number in range(5))]
    old = {name: os.urandom(2000 if "small" in name else 3 * MIB) for name in names}
    new = {name: os.urandom(2001 if "small" in name else 3 * MIB) for name in names}
    for name in names:
        (here / name).write_bytes(old[name])
        (remote_folder / name).write_bytes(new[name])
    own(target, remote_folder)
    line = words(ssh_config, f"remote:{remote_folder}/", f"{here}/")
    for moment in (0, 100, 300):
        run = started(line)
        wait_until_some_are_there(run, here, moment)
        run.kill()
        run.communicate()
        wait_for(lambda: not target.processes())
        assert all((here / name).read_bytes() in (old[name], new[name]) for name in names)
    assert main(line) == 0
    assert tree(here) == tree(remote_folder)


def wait_until_some_are_there(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait for so many new small files and the beginning of another, or for the end."""

    def some() -> bool:
        new = sum(path.stat().st_size == 2001 for path in folder.glob("small*"))
        return new >= count and any(folder.glob(".*"))

    wait_for(lambda: some() or run.poll() is not None)


def test_watch_follows_editors_many_changes_renamed_folders_and_a_lost_connection(
    network: tuple[Relay, Path], here: Path, remote_folder: Path
) -> None:
    relay, config = network
    (here / "code").mkdir()
    (here / "code/main.py").write_text("one")
    run = started(words(config, f"{here}/", f"remote:{remote_folder}/", "--watch", "--delete"))
    try:
        wait_for(lambda: files_in(remote_folder) == {"code/main.py"})
        (here / "code/.main.py.swp").write_text("two")  # as many editors save
        os.replace(here / "code/.main.py.swp", here / "code/main.py")
        wait_for(lambda: (remote_folder / "code/main.py").read_text() == "two")
        for number in range(500):
            (here / f"many{number}").write_text(str(number))
        wait_for(lambda: len(files_in(remote_folder)) == 501)
        (here / "code").rename(here / "renamed")
        for number in range(500):
            (here / f"many{number}").unlink()
        wait_for(lambda: is_copy(here, remote_folder))
        assert files_in(remote_folder) == {"renamed/main.py"}
        relay.cut()
        (here / "after").write_text("the cut")
        wait_for(lambda: (remote_folder / "after").exists())
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=20)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 130, err
    assert "trying again" in err


def is_copy(source: Path, target: Path) -> bool:
    """Whether the target is like the source by now, which may be changing at this moment."""
    try:
        return tree(target) == tree(source)
    except FileNotFoundError:
        return False


def test_read_only_disk_and_unreadable_file_are_told(
    ssh_config: Path, here: Path, remote_folder: Path, target: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system, or own what the remote user may not read")
    (here / "file").write_text("new")
    (remote_folder / "disk").mkdir()
    with mounted(remote_folder / "disk", "size=1m,ro"):
        assert main(words(ssh_config, f"{here}/", f"remote:{remote_folder}/disk/")) == 63
        assert "1 path could not be copied: file: Read-only file system" in capfd.readouterr().err
        assert main(words(ssh_config, f"{here}/", f"remote:{remote_folder}/disk/new/")) == 60
        said = capfd.readouterr().err
        assert f"cannot make the folder '{remote_folder}/disk/new': Read-only file system" in said
    for name in ("mine", "open"):
        (remote_folder / name).write_text(name)
    (remote_folder / "mine").chmod(0o600)
    assert main(words(ssh_config, f"remote:{remote_folder}/", f"{here}/back")) == 63
    assert "1 path could not be copied: mine: Permission denied" in capfd.readouterr().err
    assert files_in(here / "back") == {"open"}
