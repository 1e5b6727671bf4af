"""What it costs to keep every byte until it is acknowledged: the Link beside the same Link that forgets it.

Both through a real ssh, as `ssh host cat`, between two processes here.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

from remote_kernel.link import link as link_module
from remote_kernel.link.link import CONTROL, Link, LinkStream, Sink
from remote_kernel.link.reactor import Pipe, Reactor
from remote_kernel.transport import openssh
from tests.bench.world import Row, World, medians

BLOCK = bytes(256 << 10)
BLOCKS = 1600  # 400 MiB
ROUND_TRIPS = 3000


class Count(Sink):
    """The far end: count bytes; answer each message on the control stream with itself."""

    def __init__(self, stream: LinkStream) -> None:
        self._stream = stream
        stream.sink = self

    def deliver(self, data: memoryview) -> None:
        """Take bytes, and send those of the control stream back."""
        if self._stream.id == CONTROL:
            self._stream.write(bytes(data))
        self._stream.consume(len(data))


class Source(Sink):
    """The near end of the bulk stream: write as fast as the stream has room, then close."""

    def __init__(self, stream: LinkStream, done: Callable[[], None]) -> None:
        self._stream, self._done, self._left = stream, done, BLOCKS
        stream.sink = self

    def room(self) -> None:
        """Write until the stream is full or all is written."""
        while self._left and not self._stream.full:
            self._left -= 1
            self._stream.write(BLOCK)
        if not self._left:
            self._stream.close()


class Asker(Sink):
    """The near end of the control stream: one message at a time, and how long its answer takes."""

    def __init__(self, stream: LinkStream, done: Callable[[], None]) -> None:
        self._stream, self._done = stream, done
        self.seconds: list[float] = []
        stream.sink = self
        self.ask()

    def ask(self) -> None:
        """Send the next message."""
        self._asked = time.perf_counter()
        self._stream.write(b"x" * 200)

    def deliver(self, data: memoryview) -> None:
        """Take the answer."""
        self.seconds.append(time.perf_counter() - self._asked)
        self._stream.consume(len(data))
        if len(self.seconds) < ROUND_TRIPS:
            self.ask()
        else:
            self._done()


@contextlib.contextmanager
def forgetful() -> Iterator[None]:
    """Let a Link keep nothing that it has sent, and acknowledge nothing."""
    piece, count, seconds = LinkStream.piece, link_module.ACK_BYTES, link_module.ACK_SECONDS

    def forget(stream: LinkStream) -> bytes:
        data = bytes(piece(stream))
        stream.spool.release(stream.sent)
        stream._link._note_room(stream)
        return data

    LinkStream.piece = forget  # type: ignore[method-assign, assignment]
    link_module.ACK_BYTES, link_module.ACK_SECONDS = 1 << 62, 1e9
    try:
        yield
    finally:
        LinkStream.piece = piece  # type: ignore[method-assign]
        link_module.ACK_BYTES, link_module.ACK_SECONDS = count, seconds


def run(world: World, near: Callable[[Reactor, Link], object], keep: bool) -> None:
    """Join two Links in two processes by ssh one way and a pipe the other, and serve until the near end stops."""
    with contextlib.ExitStack() as undo:
        if not keep:
            undo.enter_context(forgetful())
        here_in, there_out = os.pipe()
        argv = openssh.ssh_argv(world.options("target"), "cat")
        ssh = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert ssh.stdin
        assert ssh.stdout
        here_out, there_in = os.dup(ssh.stdin.fileno()), os.dup(ssh.stdout.fileno())
        undo.callback(ssh.wait, 20)
        ssh.stdin.close()
        ssh.stdout.close()
        child = os.fork()
        if not child:
            os.close(here_in)
            os.close(here_out)
            far = Link(Count)
            Count(far.streams[CONTROL])
            with Reactor() as reactor:
                Pipe(reactor, far, there_in, there_out, lambda reason: reactor.stop()).start()
                reactor.run()
            os._exit(0)
        os.close(there_in)
        os.close(there_out)
        link = Link()
        with Reactor() as reactor:
            pipe = Pipe(reactor, link, here_in, here_out, lambda reason: reactor.stop())
            pipe.start()
            near(reactor, link)
            reactor.run()
            pipe.close()
        os.waitpid(child, 0)


def bulk_seconds(world: World, keep: bool) -> float:
    """Time a big stream, to the acknowledgement of its close."""

    def near(reactor: Reactor, link: Link) -> None:
        stream = link.open("iopub")
        Source(stream, reactor.stop).room()

        def look(_: float) -> float:
            if stream.id not in link.streams:
                reactor.stop()
            return float("inf")

        reactor.before_wait.append(look)

    begin = time.perf_counter()
    run(world, near, keep)
    return time.perf_counter() - begin


def round_trip_seconds(world: World, keep: bool) -> float:
    """Give the median of many round trips of a small message."""
    found: list[Asker] = []
    run(world, lambda reactor, link: found.append(Asker(link.streams[CONTROL], reactor.stop)), keep)
    return statistics.median(found[0].seconds)


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure throughput and round trip, keeping and forgetting."""
    keep, forget = medians(runs, lambda: bulk_seconds(world, True), lambda: bulk_seconds(world, False))
    size = BLOCKS * len(BLOCK) / 1e6
    yield Row("throughput, beside no resending", size / keep, size / forget, 0.95 * size / forget, "MB/s", least=True)
    keep, forget = medians(runs, lambda: round_trip_seconds(world, True), lambda: round_trip_seconds(world, False))
    yield Row("round trip, beside no resending", keep * 1e6, forget * 1e6, forget * 1e6 / 0.95, "us")
