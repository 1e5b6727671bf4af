"""Files and ports over paramiko, on every way that kernels take."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from remote_kernel import errors
from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.paramiko_files import remote_files
from remote_kernel.transport.paramiko_ports import forwarded_port
from tests.support.kernels import options_for
from tests.support.servers import Server, free_port, make_key


@pytest.fixture(params=["target", "behind"])
def options(request: pytest.FixtureRequest, target: Server, ssh_config: Path) -> LaunchOptions:
    return options_for(request.param, ssh_config, "", transport="paramiko")


def test_files_go_both_ways_unchanged(options: LaunchOptions, target: Server, remote_folder: Path) -> None:
    data = os.urandom(3 << 20) + b"end"
    path = f"~/{remote_folder.relative_to(target.home)}/a b'ü.bin"
    moved: list[int] = []
    with remote_files(options) as files:
        files.write(path, io.BytesIO(data), 0o640, moved.append)
        files.write(path, io.BytesIO(data), 0o600)  # in place of what is there
        files.set_modified(path, 1_700_000_000)
        found = io.BytesIO()
        files.read(path, found, moved.append)
        (entry,) = files.entries(str(remote_folder))
        files.make_folder(str(remote_folder / "inner"))
        assert files.look_at(str(remote_folder / "inner")).is_folder
        files.remove(str(remote_folder / "inner"))
    assert found.getvalue() == data
    assert (remote_folder / entry.name).read_bytes() == data
    assert (entry.size, entry.modified, entry.mode & 0o777) == (len(data), 1_700_000_000, 0o600)
    assert sum(moved) == 2 * len(data)


def test_file_that_is_not_whole_does_not_take_the_others_place(
    options: LaunchOptions, remote_folder: Path, target: Server
) -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ValueError("torn off")
            return super().read(size)

    path = remote_folder / "file"
    path.write_text("before")
    os.chown(path, target.account.uid, target.account.gid)
    with remote_files(options) as files:
        with pytest.raises(ValueError, match="torn off"):
            files.write(str(path), Torn(bytes(2 << 20)))
        with pytest.raises(FileNotFoundError):
            files.read(str(remote_folder / "none"), io.BytesIO())
        with pytest.raises(PermissionError):
            files.write("/etc/remote_kernel-test", io.BytesIO(b"x"))
    assert path.read_text() == "before"
    assert list(remote_folder.iterdir()) == [path]


@contextmanager
def upper_case_server() -> Iterator[int]:
    """Answer every connection with what it sends, in upper case."""

    def answer(opened: socket.socket) -> None:
        with opened:
            while data := opened.recv(65536):
                opened.sendall(data.upper())

    def serve() -> None:
        while True:
            try:
                opened, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(opened,)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = threading.Thread(target=serve)
        listener.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for thread in (listener, *threads):
        thread.join(10)


def test_port_leads_to_what_the_remote_host_reaches(options: LaunchOptions) -> None:
    with upper_case_server() as there, forwarded_port(options, Endpoint("127.0.0.1", None, there)) as here:
        opened = [socket.create_connection(("127.0.0.1", here), 10) for _ in range(3)]
        for number, one in enumerate(opened):
            one.sendall(b"hello %d" % number)
        for number, one in enumerate(opened):
            assert one.recv(100) == b"HELLO %d" % number
            one.close()


def test_port_that_nothing_answers_behind_is_closed(options: LaunchOptions) -> None:
    with (
        forwarded_port(options, Endpoint("127.0.0.1", None, free_port())) as here,
        closing(socket.create_connection(("127.0.0.1", here), 10)) as opened,
    ):
        assert opened.recv(1) == b""


def test_port_that_is_taken_is_told(options: LaunchOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.PortInUse), forwarded_port(options, Endpoint("127.0.0.1", None, 1), port):
            pass


def test_host_key_is_verified_here_too(
    options: LaunchOptions, tmp_path: Path, target: Server, ssh_config: Path
) -> None:
    make_key(tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[{target.host}]:{target.port} {key}\n")
    path = tmp_path / "config"
    path.write_text(f"UserKnownHostsFile {tmp_path / 'known'}\n{ssh_config.read_text()}")
    with (
        pytest.raises((errors.HostKeyChanged, errors.HostKeyUnknown)),
        remote_files(options._replace(ssh_config=str(path))),
    ):
        pass
