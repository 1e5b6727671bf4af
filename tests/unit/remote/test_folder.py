"""The folders of kernels on the remote host: whose they are, and that nothing else is ever touched."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote_kernel import process
from remote_kernel.remote import attach
from remote_kernel.remote.folder import (
    AGENT_SOCKET,
    NOTE,
    Guard,
    OwnerState,
    find_folders,
    make_folder,
    owner_state,
    remove_folder,
)
from remote_kernel.remote.kernel import StartError
from tests.support.kernels import wait_until

IDENTITY = "0123456789ab"
HERE = os.uname().nodename
COMMON = f"remote_kernel-{os.getuid()}"

OWNER = """
import sys
from remote_kernel.remote.folder import make_folder
print(make_folder(sys.argv[1], sys.argv[2], {}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def chosen() -> Iterator[Path]:
    """Give a folder that somebody has chosen, with a short path and files of their own."""
    path = Path(tempfile.mkdtemp(prefix="rkf-", dir="/tmp"))
    for name in ("top.txt", "data/a.csv", "code/src/m.py", "code/kernel.json", f"{IDENTITY}/notes.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("mine")
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def owner(chosen: Path, identity: str = IDENTITY) -> Iterator[Path]:
    """Have a living process that owns a kernel's folder; it is dead afterwards."""
    command = [sys.executable, "-c", OWNER, str(chosen), identity]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout
        try:
            yield Path(living.stdout.readline().strip())
        finally:
            living.kill()


def ask(chosen: Path, identity: str = "") -> list[dict[str, Any]]:
    answer = attach.ask({"do": "status", "id": identity, "folder": str(chosen)})
    kernels = answer["kernels"]
    assert isinstance(kernels, list)
    return kernels


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def rewrite_note(folder: Path, **changed: str) -> None:
    note = json.loads((folder / NOTE).read_text())
    (folder / NOTE).write_text(json.dumps({**note, **changed}))


def test_what_is_in_a_chosen_folder_stays_as_it_is(chosen: Path) -> None:
    before = contents(chosen)
    folder = make_folder(str(chosen), IDENTITY, {"key": "k"})
    assert chosen.stat().st_mode & 0o777 == 0o755
    assert (chosen / COMMON).stat().st_mode & 0o777 == 0o700
    assert Path(folder) == chosen / COMMON / IDENTITY
    assert ask(chosen) == []
    remove_folder(folder)
    assert ask(chosen) == []
    assert contents(chosen) == before
    assert not (chosen / COMMON).exists()


def test_a_chosen_folder_may_be_a_link(chosen: Path) -> None:
    (chosen / "scratch").symlink_to("data")
    folder = make_folder(str(chosen / "scratch"), IDENTITY, {})
    assert (chosen / "data" / COMMON / IDENTITY).is_dir()
    remove_folder(folder)
    assert os.listdir(chosen / "data") == ["a.csv"]


def test_a_common_folder_that_is_a_link_is_not_used(chosen: Path) -> None:
    (chosen / COMMON).symlink_to("data")
    with pytest.raises(StartError, match="it is not a folder"):
        make_folder(str(chosen), IDENTITY, {})
    assert find_folders(str(chosen), "") == []
    assert os.listdir(chosen / "data") == ["a.csv"]


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away takes root")
def test_a_common_folder_of_somebody_else_is_not_used(chosen: Path) -> None:
    (chosen / COMMON).mkdir()
    os.chown(chosen / COMMON, 65534, -1)
    with pytest.raises(StartError, match="it belongs to somebody else"):
        make_folder(str(chosen), IDENTITY, {})
    assert find_folders(str(chosen), "") == []


def test_foreign_names_in_the_common_folder_are_left_alone(chosen: Path) -> None:
    for name in ("notes", IDENTITY[:-1], f"{IDENTITY}0", "ABCDEF012345", "doctor-x"):
        (chosen / COMMON / name).mkdir(parents=True)
    (chosen / COMMON / "fedcba987654").symlink_to(chosen / "data")
    assert find_folders(str(chosen), "") == []
    ask(chosen)
    assert len(os.listdir(chosen / COMMON)) == 6


def test_a_foreign_file_in_a_kernels_folder_stays(chosen: Path) -> None:
    with owner(chosen) as folder:
        (folder / "results.csv").write_text("mine")
    ask(chosen)
    assert os.listdir(folder) == ["results.csv"]


def test_an_agent_that_does_not_listen_yet_keeps_its_folder(chosen: Path) -> None:
    with owner(chosen) as folder:
        assert ask(chosen) == []
        assert sorted(os.listdir(folder)) == ["kernel.json", "owner"]


def test_a_folder_without_a_note_is_being_made(chosen: Path) -> None:
    folder = chosen / COMMON / IDENTITY
    folder.mkdir(parents=True)
    ask(chosen)
    assert folder.exists()
    (folder / NOTE).touch()
    ask(chosen)
    assert folder.exists()
    os.utime(folder, (time.time() - 7200,) * 2)
    ask(chosen)
    assert not folder.exists()


@pytest.mark.parametrize("identity", [IDENTITY, "doctor-4711"])
def test_what_a_killed_agent_left_is_cleaned_up(chosen: Path, identity: str) -> None:
    with owner(chosen, identity) as folder:
        for name in ("a", "k-1", "k-5"):
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(folder / name))
    assert owner_state(str(folder)) is OwnerState.ABANDONED
    assert ask(chosen) == []
    assert not (chosen / COMMON).exists()


def test_a_folder_of_another_host_is_left_to_it(chosen: Path) -> None:
    with owner(chosen) as folder:
        pass
    rewrite_note(folder, host="login2 0123")
    assert ask(chosen) == []
    assert folder.exists()
    told = attach.attach({"link": "l", "resume": False, "id": IDENTITY, "folder": str(chosen)}, "marker")
    assert told
    assert told["error"] == "RemoteError"  # and not KernelGone, on which a launcher gives up
    assert "login2" in str(told["message"])
    (said,) = ask(chosen, IDENTITY)  # who wants to end it has not done so
    assert said["unreadable"] == "it is on login2"


@pytest.mark.parametrize("said", ["", "[]", '{"id": "x"}', '{"pid": ["x"]}', "[" * 20000], ids=lambda said: said[:20])
def test_an_agent_that_answers_in_another_form_is_named_and_hides_no_other(chosen: Path, said: str) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 10)
            connection.sendall(said.encode())

    with owner(chosen) as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / AGENT_SOCKET))
        listener.listen()
        agent = threading.Thread(target=answer)
        agent.start()
        assert [told["id"] for told in ask(chosen)] == [IDENTITY]
        agent.join()


@pytest.mark.parametrize(("host", "error"), [("login2", "RemoteError"), (HERE, "KernelGone"), ("", "KernelGone")])
def test_a_kernel_that_was_started_elsewhere_is_not_gone(chosen: Path, host: str, error: str) -> None:
    # An alias that leads to another host now, or a name that leads to several.
    settings = {"link": "l", "resume": False, "id": IDENTITY, "folder": str(chosen), "host": host}
    told = attach.attach(settings, "marker")
    assert told
    assert told["error"] == error
    assert error == "KernelGone" or f"was started on login2, and this is {HERE}" in str(told["message"])


def test_a_folder_from_before_a_restart_of_the_host_is_cleaned_up(chosen: Path) -> None:
    with owner(chosen) as folder:
        pass
    rewrite_note(folder, boot="another", pid="1", born=process.birth(1))
    ask(chosen)
    assert not folder.exists()


def test_a_lock_counts_where_the_process_cannot_be_seen(chosen: Path) -> None:
    # As from another container of the same name, on the same host.
    with owner(chosen) as folder:
        rewrite_note(folder, pid="999999999")
        assert owner_state(str(folder)) is OwnerState.HELD
    assert owner_state(str(folder)) is OwnerState.ABANDONED


def test_a_process_counts_where_there_are_no_locks(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_fd: int, _how: int) -> None:
        raise OSError(95, "Operation not supported")

    with owner(chosen) as folder:
        monkeypatch.setattr(fcntl, "flock", unsupported)
        assert owner_state(str(folder)) is OwnerState.HELD
        rewrite_note(folder, born="1")
        assert owner_state(str(folder)) is OwnerState.ABANDONED


def test_attaching_waits_for_an_agent_that_is_just_starting(chosen: Path) -> None:
    late = "import time; time.sleep(0.3)\nimport socket\ns = socket.socket(socket.AF_UNIX)\n"
    late += "s.bind(folder + '/a'); s.listen(); c = s.accept()[0]; c.recv(9999); c.sendall(b'{\"error\": \"here\"}')\n"
    code = OWNER.replace("sys.stdin.read()\n", late).replace("print(make", "print(folder := make")
    with subprocess.Popen([sys.executable, "-c", code, chosen, IDENTITY], stdout=subprocess.PIPE) as living:
        assert living.stdout
        living.stdout.readline()
        told = attach.attach({"link": "l", "resume": False, "id": IDENTITY, "folder": str(chosen)}, "marker")
    assert told == {"error": "here"}


def test_making_a_folder_survives_the_end_of_the_last_kernel(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir
    tries = []

    def late(path: str, mode: int = 0o777) -> None:
        if str(path).endswith(IDENTITY) and not tries:
            tries.append(path)
            os.rmdir(os.path.dirname(path))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", late)
    remove_folder(make_folder(str(chosen), IDENTITY, {}))
    assert tries


def test_starts_of_a_machine_are_told_apart() -> None:
    assert process.boot()
    assert process.is_same_boot(process.boot(), process.boot())
    assert process.is_same_boot("1700000000", "1700000001")
    assert not process.is_same_boot("1700000000", "1700009000")
    assert not process.is_same_boot("6c5f2a", "1700009000")


@pytest.mark.parametrize(("number", "killed"), [(None, True), (0, False)], ids=["lives", "has ended"])
def test_a_killed_agents_guard_ends_the_kernel_unless_that_has_ended(
    chosen: Path, number: int | None, killed: bool
) -> None:
    """The number of a kernel that has ended may be another session's by now, as the one of this sleep."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as other:
        code = (
            "import os, sys\nfrom remote_kernel.remote.folder import Guard, make_folder\n"
            f"guard = Guard(make_folder({str(chosen)!r}, {IDENTITY.replace('0', '1')!r}, {{}}))\n"
            f"guard.watch({other.pid})\nif {number!r} is not None: guard.watch({number!r})\nprint(guard.pid)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
        assert wait_until(lambda: not process.is_alive(int(done.stdout)))
        try:
            assert (other.poll() is not None) == killed
        finally:
            other.kill()


def test_an_agent_whose_guard_was_killed_goes_on(chosen: Path) -> None:
    guard = Guard(str(chosen))
    os.kill(guard.pid, signal.SIGKILL)
    os.waitpid(guard.pid, 0)
    guard.watch(12345)
    guard.stop()
