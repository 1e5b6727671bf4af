"""The head start at ZMTP's greeting: real ZeroMQ sockets at both ends, and kernels that greet in another way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
import zmq

from remote_kernel.launcher.greeting import FIRST_BYTES, EarlyGreeting
from remote_kernel.link.link import Link, LinkStream, Sink

SECONDS = 20
OLD = b"\xff\0\0\0\0\0\0\0\x01\x7f\x01"  # libzmq 3


class SocketStub(Sink):
    """Note what would go to the front end."""

    def __init__(self) -> None:
        self.came = b""
        self.finished = False

    def deliver(self, data: memoryview) -> None:
        self.came += data

    def finish(self) -> None:
        self.finished = True


class Begun(NamedTuple):
    """A stream with a head start: its end at the front end, the sink behind it, and what `refused` has noted."""

    stream: LinkStream
    front: socket.socket
    sink: SocketStub
    refused: list[bool]

    def say(self, data: bytes) -> None:
        self.stream.sink.deliver(memoryview(data))


@pytest.fixture
def begun() -> Iterator[Begun]:
    """Give a stream with a head start, for which no kernel has answered yet."""
    front, back = socket.socketpair()
    with front, back:
        front.settimeout(SECONDS)
        stream = Link().open("shell")
        stream.sink = sink = SocketStub()
        refused: list[bool] = []
        EarlyGreeting(stream, back, lambda: refused.append(True))
        yield Begun(stream, front, sink, refused)


@pytest.mark.parametrize("step", [1, 10, 11, 30, 64])
def test_first_bytes_go_to_the_front_end_once(begun: Begun, step: int) -> None:
    greeting = FIRST_BYTES + b"\x01NULL" + bytes(48)
    assert begun.front.recv(100) == FIRST_BYTES
    for start in range(0, len(greeting), step):
        begun.say(greeting[start : start + step])
    assert begun.sink.came == greeting[len(FIRST_BYTES) :]
    assert begun.stream.consumed == len(FIRST_BYTES)  # the rest is for the socket's sink to consume
    assert begun.stream.sink is begun.sink
    assert not begun.refused


@pytest.mark.parametrize("padding", [bytes(8), b"\0\0\0\0\0\0\0\x22", b"\xff" * 8])
def test_padding_is_free(begun: Begun, padding: bytes) -> None:
    begun.say(b"\xff" + padding + b"\x7f\x03rest")
    assert begun.sink.came == b"rest"


@pytest.mark.parametrize("step", [1, 64])
@pytest.mark.parametrize("greeting", [OLD + b"more", b"\x01\0", b"\xff\0\0\0\0\0\0\0\x01\x7e\x03", b"HTTP/1.1 200 OK"])
def test_kernel_that_greets_in_another_way_is_closed(begun: Begun, greeting: bytes, step: int) -> None:
    for start in range(0, len(greeting), step):
        begun.say(greeting[start : start + step])
    assert begun.refused == [True]
    assert begun.sink.finished
    assert begun.stream.closing


def test_kernel_that_closes_before_a_word_closes_the_front_end(begun: Begun) -> None:
    begun.stream.sink.finish()
    assert begun.sink.finished


def test_front_end_that_has_gone_is_no_error() -> None:
    front, back = socket.socketpair()
    front.close()
    with back:
        EarlyGreeting(Link().open("shell"), back, lambda: None)


def test_real_peer_greets_in_full_before_the_other_has_spoken_and_messages_pass() -> None:
    with ExitStack() as undo:
        context = undo.enter_context(zmq.Context())
        kernel = undo.enter_context(context.socket(zmq.ROUTER))
        address = ("127.0.0.1", kernel.bind_to_random_port("tcp://127.0.0.1"))
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        front = undo.enter_context(context.socket(zmq.DEALER))
        front.identity = b"a front end"
        for peer in (kernel, front):
            peer.linger = 0
            peer.rcvtimeo = SECONDS * 1000
        front.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        front.send(b"request")
        connection, _ = listener.accept()
        undo.enter_context(connection)
        connection.settimeout(SECONDS)

        stream = Link().open("shell")
        stream.sink = Forward(connection)
        EarlyGreeting(stream, connection, lambda: pytest.fail("libzmq greets otherwise"))
        greeting = b""
        while len(greeting) < 64:  # MSG_WAITALL does not wait on a socket with a timeout
            greeting += connection.recv(64 - len(greeting))
        assert (len(greeting), greeting[12:16]) == (64, b"NULL")

        behind = undo.enter_context(socket.create_connection(address, SECONDS))
        behind.sendall(greeting)
        back = threading.Thread(target=pump, args=(connection, behind))
        back.start()
        undo.callback(back.join, SECONDS)
        undo.callback(connection.shutdown, socket.SHUT_RDWR)
        ahead = threading.Thread(target=read_into, args=(behind, stream))
        ahead.start()
        undo.callback(ahead.join, SECONDS)
        undo.callback(behind.shutdown, socket.SHUT_RDWR)
        assert kernel.recv_multipart() == [b"a front end", b"request"]
        kernel.send_multipart([b"a front end", b"reply"])
        assert front.recv_multipart() == [b"reply"]


class Forward(Sink):
    """Write a stream's bytes to a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def deliver(self, data: memoryview) -> None:
        self._connection.sendall(data)


def pump(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(4096):
        sink.sendall(data)


def read_into(source: socket.socket, stream: LinkStream) -> None:
    source.settimeout(SECONDS)
    while data := source.recv(7):  # the worst of pieces
        stream.sink.deliver(memoryview(data))
