"""Move bytes between file descriptors and a Link, in one thread that sleeps when nothing happens.

The launcher and the agent each run one Reactor: a selector, timers and signals. A Pipe joins a
Link to the two descriptors of an SSH session; a SocketSink joins a stream to a socket.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import itertools
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque

from remote_kernel.link.link import Link, LinkError, LinkStream, Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CHUNK = 256 << 10
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on
_BUFFERS = 16  # that many every system takes in one writev
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
_LATER = (BlockingIOError, InterruptedError)


class Timer:
    """A call that will happen once; see `Reactor.call_later`."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        self.callback = None


class Reactor:
    """Call back when descriptors are ready, times have come, signals have arrived. A context manager.

    `before_wait` holds functions that are called with the time before each wait and give the time by
    which they want to be called again: a Pipe writes all that one round of events produced at once.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._running = False
        self.before_wait: list[Callable[[float], float]] = []
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._undo: list[tuple[int, object]] = []
        self.watch(self._wake_out.fileno(), READ, self._take_signals)

    def __enter__(self) -> Reactor:
        self._wakeup_fd = signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup_fd)
        for number, handler in self._undo:
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call `callback` from the loop, not from the handler, after signal `number`."""
        self._handlers[number] = callback
        self._undo.append((number, signal.signal(number, _ignored)))

    def _take_signals(self, _: int) -> None:
        try:
            numbers = self._wake_out.recv(4096)
        except _LATER:
            return
        for number in dict.fromkeys(numbers):
            if number in self._handlers:
                self._handlers[number]()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `fd` is ready; no events stops it. Idempotent."""
        known = self._selector.get_map().get(fd)
        if not events:
            if known:
                self._selector.unregister(fd)
        elif known is None:
            self._selector.register(fd, events, callback)
        elif known.events != events or known.data != callback:
            self._selector.modify(fd, events, callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, that many seconds from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        """Make `run` return after this round."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._running = True
        while self._running:
            now = time.monotonic()
            while self._timers and (self._timers[0].at <= now or self._timers[0].callback is None):
                callback = heapq.heappop(self._timers).callback
                if callback:
                    callback()
            due = self._timers[0].at if self._timers else float("inf")
            for hook in list(self.before_wait):
                due = min(due, hook(now))
            if not self._running:
                return
            timeout = None if due == float("inf") else max(0.0, due - time.monotonic())
            for key, events in self._selector.select(timeout):
                if self._selector.get_map().get(key.fd) is key:  # not closed by an earlier callback of this round
                    key.data(events)


def _ignored(number: int, frame: FrameType | None) -> None:
    """Do nothing at a signal; the wake-up descriptor tells the loop."""


class Pipe:
    """Join a Link to the two descriptors of one SSH session, which it owns and closes.

    `ended` is called once, from the loop, with an empty text at the end of input and with a reason
    otherwise; the descriptors are still open then, so that their state can be looked at.
    """

    def __init__(self, reactor: Reactor, link: Link, fd_in: int, fd_out: int, ended: Callable[[str], None]) -> None:
        self._reactor, self._link, self._ended = reactor, link, ended
        self.fd_in, self.fd_out = fd_in, fd_out
        self._output: deque[bytes | memoryview] = deque()
        self._waiting = 0  # bytes in it
        self._blocked = False
        os.set_blocking(fd_in, False)
        os.set_blocking(fd_out, False)
        _widen(fd_out, _CHUNK)

    def start(self, first: bytes = b"") -> None:
        """Begin: write `first` as it is, then the Link's frames, and feed it what arrives."""
        self._put(first)
        self._link.connected(time.monotonic())
        self._reactor.watch(self.fd_in, READ, self._readable)
        self._reactor.before_wait.append(self._flush)

    def close(self) -> None:
        """Close both descriptors and tell the Link. Idempotent."""
        if self.fd_in < 0:
            return
        self._stop()
        for fd in {self.fd_in, self.fd_out}:
            os.close(fd)
        self.fd_in = self.fd_out = -1

    def flush(self) -> None:
        """Write what can be written at once: the last words before `close`."""
        if self._flush in self._reactor.before_wait:
            self._flush(time.monotonic())

    def _stop(self) -> None:
        self._reactor.watch(self.fd_in, 0, self._readable)
        self._reactor.watch(self.fd_out, 0, self._writable)
        if self._flush in self._reactor.before_wait:
            self._reactor.before_wait.remove(self._flush)
            self._link.disconnected()

    def _put(self, data: bytes) -> None:
        if data:
            self._output.append(data)
            self._waiting += len(data)

    def _take(self, written: int) -> None:
        self._waiting -= written
        while written:
            first = self._output.popleft()
            if written < len(first):
                self._output.appendleft(memoryview(first)[written:])
                return
            written -= len(first)

    def _end(self, reason: str) -> None:
        self._stop()
        self._ended(reason)

    def _readable(self, _: int) -> None:
        try:
            data = os.read(self.fd_in, _CHUNK)
        except _LATER:
            return
        except OSError as error:
            self._end(str(error))
            return
        if not data:
            self._end("")
            return
        self._link.tick(time.monotonic())
        try:
            self.receive(data)
        except LinkError as error:
            self._end(str(error))

    def receive(self, data: bytes) -> None:
        """Pass what was read to the Link; a subclass may take something off before its frames begin."""
        self._link.receive(data)

    def _writable(self, _: int) -> None:
        self._blocked = False
        self._reactor.watch(self.fd_out, 0, self._writable)

    def _flush(self, now: float) -> float:
        if not self._link.tick(now):
            self._end("no sign of life")
            return float("inf")
        try:
            while not self._blocked:
                while self._waiting < _CHUNK:
                    frame = self._link.next_frame()
                    if not frame:
                        break
                    self._put(frame)
                if not self._output:
                    break
                self._take(os.writev(self.fd_out, list(itertools.islice(self._output, _BUFFERS))))
        except _LATER:
            self._blocked = True
            self._reactor.watch(self.fd_out, WRITE, self._writable)
        except OSError as error:
            self._end(str(error))
            return float("inf")
        return self._link.due()


def _widen(fd: int, count: int) -> None:
    """Make a pipe hold so many bytes where the system can: each turn of ssh then moves more than 64 KiB.

    Only for the end that writes to ssh: a wide pipe from ssh took a third off the throughput at 50 ms of round trip.
    """
    try:
        if sys.platform == "linux":
            fcntl.fcntl(fd, _SET_PIPE_SIZE, count)
    except OSError:
        pass  # not a pipe, or the user's share is used up


class HeldStream(Sink):
    """A stream whose socket is not there yet: hold its bytes until it is, at most the Link's window of them."""

    def __init__(self, stream: LinkStream) -> None:
        self.stream = stream
        self._held: list[memoryview] = []
        self._is_finished = False
        stream.sink = self

    def deliver(self, data: memoryview) -> None:
        """Hold bytes."""
        self._held.append(data)

    def finish(self) -> None:
        """Close the socket once it is there and has what is held."""
        self._is_finished = True

    def hand_over(self, sink: SocketSink) -> None:
        """Write what is held to the stream's socket."""
        for data in self._held:
            sink.deliver(data)
        if self._is_finished:
            sink.finish()


class SocketSink(Sink):
    """Join a stream to a connected socket, which it owns and closes.

    `closed` is called once the socket is closed, whichever end closed first.
    """

    def __init__(
        self, reactor: Reactor, stream: LinkStream, connection: socket.socket, closed: Callable[[SocketSink], None]
    ) -> None:
        self._reactor, self.stream, self._socket, self._closed = reactor, stream, connection, closed
        self._fd = connection.fileno()
        self._output = bytearray()
        self._reading, self._finishing = True, False
        connection.setblocking(False)
        stream.sink = self
        self._rewatch()

    def _rewatch(self) -> None:
        events = (READ if self._reading else 0) | (WRITE if self._output else 0)
        self._reactor.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & READ and self._reading and self._fd >= 0:
            self._read()

    def _read(self) -> bool:
        """Read what is there, _CHUNK bytes at most; true if there was anything."""
        try:
            data = self._socket.recv(_CHUNK)
        except _LATER:
            return False
        except OSError:
            data = b""
        if not data:
            self.at_end()
            self.stream.close()
            self._close()
            return False
        self.take(data)
        if self.must_pause():
            self._reading = False
            self._rewatch()
        return True

    def read_all(self) -> None:
        """Read what has come so far."""
        while self._fd >= 0 and self._reading and self._read():
            pass

    def must_pause(self) -> bool:
        """True if to read no more until the stream has room."""
        return self.stream.full

    def at_end(self) -> None:
        """Do nothing; a subclass may add to the stream, which is about to be closed after the socket's last byte."""

    def take(self, data: bytes) -> None:
        """Write what was read to the stream; a subclass may look at it first."""
        self.stream.write(data)

    def _try_to_send(self, data: bytearray | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except _LATER:
            return 0
        except OSError as error:
            if error.errno in _GONE:  # it may have sent something before
                while self._fd >= 0 and not self._finishing and self._read():
                    pass
            self.stream.close()
            self._close()
            return 0
        self.stream.consume(sent)
        return sent

    def _send(self) -> None:
        del self._output[: self._try_to_send(self._output)]
        if not self._output and self._fd >= 0:
            if self._finishing:
                self._close()
            else:
                self._rewatch()

    def deliver(self, data: memoryview) -> None:
        """Write to the socket, at once as far as it takes them."""
        if self._fd < 0:
            self.stream.consume(len(data))
            return
        if not self._output:
            sent = self._try_to_send(data)
            if sent == len(data) or self._fd < 0:
                return
            self._output += data[sent:]
            self._rewatch()
        else:
            self._output += data

    def finish(self) -> None:
        """Close the socket once it has taken what is held."""
        self._finishing, self._reading = True, False
        if not self._output:
            self._close()
        elif self._fd >= 0:
            self._rewatch()

    def room(self) -> None:
        """Read the socket again."""
        if self._fd >= 0 and not self._finishing:
            self._reading = True
            self._rewatch()

    def _close(self) -> None:
        if self._fd < 0:
            return
        self._reactor.watch(self._fd, 0, self._ready)
        self._fd = -1
        self._socket.close()
        self._closed(self)
