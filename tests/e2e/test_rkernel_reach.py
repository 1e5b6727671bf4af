"""A session whose socket or folder is removed, or whose clients look elsewhere: they find it, or hear what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.isolation import Isolation
from tests.support.kernels import wait_until
from tests.support.rkernel import Patched, Rkernel, finish
from tests.support.servers import is_alive, wait_ended

COUNT = """\
import time
for i in range({}):
    print('line', i, flush=True)
    time.sleep(.1)
"""


@pytest.fixture
def login(isolation: Isolation) -> Iterator[Path]:
    """Yield a short XDG_RUNTIME_DIR of the test's own, as logind makes one at login."""
    folder = Path(tempfile.mkdtemp(dir=isolation.runtime))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_session_is_found_whatever_runtime_folder_its_client_has(alone: Rkernel, login: Path) -> None:
    alone.open()
    alone.exec("x = 41")
    for elsewhere in (str(login), "", "/no/such/folder"):
        begun = time.monotonic()
        assert Rkernel(alone.folder, XDG_RUNTIME_DIR=elsewhere).exec("x + 1").out == "42\n"
        assert time.monotonic() - begun < 5
    assert len(alone.hosts()) == 1


def test_host_listens_again_when_its_user_has_logged_out(
    tmp_path: Path, login: Path, allowed_to_stay: set[int]
) -> None:
    session = Rkernel(tmp_path, XDG_RUNTIME_DIR=str(login))
    try:
        session.open()
        session.exec("x = 41")
        host, kernel = session.host(), session.kernel()
        for _ in range(2):
            shutil.rmtree(login, ignore_errors=True)
            _socket(session).unlink(missing_ok=True)
            begun = time.monotonic()
            assert session.exec("x + 1").out == "42\n"
            assert time.monotonic() - begun < 10
        assert (session.host(), session.kernel()) == (host, kernel)
        path = _socket(session)
        assert not path.is_relative_to(login)
        session.close()
        assert not path.exists()
    finally:
        session.end()


@pytest.mark.parametrize("version", ["this", "an older"])
def test_host_that_cannot_be_reached_is_told_with_what_to_do(alone: Rkernel, version: str) -> None:
    alone.open()
    alone.exec("x = 41")
    host = alone.host()
    host.suspend()  # so that it does not listen again
    _socket(alone).unlink()
    if version == "an older":
        path = alone.place("host.lock")
        path.write_text(path.read_text().partition("\n")[0])
        os.utime(path, (0, 0))  # written when it began
    impatient = Patched(
        alone.folder, "from remote_kernel.session import host_process; host_process._UNREACHABLE_SECONDS = 0.5"
    )
    said = impatient.exec("x + 1", seconds=15)
    assert said.status == 6
    assert "lives, and cannot be reached" in said.err
    assert "'rkernel refresh work' replaces it; the kernel lives on" in said.err
    assert impatient("refresh").status == 0
    assert not is_alive(host)
    assert alone.exec("x + 1").out == "42\n"


def test_folder_that_was_removed_is_there_again_with_the_cell_that_runs(alone: Rkernel) -> None:
    alone.open()
    alone.exec("x = 41")
    command = alone.start("exec", "-c", COUNT.format(40))
    number = alone.wait_running("line 2\n")
    host, kernel = alone.host(), alone.kernel()
    shutil.rmtree(alone.runtime)
    assert wait_until(lambda: alone.place("session.json").exists())
    whole = "".join(f"line {i}\n" for i in range(40))
    assert finish(command)[:2] == (0, whole)
    assert alone("wait", number).out == whole
    said = alone("wait", "2")
    assert said.status == 1
    assert "what cell 2 gave is gone" in said.err
    assert alone.exec("x + 1").out == "42\n"
    assert (alone.host(), alone.kernel()) == (host, kernel)
    host.kill()
    wait_ended([host])
    assert alone.exec("x + 1").out == "42\n"  # by the next host
    assert alone.kernel() == kernel


def test_host_whose_name_another_session_has_got_ends_with_its_kernel(alone: Rkernel) -> None:
    alone.open()
    host, kernel = alone.host(), alone.kernel()
    host.suspend()
    _socket(alone).unlink()
    shutil.rmtree(alone.place())
    alone.open()
    alone.exec("x = 41")
    host.resume()
    wait_ended([host, kernel], 30)
    assert alone.status()["state"] == "idle"
    assert alone.exec("x + 1").out == "42\n"


def test_client_that_sends_no_request_is_let_go_of(shared: Rkernel) -> None:
    path = str(_socket(shared))
    for junk in (b"\x00\x00\x00\x0c\x00\x00\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"{}\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(path)
            client.sendall(junk)
            answer = client.makefile("rb").read()
        assert b"problem" in answer
        assert b"unexpected" not in answer
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        client.sendall(b"{")
        assert client.recv(1) == b""
    assert shared.exec("6 * 7").out == "42\n"


def test_cell_that_is_too_long_is_refused_and_takes_no_memory(shared: Rkernel, tmp_path: Path) -> None:
    shared.exec("0")
    host = shared.host()
    before = host.memory_info().rss
    path = tmp_path / "long.py"
    path.write_text("#" * (70 << 20))
    said = shared("exec", "--file", str(path))
    assert said.status == 2
    assert "a cell has 64 MB at most" in said.err
    assert "remote_kernel sync" in said.err
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(_socket(shared)))
        client.sendall(b'{"do": "')
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                client.sendall(b"x" * (1 << 20))
        assert b"64 MB at most" in client.recv(1 << 16)
    assert wait_until(lambda: host.memory_info().rss < before + 20_000_000, 10), host.memory_info().rss
    assert shared.exec("6 * 7").out == "42\n"


def _socket(rkernel: Rkernel) -> Path:
    """Return where the session's host listens."""
    return Path(rkernel.place("host.lock").read_text().splitlines()[1])
