"""The reactor with real pipes, sockets, timers and signals. No pytest in here: far/ runs this under every Python."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from unittest import TestCase

from remote_kernel.link import link as link_module
from remote_kernel.link.link import Link, Sink
from remote_kernel.link.reactor import READ, Pipe, Reactor, SocketSink
from remote_kernel.link.sockets import connect_socket
from tests.unit.remote.two_links import frame, sizes

raises = TestCase().assertRaises


def run(reactor, seconds=10.0):
    """Serve until something calls `stop`; fail when nothing does."""
    late = []
    timer = reactor.call_later(seconds, lambda: (late.append(True), reactor.stop()))
    reactor.run()
    timer.cancel()
    assert not late, "nothing happened"


def ask(reactor, condition):
    """Serve until a condition holds, looked at before each wait."""

    def look(now):
        if condition():
            reactor.stop()
        return float("inf")

    reactor.before_wait.append(look)
    run(reactor)
    reactor.before_wait.remove(look)


# -- timers, signals, descriptors


def test_timers_run_in_order_and_cancelled_ones_do_not():
    with Reactor() as reactor:
        order = []
        reactor.call_later(0.02, lambda: order.append("late"))
        reactor.call_later(0.0, lambda: order.append("soon"))
        reactor.call_later(0.01, lambda: order.append("never")).cancel()
        reactor.call_later(0.03, reactor.stop)
        run(reactor)
    assert order == ["soon", "late"]


def test_cancelled_timer_does_not_wake_the_loop():
    with Reactor() as reactor:
        reactor.call_later(0.01, lambda: None).cancel()
        reactor.call_later(0.2, reactor.stop)
        rounds = []
        reactor.before_wait.append(lambda now: rounds.append(now) or float("inf"))
        run(reactor)
    assert len(rounds) <= 3


def test_signals_are_called_from_the_loop_and_given_back_afterwards():
    before = signal.getsignal(signal.SIGUSR1)
    with Reactor() as reactor:
        heard = []
        reactor.on_signal(signal.SIGUSR1, lambda: (heard.append(sys._getframe(1).f_code.co_name), reactor.stop()))
        os.kill(os.getpid(), signal.SIGUSR1)
        run(reactor)
        assert heard == ["_take_signals"]
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_signal_interrupts_a_wait_without_a_timeout():
    with Reactor() as reactor:
        reactor.on_signal(signal.SIGUSR1, reactor.stop)
        kill = f"import os, signal, time; time.sleep(0.1); os.kill({os.getpid()}, signal.SIGUSR1)"
        child = subprocess.Popen([sys.executable, "-S", "-c", kill])
        run(reactor)
        child.wait()


def test_callback_may_unwatch_another_descriptor_of_the_same_round():
    with Reactor() as reactor, pipes(2) as (one, two):
        called = []

        def first_come(mine, other):
            called.append(mine)
            reactor.watch(other, 0, print)
            reactor.stop()

        reactor.watch(one[0], READ, lambda _: first_come(one[0], two[0]))
        reactor.watch(two[0], READ, lambda _: first_come(two[0], one[0]))
        os.write(one[1], b"x")
        os.write(two[1], b"x")
        run(reactor)
        assert len(called) == 1


@contextmanager
def pipes(count):
    """Give pairs of descriptors (read, write) and close what is left of them."""
    pairs = [os.pipe() for _ in range(count)]
    try:
        yield pairs
    finally:
        for fd in (fd for pair in pairs for fd in pair):
            try:
                os.close(fd)
            except OSError:
                pass


# -- pipes and sockets


class Joined:
    """A launcher's and an agent's Link in one reactor, joined by two real pipes; streams end in socket pairs."""

    def __init__(self, undo):
        self.undo = undo
        self.reactor = undo.enter_context(Reactor())
        self.launcher, self.agent = Link(), Link(self._opened)
        self.ended = []
        self.far = []
        self.sinks = []
        self.closed = []
        self.connect()

    def connect(self):
        """Join them by new pipes."""
        down, up = os.pipe(), os.pipe()
        self.pipes = [
            Pipe(self.reactor, self.launcher, up[0], down[1], lambda why: self._ended(0, why)),
            Pipe(self.reactor, self.agent, down[0], up[1], lambda why: self._ended(1, why)),
        ]
        for pipe in self.pipes:
            pipe.start()
            self.undo.callback(pipe.close)

    def _ended(self, side, why):
        self.ended.append((side, why))
        self.pipes[side].close()

    def socket_pair(self, stream):
        """Join a stream to one socket, give the other."""
        mine, theirs = socket.socketpair()
        self.undo.callback(theirs.close)
        self.undo.callback(mine.close)
        theirs.settimeout(10)
        self.sinks.append(SocketSink(self.reactor, stream, mine, self.closed.append))
        return theirs

    def _opened(self, stream):
        self.far.append(self.socket_pair(stream))

    def open(self, channel="shell"):
        """Open a stream and give both its ends: a front end's socket and a kernel's."""
        here, count = self.socket_pair(self.launcher.open(channel)), len(self.far)
        ask(self.reactor, lambda: len(self.far) > count)
        return here, self.far[-1]

    def gone(self):
        """Tell whether no stream is left."""
        return list(self.launcher.streams) == list(self.agent.streams) == [0, 1, 2]


def read_from(reactor, connection, size):
    """Serve while reading that many bytes from a socket."""
    got = bytearray()

    def readable(_):
        data = connection.recv(1 << 16)
        got.extend(data)
        if len(got) >= size or not data:
            reactor.watch(connection.fileno(), 0, readable)
            reactor.stop()

    reactor.watch(connection.fileno(), READ, readable)
    run(reactor)
    return bytes(got)


def test_bytes_go_through_sockets_both_ways():
    with ExitStack() as undo:
        joined = Joined(undo)
        front, kernel = joined.open()
        front.sendall(b"request")
        assert read_from(joined.reactor, kernel, 7) == b"request"
        kernel.sendall(b"reply")
        assert read_from(joined.reactor, front, 5) == b"reply"


def test_closing_a_socket_closes_the_other_after_its_last_byte():
    with ExitStack() as undo:
        joined = Joined(undo)
        front, kernel = joined.open()
        front.sendall(bytes(100000))
        front.close()
        assert len(read_from(joined.reactor, kernel, 100001)) == 100000
        ask(joined.reactor, joined.gone)
        assert len(joined.closed) == 2


def test_what_a_kernel_sent_before_it_ended_arrives_though_a_request_came_too_late_for_it():
    with ExitStack() as undo:
        joined = Joined(undo)
        front, kernel = joined.open()
        kernel.sendall(b"last words")
        kernel.close()
        joined.sinks[-1].deliver(memoryview(b"request"))
        assert read_from(joined.reactor, front, 10) == b"last words"


def test_slow_reader_stops_its_writer_and_no_one_else():
    with ExitStack() as undo:
        undo.enter_context(sizes(WINDOW=100000, FRAME_BYTES=5000, ACK_BYTES=20000))
        joined = Joined(undo)
        front, kernel = joined.open("iopub")
        kernel.setblocking(False)
        sent = 0
        data = bytes(range(256)) * 4096

        def more(now):
            nonlocal sent
            try:
                sent += kernel.send(data[sent % 256 :])
            except BlockingIOError:
                pass
            return now + 0.01

        joined.reactor.before_wait.append(more)
        joined.reactor.call_later(0.5, joined.reactor.stop)
        run(joined.reactor)
        stopped_at = sent
        joined.reactor.call_later(0.2, joined.reactor.stop)
        run(joined.reactor)
        assert sent == stopped_at, "the writer was never stopped"
        other, echo = joined.open("hb")
        echo.sendall(b"beat")
        assert read_from(joined.reactor, other, 4) == b"beat"
        joined.reactor.before_wait.remove(more)
        got = read_from(joined.reactor, front, stopped_at)
        assert got == (data * (stopped_at // len(data) + 1))[:stopped_at]


def test_new_pipe_goes_on_where_the_old_one_broke():
    with ExitStack() as undo:
        joined = Joined(undo)
        front, kernel = joined.open()
        front.sendall(b"before")
        assert read_from(joined.reactor, kernel, 6) == b"before"
        joined.pipes[0].close()
        ask(joined.reactor, lambda: joined.ended == [(1, "")])
        front.sendall(b" after")
        kernel.sendall(b"meanwhile")
        joined.connect()
        assert read_from(joined.reactor, kernel, 6) == b" after"
        assert read_from(joined.reactor, front, 9) == b"meanwhile"


def test_pipe_tells_of_a_broken_output():
    with ExitStack() as undo:
        reactor = undo.enter_context(Reactor())
        ((reading, _), (far, output)) = undo.enter_context(pipes(2))
        ended = []
        pipe = Pipe(reactor, Link(), os.dup(reading), os.dup(output), ended.append)
        os.close(far)
        pipe.start()
        ask(reactor, lambda: bool(ended))
        pipe.close()
        assert len(ended) == 1
        assert "Broken pipe" in ended[0]


def test_pipe_tells_of_garbage():
    with ExitStack() as undo:
        reactor = undo.enter_context(Reactor())
        ((reading, writing), (_, output)) = undo.enter_context(pipes(2))
        ended = []
        pipe = Pipe(reactor, Link(), os.dup(reading), os.dup(output), ended.append)
        pipe.start()
        os.write(writing, frame(9))
        ask(reactor, lambda: bool(ended))
        pipe.close()
        assert ended == ["no frame of this protocol: kind 9, 0 bytes"]


def test_pipe_tells_of_silence():
    with ExitStack() as undo:
        undo.enter_context(sizes(GREETING_SECONDS=0.2, PING_SECONDS=0.05))
        reactor = undo.enter_context(Reactor())
        ((reading, _), (_, output)) = undo.enter_context(pipes(2))
        ended = []
        pipe = Pipe(reactor, Link(), os.dup(reading), os.dup(output), ended.append)
        pipe.start()
        started = time.monotonic()
        ask(reactor, lambda: bool(ended))
        pipe.close()
        assert ended == ["no sign of life"]
        assert 0.15 < time.monotonic() - started < 2


def test_blocked_pipe_sleeps():
    # A pipe that nobody reads, more to write than it takes, and the time for a ping long past.
    with ExitStack() as undo:
        undo.enter_context(sizes(PING_SECONDS=0.05))
        reactor = undo.enter_context(Reactor())
        ((reading, _), (_, output)) = undo.enter_context(pipes(2))
        link = Link()
        link.open("shell").write(bytes(2 << 20))
        pipe = Pipe(reactor, link, os.dup(reading), os.dup(output), lambda why: None)
        pipe.start()
        rounds = []
        reactor.before_wait.append(lambda now: rounds.append(now) or float("inf"))
        reactor.call_later(0.5, reactor.stop)
        run(reactor)
        pipe.close()
        assert len(rounds) < 50


def test_first_bytes_go_before_the_links():
    with Reactor() as reactor, pipes(2) as ((reading, _), (far, output)):
        pipe = Pipe(reactor, Link(), os.dup(reading), os.dup(output), lambda why: None)
        pipe.start(b"program")
        reactor.call_later(0.01, reactor.stop)
        run(reactor)
        data = os.read(far, 4096)
        assert data.startswith(b"program\x01")
        pipe.close()
        pipe.close()


def test_connect_socket_gives_none_while_nobody_listens():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()
        assert connect_socket(address, socket.AF_INET) is None
        reserved.listen(1)
        connection = connect_socket(address, socket.AF_INET)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()
    assert connect_socket("/tmp/remote_kernel-no-such-socket", socket.AF_UNIX) is None
    with raises(OSError):
        connect_socket("/tmp/" + "x" * 200, socket.AF_UNIX)


class Count(Sink):
    """Count what arrives."""

    def __init__(self, stream):
        self.stream, self.size = stream, 0
        stream.sink = self

    def deliver(self, data):
        self.size += len(data)
        self.stream.consume(len(data))


def test_ten_megabytes_pass():
    with ExitStack() as undo:
        joined = Joined(undo)
        stream = joined.launcher.open("iopub")
        stream.write(bytes(10 << 20))
        ask(joined.reactor, lambda: len(joined.far) == 1)
        count = Count(joined.agent.streams[stream.id])
        ask(joined.reactor, lambda: stream.end == 10 << 20 and stream.under_way == 0 and not stream.unsent())
        # What the socket took before the count did is missing from it, no more.
        assert count.size <= 10 << 20
        assert link_module.WINDOW < 10 << 20
