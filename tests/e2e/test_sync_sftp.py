"""`remote_kernel sync` to hosts that can run none of our programs: without Python, or with nothing but SFTP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from remote_kernel.cli.manager import main
from remote_kernel.sync.sftp_client import Reply, Sftp
from remote_kernel.sync.sftp_push import partial_version_path
from tests.e2e.test_sync import make_tree, mounted, own, tree, wait_for
from tests.support.relay import Relay
from tests.support.servers import REMOTE_MARKER, Server

TRANSPORTS = pytest.mark.parametrize("transport", ["openssh", "paramiko"], indirect=True)
SFTP_ONLY = "ForceCommand internal-sftp"


def no_python(target: Server) -> str:
    """Give the line of sshd_config with which no program is found there."""
    return f"SetEnv PATH=/nowhere {REMOTE_MARKER}={target.marker}"


@TRANSPORTS
@pytest.mark.parametrize("lack", ["python", "shell"])
def test_host_that_runs_nothing_of_ours_is_synced_with_over_sftp(
    lack: str,
    target: Server,
    remote_folder: Path,
    tmp_path: Path,
    ssh_config: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "work/sub").mkdir(parents=True)
    (tmp_path / "work/sub/a").write_text("a")
    (tmp_path / "work/link").symlink_to("sub")
    there = remote_folder.relative_to(target.home)
    reason = "there is no Python on target" if lack == "python" else "'This service allows sftp connections only.'"
    config = ["--ssh-config", str(ssh_config)]
    with target.configured(no_python(target) if lack == "python" else SFTP_ONLY):
        assert main(["sync", "target", f"{tmp_path}/work", f"remote:~/{there}/in/to", *config]) == 0
        said = capfd.readouterr()
        assert said.out == "copied 1 file (1 B), 1 link made\n"
        (line,) = said.err.splitlines()
        assert reason in line
        assert line.endswith("; copying over SFTP instead")
        assert main(["sync", "target", f"remote:{there}/in/to/work/", f"{tmp_path}/back", *config]) == 0
    assert (tmp_path / "back/sub/a").read_text() == "a"
    assert os.readlink(tmp_path / "back/link") == "sub"


def test_server_without_openssh_s_extensions_will_do(
    target: Server, remote_folder: Path, tmp_path: Path, ssh_config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path / "here")
    there = remote_folder / "there"
    words = ["--sftp", "--ssh-config", str(ssh_config)]
    lacks = "posix-rename,limits,lsetstat,statvfs,expand-path,hardlink,fsync"
    with target.configured(f"ForceCommand internal-sftp -P {lacks}"):
        for _ in range(2):
            assert main(["sync", "target", f"{tmp_path}/here/", f"remote:{there}", *words]) == 0
        said = capfd.readouterr().out.splitlines()
        assert re.fullmatch(r"copied 0 files \(0 B\), \d+ unchanged", said[-1]), said
        assert tree(there, 0) == tree(tmp_path / "here", 0)
        (tmp_path / "here/plain").write_text("in place of the old one")
        assert main(["sync", "target", f"{tmp_path}/here/", f"remote:{there}", *words]) == 0
        assert main(["sync", "target", f"remote:{there}/", f"{tmp_path}/back", *words]) == 0
    assert tree(tmp_path / "back", 0) == tree(tmp_path / "here", 0)


def test_host_without_sftp_too_is_told_of_what_it_lacked_first(
    target: Server, tmp_path: Path, ssh_config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["sync", "target", str(tmp_path), "remote:x", "--ssh-config", str(ssh_config)]
    with target.configured("ForceCommand echo This account is closed"):
        assert main(words) == 45
        assert "This account is closed" in capfd.readouterr().err
        assert main([*words, "--sftp"]) == 64
        assert "target does not allow copying files over SFTP; its sshd needs" in capfd.readouterr().err


@TRANSPORTS
@pytest.mark.parametrize("direction", ["there", "here"])
def test_cut_transfer_over_sftp_goes_on_where_it_was(
    direction: str,
    network: tuple[Relay, Path],
    target: Server,
    remote_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    relay, config = network
    source, goal = (tmp_path, remote_folder) if direction == "there" else (remote_folder, tmp_path)
    size = 40 << 20
    (source / "data").write_bytes(os.urandom(size))
    (goal / "data").write_text("old")
    own(target, remote_folder)
    cut = threading.Thread(target=cut_when_much_is_there, args=(relay, goal, 24 << 20))
    cut.start()
    relay.bytes_per_second = 60 << 20
    ends = [f"{tmp_path}/data", f"remote:{remote_folder}/data"]
    words = ["sync", "target", *(ends if direction == "there" else reversed(ends)), "--sftp"]
    assert main([*words, "--ssh-config", str(config)]) == 0
    cut.join()
    assert "the connection to target broke; trying again" in capfd.readouterr().err
    assert (goal / "data").read_bytes() == (source / "data").read_bytes()
    assert relay.carried < size * 1.6
    assert [path.name for path in remote_folder.iterdir()] == ["data"]
    assert not list(tmp_path.glob(".*"))


def cut_when_much_is_there(relay: Relay, folder: Path, size: int) -> None:
    """Cut the connection once an unfinished file is that large; the old one is untouched then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(part.stat().st_size >= size for part in folder.glob(".remote_kernel-*.part")):
            assert (folder / "data").read_text() == "old"
            relay.cut()
            return
        time.sleep(0.01)


def test_part_of_another_version_is_not_gone_on_with(target: Server, remote_folder: Path, ssh_config: Path) -> None:
    here = remote_folder / "here"
    (remote_folder / "there").mkdir()
    here.mkdir()
    (here / "data").write_bytes(os.urandom(20 << 20))
    own(target, remote_folder)
    words = ["sync", "target", f"{here}/", f"remote:{remote_folder}/there", "--sftp", "--ssh-config", str(ssh_config)]
    assert main(words) == 0
    whole = remote_folder / "there/data"
    shutil.copy(whole, remote_folder / "there/.remote_kernel-0123456789abcdef-v0123456789abcdef.part")
    (here / "data").write_bytes(os.urandom(20 << 20))
    os.utime(here / "data", (1, 1))
    assert main(words) == 0
    assert whole.read_bytes() == (here / "data").read_bytes()


@pytest.mark.parametrize("lacks", ["fsync", "fsync,posix-rename"])
def test_two_pushes_of_one_file_at_a_time_do_not_mix_their_bytes(
    lacks: str, network: tuple[Relay, Path], target: Server, remote_folder: Path, ssh_config: Path, tmp_path: Path
) -> None:
    relay, slow = network
    contents = {name: os.urandom(8 << 20) for name in ("first", "second")}
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(content)
        os.utime(tmp_path / name / "data", (10**9, 10**9))
    relay.bytes_per_second = 2 << 20

    def words(name: str, config: Path) -> list[str]:
        return [
            "sync",
            "target",
            f"{tmp_path}/{name}/",
            f"remote:{remote_folder}/",
            "--sftp",
            "--ssh-config",
            str(config),
        ]

    program = [sys.executable, "-m", "remote_kernel", *words("first", slow)]
    with (
        target.configured(f"ForceCommand internal-sftp -P {lacks}"),
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first,
    ):
        wait_for(lambda: any(part.stat().st_size > 1 << 20 for part in remote_folder.glob(".remote_kernel-*")))
        assert main(words("second", ssh_config)) == 0
        assert (remote_folder / "data").read_bytes() == contents["second"]
        relay.bytes_per_second = 0
        said = first.communicate(timeout=60)[1]
    assert first.returncode == 63
    assert "data: what had come of it was taken away: another sync of it may be under way" in said
    assert (remote_folder / "data").read_bytes() == contents["second"]
    assert os.listdir(remote_folder) == ["data"]


def test_part_of_the_same_version_is_gone_on_with_under_another_name(
    target: Server, remote_folder: Path, ssh_config: Path, tmp_path: Path
) -> None:
    data = os.urandom(12 << 20)
    (tmp_path / "data").write_bytes(data)
    words = [
        "sync",
        "target",
        f"{tmp_path}/data",
        f"remote:{remote_folder}/",
        "--sftp",
        "--ssh-config",
        str(ssh_config),
    ]
    version = partial_version_path(b"data", b"%d %d" % (len(data), (tmp_path / "data").stat().st_mtime_ns))
    first = bytearray(data[: 11 << 20])
    first[0] ^= 1  # tells whether it was sent again
    ends = (b"-0123456789abcdef.part", b"-1.part", b"-2.part", b"-3.part", b".part")
    link, others, open_to_others, *left = (remote_folder / os.fsdecode(version + end) for end in ends)
    link.symlink_to(tmp_path / "elsewhere")
    for path in (others, open_to_others):
        path.write_bytes(bytes(len(first)))  # somebody else's words
        path.chmod(0o666)
    for path in left:
        path.write_bytes(first)
        path.chmod(0o600)
    own(target, remote_folder)
    if os.geteuid() == 0:
        os.chown(others, 0, 0)
    assert main(words) == 0
    assert (remote_folder / "data").read_bytes() == bytes(first[:1]) + data[1:]
    assert os.listdir(remote_folder) == ["data"]


def test_file_system_without_modes_is_copied_to_over_sftp(
    target: Server,
    remote_folder: Path,
    ssh_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change = Sftp.change

    def refused(sftp: Sftp, path: bytes, **what: int | None) -> Reply:
        return change(sftp, b"/" if what.get("mode") is not None else path, **what)

    monkeypatch.setattr(Sftp, "change", refused)
    monkeypatch.setattr(Sftp, "change_open", lambda sftp, handle, size, mode, time: change(sftp, b"/", mode=mode))
    here, there = tmp_path / "here", remote_folder / "there"
    (here / "folder").mkdir(parents=True)
    (here / "folder/file").write_text("text")
    (here / "folder/file").chmod(0o666)
    (here / "folder").chmod(0o777)
    words = ["sync", "target", f"{here}/", f"remote:{there}", "--sftp", "--ssh-config", str(ssh_config)]
    assert main(words) == 0
    assert tree(there, 0)[b"folder/file"][-1] == b"text"
    assert (there / "folder/file").stat().st_mtime == int((here / "folder/file").stat().st_mtime)
    assert main(words) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "copied 0 files (0 B), 1 unchanged"
    monkeypatch.setattr(Sftp, "change", lambda sftp, path, **what: change(sftp, b"/", mode=0o777))
    assert main(words) == 63
    assert "folder/file: Permission denied" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["no entry", "too long"])
def test_folder_of_which_the_server_does_not_tell_all_keeps_delete_from_deleting(
    kind: str,
    target: Server,
    remote_folder: Path,
    ssh_config: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (remote_folder / "work/sub").mkdir(parents=True)
    (remote_folder / "work/sub/kept").write_text("kept")
    own(target, remote_folder)
    words = ["sync", "target", f"remote:{remote_folder}/work/", f"{tmp_path}/back", "--sftp", "--delete"]
    words += ["--ssh-config", str(ssh_config)]
    assert main(words) == 0
    if kind == "no entry":
        (remote_folder / "work/sub").chmod(0o644)
    else:
        (tmp_path / "back/gone").touch()
        make_deep = (
            "import os, sys\nos.chdir(sys.argv[1])\nfor n in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"
        )
        subprocess.run([sys.executable, "-c", make_deep, str(remote_folder / "work")], check=True)
        own(target, remote_folder)
    capfd.readouterr()
    assert main(words) == 63
    said = capfd.readouterr().err
    assert "nothing was deleted, because not all of the source could be read" in said
    assert ("sub: Permission denied" if kind == "no entry" else "its path is too long for SFTP") in said
    assert (tmp_path / "back/sub/kept").read_text() == "kept"
    subprocess.run(["rm", "-rf", str(remote_folder / "work"), str(tmp_path / "back")], check=True)


def test_change_in_the_second_of_a_pull_over_sftp_is_seen_by_the_next(
    target: Server, remote_folder: Path, ssh_config: Path, tmp_path: Path
) -> None:
    words = ["sync", "target", f"remote:{remote_folder}/data", f"{tmp_path}/", "--sftp"]
    words += ["--ssh-config", str(ssh_config)]
    time.sleep(1 - time.time() % 1)  # so that a quick pull and the change would be in one second
    for text in ("first", "other"):
        (remote_folder / "data").write_text(text)
        own(target, remote_folder)
        assert main(words) == 0
        assert (tmp_path / "data").read_text() == text


@pytest.mark.parametrize("direction", ["there", "here"])
def test_full_disk_is_told_over_sftp_too(
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
    with mounted(full / "disk", "size=1m"):
        (full / "disk/file").write_text("old")
        own(target, remote_folder)
        ends = [f"{tmp_path}/", f"remote:{remote_folder}/"]
        ends = ends if direction == "there" else ends[::-1]
        words = ["sync", "target", f"{ends[0]}file", f"{ends[1]}disk/", "--sftp", "--ssh-config", str(ssh_config)]
        assert main(words) == 62
        assert "there is no room on" in capfd.readouterr().err
        assert (full / "disk/file").read_text() == "old"


@pytest.mark.parametrize(
    ("source", "to", "status", "said"),
    [
        ("remote:missing", "x", 61, "there is no 'missing' on target; it was looked for in '"),
        ("folder", "remote:file", 60, "'file' is not a folder, and the source is one"),
        ("folder/f", "remote:file/", 60, "'file/' is not a folder"),
        ("folder", "remote:/proc/nothing", 60, "cannot make the folder '/proc/nothing/folder'"),
        ("folder", "remote:/etc", 60, "cannot make the folder '/etc/folder': Permission denied"),
        ("remote:file", "folder/f/", 60, "is not a folder"),
        ("remote:~", "folder", 60, "what a remote home is called is not known here; write for example 'remote:~/'"),
    ],
)
def test_bad_input_over_sftp_reads_the_same(
    source: str,
    to: str,
    status: int,
    said: str,
    ssh_config: Path,
    target: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/f").touch()
    path = target.home / "file"
    path.write_text("a file")
    own(target, path)
    monkeypatch.chdir(tmp_path)
    try:
        assert main(["sync", "target", source, to, "--sftp", "--ssh-config", str(ssh_config)]) == status
    finally:
        path.unlink()
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


def test_dry_run_and_workdir_over_sftp(
    remote_folder: Path,
    ssh_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    (tmp_path / "f").write_text("f")
    add = ["add", "behind", "--ssh-config", str(ssh_config), "--no-check", "--name", "One"]
    assert main([*add, "--workdir", f"{remote_folder}/work"]) == 0
    capfd.readouterr()
    assert main(["sync", str(tmp_path / "f"), "remote:sub/", "--sftp", "--dry-run"]) == 0
    assert capfd.readouterr().out == "copy    f\nwould copy 1 file (1 B)\n"
    assert main(["sync", str(tmp_path / "f"), "remote:sub/", "--sftp"]) == 0  # through the jump host
    assert (remote_folder / "work/sub/f").read_text() == "f"
    assert subprocess.run(["ls", "-A", str(remote_folder / "work")], capture_output=True, text=True).stdout == "sub\n"
