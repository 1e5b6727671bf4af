"""Connections that come in, where descriptors are short and where the other end is gone already."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from remote_kernel.launcher.forward import Ports
from remote_kernel.link.link import Link, LinkStream
from remote_kernel.link.reactor import Reactor
from remote_kernel.link.sockets import connect_socket, serve
from remote_kernel.options import Forward
from remote_kernel.remote.tunnel import Tunnels


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as running:
        yield running


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection be reset already, as macOS tells it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)


def run(reactor: Reactor, seconds: float = 20.0) -> None:
    timer = reactor.call_later(seconds, reactor.stop)
    reactor.run()
    timer.cancel()


def test_no_descriptor_for_a_connection_is_waited_out(
    reactor: Reactor, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    accept = socket.socket.accept

    def short(self: socket.socket) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", short)
    monkeypatch.setattr("remote_kernel.link.sockets.PAUSE_SECONDS", 0.1)
    taken: list[socket.socket] = []

    def accepted(connection: socket.socket) -> None:
        taken.append(connection)
        reactor.stop()

    serve(reactor, listener, accepted)
    with socket.create_connection(listener.getsockname(), 5):
        run(reactor)
    assert len(taken) == 1
    assert len(tries) == 3  # and not as often as the processor can
    taken[0].close()


def test_a_listener_that_is_closed_meanwhile_stays_closed(
    reactor: Reactor, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(_: socket.socket) -> object:
        reactor.call_later(0, listener.close)
        raise OSError(errno.EMFILE, "Too many open files")

    taken: list[socket.socket] = []
    monkeypatch.setattr(socket.socket, "accept", short)
    monkeypatch.setattr("remote_kernel.link.sockets.PAUSE_SECONDS", 0.05)
    serve(reactor, listener, taken.append)
    with socket.create_connection(listener.getsockname(), 5):
        run(reactor, 0.2)
    assert listener.fileno() == -1
    assert not taken


def test_a_connection_that_was_reset_already_ends_nobody(reset: None, reactor: Reactor) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()
        connection = connect_socket(address, socket.AF_INET)
        assert connection
        connection.close()
        tunnels, stream = Tunnels(reactor), LinkStream(Link(), 16, f"tcp:{address[1]}")
        tunnels.opened(stream)
        assert not stream.closing
        tunnels.close()


def test_a_forwarded_connection_that_was_reset_already_ends_nobody(
    reactor: Reactor, listener: socket.socket, request: pytest.FixtureRequest
) -> None:
    port: int = listener.getsockname()[1]
    listener.close()
    opened: list[str] = []
    ports, link = Ports(reactor), Link()

    def near() -> Link:
        opened.append("x")
        reactor.call_later(0, reactor.stop)
        return link

    ports.listen(Forward(port, 2), near)
    request.getfixturevalue("reset")
    with socket.create_connection(("127.0.0.1", port), 5):
        run(reactor)
    assert opened
    ports.close()


def test_a_port_that_stays_taken_is_waited_for_once_at_a_time(
    reactor: Reactor, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote_kernel.launcher.forward.AGAIN_SECONDS", 0.01)
    ports = Ports(reactor)
    told: list[str] = []
    ports.listen_when_free(Forward(listener.getsockname()[1], 1), Link, told.append)
    run(reactor, 0.2)
    assert len(told) == 1
    assert len(ports._waiting) == 1
    ports.close()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def test_full_queue_of_a_stopped_kernel_is_no_connection(tmp_path: Path, family: int) -> None:
    with socket.socket(family) as listener, ExitStack() as undo:
        listener.bind(str(tmp_path / "s") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen(0)
        begun = time.monotonic()
        for _ in range(10):
            connection = connect_socket(listener.getsockname(), family)
            if connection is None:
                break
            undo.enter_context(connection)
        assert connection is None
        assert time.monotonic() - begun < 20


def test_tunnel_to_a_busy_program_is_made_while_all_else_goes_on(reactor: Reactor) -> None:
    """Such as a server in the kernel, whose queue is full while a cell computes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as undo:
        listener.settimeout(20)
        address = listener.getsockname()
        for _ in range(4):
            waiting = undo.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        tunnels, stream = Tunnels(reactor), LinkStream(Link(), 16, f"tcp:{address[1]}")
        tunnels.opened(stream)  # which would wait for ever if it waited: nobody accepts yet
        stream.sink.deliver(memoryview(b"hello"))
        heard: list[bytes] = []

        def serve_all() -> None:
            while b"hello" not in heard:
                connection = undo.enter_context(listener.accept()[0])
                connection.settimeout(0.2)
                with suppress(TimeoutError):
                    heard.append(connection.recv(10))

        def look() -> None:
            if heard:
                reactor.stop()
            reactor.call_later(0.02, look)

        look()
        server = threading.Thread(target=serve_all, daemon=True)
        server.start()
        run(reactor)
        server.join(20)
        assert heard == [b"hello"] and stream.consumed == 5
        tunnels.close()


def test_tunnel_to_where_nobody_listens_is_closed(reactor: Reactor, listener: socket.socket) -> None:
    port: int = listener.getsockname()[1]
    listener.close()
    for channel in (f"tcp:{port}", "tcp:0", "tcp:x", "tcp:70000"):
        stream = LinkStream(Link(), 16, channel)
        Tunnels(reactor).opened(stream)
        run(reactor, 0.1)
        assert stream.closing
