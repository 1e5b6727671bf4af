"""How a launcher tells a front end that leaves a kept kernel, from the bytes of its control channel."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from remote_kernel.jupyter.zmtp import Splitter
from remote_kernel.launcher.shutdown import HOLD_SECONDS, ControlSocket, ShutdownFilter
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import Reactor

KEY = "secret"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
READY = b"\x04\x06\x05READY"


def message(kind: str, content: dict[str, Any] | None = None, key: str = KEY) -> bytes:
    """Give a signed message as ZMTP frames."""
    session = Session(key=key.encode())
    parts = session.serialize(session.msg(kind, content or {}))
    frames = b""
    for at, part in enumerate(parts):
        more = at < len(parts) - 1
        long = len(part) > 255
        head = bytes([more | (2 if long else 0)])
        frames += head + len(part).to_bytes(8 if long else 1, "big") + part
    return frames


class Watched:
    """A control connection with a ShutdownFilter; `passed` is what went on to the kernel."""

    def __init__(self, *, kept: bool) -> None:
        self.reactor = Reactor()
        self.left = 0
        self.filter = ShutdownFilter(self.reactor, self._leave)
        self.filter.kept = kept
        self.near, self.far = socket.socketpair()
        self._stream = Link().open("control")
        self.socket = ControlSocket(self.reactor, self._stream, self.near, lambda _: None, self.filter, {"key": KEY})
        self.socket.take(GREETING + READY)
        self._start = self._stream.end

    def _leave(self) -> None:
        self.left += 1

    @property
    def passed(self) -> bytes:
        return self._stream.spool.read(self._start, 1 << 20)

    def run(self, seconds: float) -> None:
        self.reactor.call_later(seconds, self.reactor.stop)
        self.reactor.run()


@pytest.fixture(params=[True], ids=["kept"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    made = Watched(kept=request.param)
    with made.reactor:
        yield made
    made.near.close()
    made.far.close()


only_plain = pytest.mark.parametrize("watched", [False], indirect=True, ids=["plain"])


@only_plain
def test_everything_passes_at_once_to_a_kernel_that_is_not_kept(watched: Watched) -> None:
    sent = message("interrupt_request") + message("shutdown_request", {"restart": False}) + b"\x00\x03abc"
    watched.socket.take(sent)
    assert (watched.passed, watched.left) == (sent, 0)


def test_front_end_that_closes_a_kept_kernel_leaves_it_undisturbed(watched: Watched) -> None:
    watched.socket.take(message("interrupt_request") + message("shutdown_request", {"restart": False}))
    watched.run(HOLD_SECONDS * 1.5)
    assert (watched.passed, watched.left) == (b"", 1)


def test_interrupt_reaches_a_kept_kernel_a_moment_later_and_in_order(watched: Watched) -> None:
    first, second = message("interrupt_request"), message("debug_request")
    watched.socket.take(first + second)
    assert watched.passed == b""
    watched.run(HOLD_SECONDS * 1.5)
    assert (watched.passed, watched.left) == (first + second, 0)
    watched.socket.take(second)
    assert watched.passed == first + second + second


def test_restart_reaches_a_kept_kernel_at_once(watched: Watched) -> None:
    sent = message("interrupt_request") + message("shutdown_request", {"restart": True})
    watched.socket.take(sent)
    assert (watched.passed, watched.left) == (sent, 0)


def test_front_end_that_wants_a_restart_does_not_spare_a_kept_kernel(watched: Watched) -> None:
    assert watched.filter.spares
    watched.socket.take(message("shutdown_request", {"restart": True}))
    assert not watched.filter.spares
    watched.socket.take(message("shutdown_request", {"restart": False}))
    assert watched.filter.spares, "the kernel did not heed it, and now the front end just closes"


def test_forged_shutdown_makes_nobody_leave(watched: Watched) -> None:
    sent = message("shutdown_request", {"restart": False}, key="guessed")
    watched.socket.take(sent)
    assert (watched.passed, watched.left) == (sent, 0)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_stay_the_same_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    sent = GREETING + READY + b"".join(message("debug_request", {"n": "x" * chance.randrange(600)}) for _ in range(5))
    splitter, found, at = Splitter(), [], 0
    while at < len(sent):
        step = chance.choice([1, 3, 10, 64, 500])
        found += splitter.feed(sent[at : at + step])
        at += step
    assert b"".join(piece.raw for piece in found) == sent
    assert sum(piece.frames is not None for piece in found) == 5


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n" + bytes(range(256)),
        GREETING.replace(b"NULL", b"CURV") + bytes(range(256)),
        GREETING + b"\x48" + bytes(range(256)),
        GREETING + b"\x02\x7f" + bytes(300),
    ],
    ids=["not ZMTP", "encrypted", "unknown flags", "endless"],
)
def test_what_cannot_be_followed_passes_unread(sent: bytes) -> None:
    splitter = Splitter()
    found = splitter.feed(sent[:70]) + splitter.feed(sent[70:])
    assert b"".join(piece.raw for piece in found) == sent
    assert all(piece.frames is None for piece in found)


def test_splitter_understands_what_libzmq_sends() -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, socket.socket() as listener:
        dealer.linger = 0
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        dealer.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        Session(key=KEY.encode()).send(dealer, "shutdown_request", {"restart": False})
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            connection.sendall(GREETING)
            ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"ROUTER"
            connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
            splitter, frames = Splitter(), None
            while frames is None:
                data = connection.recv(4096)
                assert data
                frames = next((piece.frames for piece in splitter.feed(data) if piece.frames), None)
    assert b"shutdown_request" in frames[2]
