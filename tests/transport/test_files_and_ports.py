"""Ports over paramiko, on every way that kernels take."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from remote_kernel import errors
from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.paramiko_ports import forwarded_port
from tests.support.kernels import options_for
from tests.support.servers import Server, free_port, make_key


@pytest.fixture(params=["target", "behind"])
def options(request: pytest.FixtureRequest, target: Server, ssh_config: Path) -> LaunchOptions:
    return options_for(request.param, ssh_config, "", transport="paramiko")


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
        forwarded_port(options._replace(ssh_config=str(path)), Endpoint("127.0.0.1", None, 1)),
    ):
        pass
