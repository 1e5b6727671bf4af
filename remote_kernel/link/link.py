"""Carry many byte streams over one byte pipe, and go on where they were when the pipe is replaced.

The launcher and the agent each hold one Link. The pipe between them is an SSH session's stdin and
stdout, which breaks whenever a laptop sleeps or a network drops; the Link is what outlives it.

The story of one kernel:

1. Each end says HELLO: its protocol version and, for every stream that it knows, how many bytes of it have arrived. On
   the first pipe nothing can have arrived, so nobody waits for the answer.
2. A front end connects to one of five ports. The launcher sends OPEN with the channel's name; the agent connects to
   the kernel's matching socket.
3. DATA carries a piece of a stream and its offset. The receiver hands the bytes on and says with ACK how far they have
   got; a sender never has more than WINDOW bytes of a stream under way, and keeps every byte until it is acknowledged.
   So a front end that does not read iopub stops iopub alone, and a lost pipe loses nothing.
4. The stream with the fewest bytes under way goes first, and the rest waits while the path is full (see pace): an
   interrupt or a heartbeat passes a hundred megabytes of output, also on a slow network.
5. CLOSE follows a stream's last byte. The receiver hands on what it has, closes its side, and acknowledges one byte
   more than there were.
6. When the pipe breaks, both ends keep everything. On the next pipe each resends from the offset that the other's HELLO
   names, opens again what never arrived, and drops what the other closed.
7. PING fills silence, or marks how far the bytes have come, and is answered with PONG; an end that hears nothing for
   DEAD_SECONDS, or for PROBE_SECONDS after it had reason to doubt, calls the pipe dead.

Nothing here does I/O or reads a clock: bytes and times come in by call and go out by return, so a test can cut, delay
and reorder as it likes.
"""

from __future__ import annotations

import json
import struct
from collections import deque

from remote_kernel.link.pace import Pace
from remote_kernel.link.spool import Spool

TYPE_CHECKING = False  # typing's own costs 7 ms of import at a kernel's start
if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL_VERSION = 1

HELLO, OPEN, DATA, ACK, CLOSE, PING, PONG = range(1, 8)

HEADER = struct.Struct("!BIQI")  # kind, stream, offset, length of the payload
WINDOW = 4 << 20  # bytes of one stream under way; 50 ms of round trip carry 80 MB/s
FRAME_BYTES = 64 << 10  # payload of one DATA frame: the longest that anything more urgent waits
ACK_BYTES = 256 << 10  # acknowledge at once after so many; fewer wait ACK_SECONDS, to spare packets
ACK_SECONDS = 0.2
HELLO_BYTES = 1 << 20
URGENT_BYTES = 16 << 10  # a stream with fewer under way does not wait for the path to be less full
PING_SECONDS = 5.0
DEAD_SECONDS = 15.0
PROBE_SECONDS = 4.0
GREETING_SECONDS = 60.0  # of silence at first: a login can take its time
MOST_PONGS = 64  # that wait to be sent: an honest end has about ten marks under way (see pace)
MOST_STREAMS = 4096  # at a time, and what they are told of each other: it has to fit into a HELLO

CONTROL, STDOUT, STDERR = 0, 1, 2  # streams that always exist: JSON lines, the kernel's own output
_FIXED = ((CONTROL, "link"), (STDOUT, "stdout"), (STDERR, "stderr"))
_FIRST_ID = 16


class LinkError(Exception):
    """The other end sent what no Link of this version sends. The pipe cannot be used any more."""


class Sink:
    """Where a stream's bytes end up; the owner of a stream subclasses it."""

    def deliver(self, data: memoryview) -> None:
        """Handle bytes in order; the buffer does not change later.

        Call `LinkStream.consume` with their number once they are handed on.
        """

    def finish(self) -> None:
        """Handle the close of the other end: pass on what is still held, then close."""

    def room(self) -> None:
        """Go on writing: the stream accepts bytes again after `LinkStream.full` was true."""


class LinkStream:
    """One TCP connection's bytes, both ways. Made by `Link.open` or by the other end's OPEN."""

    def __init__(self, link: Link, number: int, channel: str) -> None:
        self._link, self.id, self.channel = link, number, channel
        self.sink = Sink()
        self.spool = Spool()  # what the other end has not acknowledged
        self.sent = 0  # offset of the next byte to send
        self.closing = self.close_sent = self.was_full = False
        self.received = self.consumed = 0
        self.acked = 0  # the `consumed` that the other end was told

    @property
    def end(self) -> int:
        """Return the offset after the last byte written."""
        return self.spool.end

    @property
    def full(self) -> bool:
        """True if the owner should stop writing until `Sink.room` is called."""
        self.was_full = self.was_full or self.spool.full
        return self.spool.full

    def write(self, data: bytes) -> None:
        """Queue bytes for the other end. They are kept until acknowledged; see `full`."""
        if not self.closing:
            self.spool.append(data)

    def close(self) -> None:
        """Close the stream: no more bytes follow, and bytes which still arrive are of no use."""
        self.closing = True

    def consume(self, count: int) -> None:
        """Count delivered bytes that are handed on, which lets the other end send as many more."""
        self.consumed += count
        self._link.moved += count
        self._link.note_consumed(self)

    def unsent(self) -> int:
        """Return how many bytes may be sent now: written, not sent, inside the window."""
        return min(self.spool.end, self.spool.base + WINDOW) - self.sent

    def piece(self, most: int = FRAME_BYTES) -> memoryview:
        """Return the next bytes to send, at most FRAME_BYTES."""
        data = self.spool.read(self.sent, min(FRAME_BYTES, most, self.unsent()))
        self.sent += len(data)
        return data

    def release(self, offset: int) -> None:
        """Forget bytes before `offset`: the other end has handed them on."""
        if offset > self.sent:
            raise LinkError(f"stream {self.id}: {offset} bytes acknowledged, {self.sent} sent")
        if offset > self.spool.base:
            self._link.moved += offset - self.spool.base
            self.spool.release(offset)

    @property
    def under_way(self) -> int:
        """Return how many bytes are sent and not yet acknowledged."""
        return self.sent - self.spool.base


class Link:
    """One end of the streams between a launcher and an agent.

    The owner calls `connected` with each new pipe, feeds what it reads to `receive`, writes what
    `next_frame` gives, and calls `tick` no later than the time that `due` names. `opened` is called
    with each stream that the other end opens; only one end may open streams, the one without `opened`.
    Not thread-safe.
    """

    def __init__(self, opened: Callable[[LinkStream], None] | None = None) -> None:
        self._opened = opened
        self.streams: dict[int, LinkStream] = {n: LinkStream(self, n, name) for n, name in _FIXED}
        self._urgent: deque[bytes] = deque()
        self._pongs: deque[int] = deque()  # offsets of the other end's marks, to be answered
        self._acks: dict[int, LinkStream] = {}  # to be acknowledged at once
        self._input = b""
        self._next_id = _FIRST_ID
        self._highest = _FIRST_ID - 1  # the highest id that the other end has opened
        self._pipes = 0
        self._ready = False  # the other end's state is known, so streams may be sent
        self._pace = Pace()
        self._unacked: dict[int, LinkStream] = {}
        self._ack_due = self._sent_at = self._dead_at = self._now = 0.0
        self.up = False
        self.greeted = False  # whether the other end's HELLO came through this pipe, or the one that is gone
        self.moved = 0  # bytes that have got through, either way, and been handed on

    def connected(self, now: float) -> None:
        """Start on a new pipe: say HELLO, and on any but the first wait for the other's before resending."""
        self._pipes += 1
        self._now = self._sent_at = now
        self._input, self._dead_at = b"", now + GREETING_SECONDS
        self._clear()
        self.up, self.greeted, self._pace = True, False, Pace()
        self._ready = self._pipes == 1
        known = {str(s.id): [s.received, s.consumed] for s in self.streams.values()}
        hello = {"version": PROTOCOL_VERSION, "highest": self._highest, "streams": known}
        self._urgent.append(_frame(HELLO, 0, 0, json.dumps(hello).encode()))
        for stream in self.streams.values():
            stream.acked = stream.consumed
            if self._ready and stream.id >= _FIRST_ID:
                self._urgent.append(_frame(OPEN, stream.id, 0, stream.channel.encode()))

    def disconnected(self) -> None:
        """Stop sending: the pipe is gone. Streams stay as they are."""
        self.up = self._ready = False
        self._clear()

    def _clear(self) -> None:
        for waiting in (self._urgent, self._pongs, self._acks, self._unacked):
            waiting.clear()

    @property
    def is_full(self) -> bool:
        """True if the other end takes no more streams before it has acknowledged the end of some."""
        return len(self.streams) >= MOST_STREAMS

    def open(self, channel: str) -> LinkStream:
        """Open a stream; the other end connects it to the kernel's socket of that channel. Not while `is_full`."""
        stream = LinkStream(self, self._next_id, channel)
        self._next_id += 1
        self.streams[stream.id] = stream
        if self._ready:
            self._urgent.append(_frame(OPEN, stream.id, 0, channel.encode()))
        return stream

    def idle(self) -> bool:
        """True if nothing waits to be sent or acknowledged, on any stream."""
        return not self._urgent and not self._acks and not any(s.closing or len(s.spool) for s in self.streams.values())

    # -- sending

    def next_frame(self) -> bytes:
        """Return the most urgent frame to write next, or no bytes when there is nothing to send."""
        if self._urgent or self._pongs or self._acks:
            self._sent_at = self._now
            return self._next_urgent()
        if not self._ready:
            return b""
        mark = self._pace.mark(self._now)
        if mark:
            return _frame(PING, 0, mark)
        best: LinkStream | None = None
        for stream in self.streams.values():
            if stream.unsent() > 0 and (best is None or stream.under_way < best.under_way):
                best = stream
            elif stream.closing and not stream.close_sent and stream.sent == stream.end:
                stream.close_sent = True
                return _frame(CLOSE, stream.id, stream.end)
        most = self._pace.frame_bytes
        if best is None or not (self._pace.allows() or best.under_way < min(URGENT_BYTES, most)):
            return b""
        self._sent_at = self._now
        offset, piece = best.sent, best.piece(most)
        self._pace.sent(len(piece))
        return _frame(DATA, best.id, offset, piece)

    def _next_urgent(self) -> bytes:
        if self._urgent:
            return self._urgent.popleft()
        if self._pongs:
            return _frame(PONG, 0, self._pongs.popleft())
        number, stream = self._acks.popitem()
        stream.acked = stream.consumed
        return _frame(ACK, number, stream.consumed)

    def note_consumed(self, stream: LinkStream) -> None:
        """Queue an acknowledgement, at once or with the next tick. Called by `LinkStream.consume`."""
        if not self._ready or stream.id not in self.streams or stream.id in self._acks:
            return
        if stream.consumed - stream.acked >= ACK_BYTES:
            self._acknowledge(stream)
        else:
            if not self._unacked:
                self._ack_due = self._now + ACK_SECONDS
            self._unacked[stream.id] = stream

    def _acknowledge(self, stream: LinkStream) -> None:
        self._unacked.pop(stream.id, None)
        self._acks[stream.id] = stream

    # -- time

    def due(self) -> float:
        """Return the time by which `tick` must be called."""
        if not self.up:
            return float("inf")
        due = self._dead_at
        if not self._urgent:  # else what waits is sign of life enough, once the pipe takes it
            due = min(due, self._sent_at + PING_SECONDS)
        return min(due, self._ack_due) if self._unacked else due

    def tick(self, now: float) -> bool:
        """Queue acknowledgements and pings that are due; return False when the pipe is dead by silence."""
        self._now = now
        if not self.up:
            return True
        if self._unacked and now >= self._ack_due:
            for stream in list(self._unacked.values()):
                self._acknowledge(stream)
        if now - self._sent_at >= PING_SECONDS and not self._urgent:
            self._urgent.append(_frame(PING, 0, 0))
        return now < self._dead_at

    def probe(self, now: float) -> None:
        """Ask the other end for a sign of life within PROBE_SECONDS: the machine has slept, the network has changed."""
        if self.up:
            self._now = now
            self._dead_at = min(self._dead_at, now + PROBE_SECONDS)
            self._urgent.append(_frame(PING, 0, 0))

    # -- receiving

    def receive(self, data: bytes) -> None:
        """Handle bytes from the pipe. Raises LinkError when they are none of ours."""
        self._dead_at = self._now + DEAD_SECONDS
        view = memoryview(self._input + data if self._input else data)
        start, size = 0, len(view)
        while size - start >= HEADER.size:
            kind, number, offset, length = HEADER.unpack_from(view, start)
            if length > (FRAME_BYTES if kind != HELLO else HELLO_BYTES) or not HELLO <= kind <= PONG:
                raise LinkError(f"no frame of this protocol: kind {kind}, {length} bytes")
            stop = start + HEADER.size + length
            if stop > size:
                break
            self._take(kind, number, offset, view[start + HEADER.size : stop])
            start = stop
        self._input = bytes(view[start:])

    def _take(self, kind: int, number: int, offset: int, payload: memoryview) -> None:
        if kind == HELLO:
            self._take_hello(bytes(payload))
        elif kind == OPEN:
            self._take_open(number, bytes(payload))
        elif kind == PING:
            if len(self._pongs) == MOST_PONGS:
                raise LinkError("the other end asks for signs of life and takes none")
            self._pongs.append(offset)
        elif kind == PONG:
            self._pace.answered(offset, self._now)
        else:
            stream = self.streams.get(number)
            if stream is None:
                if number > self._highest and number >= self._next_id:
                    raise LinkError(f"stream {number} was never opened")
            elif kind == DATA:
                self._take_data(stream, offset, payload)
            elif kind == ACK:
                self._take_ack(stream, offset)
            else:
                self._take_close(stream, offset)

    def _take_hello(self, payload: bytes) -> None:
        try:
            hello = json.loads(payload)
            version, highest = hello["version"], int(hello["highest"])
            known = {int(n): (int(received), int(consumed)) for n, (received, consumed) in hello["streams"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise LinkError(f"a greeting that cannot be read: {error}") from error
        if version != PROTOCOL_VERSION:
            raise LinkError(f"the other end speaks protocol {version!r}, this one speaks {PROTOCOL_VERSION}")
        self.greeted = True
        if self._ready:
            return
        self._ready = True
        for stream in list(self.streams.values()):
            if stream.id in known:
                received, consumed = known[stream.id]
                if not consumed <= received <= stream.sent or received < stream.spool.base:
                    raise LinkError(f"stream {stream.id}: the other end has {received} bytes, {stream.sent} were sent")
                stream.release(consumed)
                stream.sent = received
                stream.close_sent = False
                self._note_room(stream)
            elif stream.id > highest and self._next_id > stream.id > self._highest:
                self._urgent.append(_frame(OPEN, stream.id, 0, stream.channel.encode()))
                stream.sent, stream.close_sent = 0, False
            else:
                self._forget(stream)
            if stream.consumed > stream.acked:
                self.note_consumed(stream)

    def _take_open(self, number: int, payload: bytes) -> None:
        if number <= self._highest:
            return
        is_flood = self.is_full or len(payload) > 64 or len(self._urgent) > 2 * MOST_STREAMS
        if number < _FIRST_ID or self._opened is None or is_flood:
            raise LinkError(f"stream {number} cannot be opened by the other end")
        self._highest = number
        stream = self.streams[number] = LinkStream(self, number, payload.decode("ascii", "replace"))
        self._opened(stream)

    def _take_data(self, stream: LinkStream, offset: int, payload: memoryview) -> None:
        if offset > stream.received:
            raise LinkError(f"stream {stream.id}: bytes {stream.received} to {offset} are missing")
        payload = payload[stream.received - offset :]
        if not payload:
            return
        stream.received += len(payload)
        if stream.received - stream.consumed > WINDOW:
            raise LinkError(f"stream {stream.id}: more than the window was sent")
        if stream.closing:
            stream.consume(len(payload))
        else:
            stream.sink.deliver(payload)

    def _take_ack(self, stream: LinkStream, offset: int) -> None:
        if stream.close_sent and offset == stream.end + 1:
            self._forget(stream)
            return
        stream.release(offset)
        self._note_room(stream)

    def _take_close(self, stream: LinkStream, offset: int) -> None:
        if offset != stream.received or stream.id < _FIRST_ID:
            raise LinkError(f"stream {stream.id}: closed at {offset}, {stream.received} bytes arrived")
        self._urgent.append(_frame(ACK, stream.id, offset + 1))
        self._forget(stream)

    def _forget(self, stream: LinkStream) -> None:
        for known in (self.streams, self._unacked, self._acks):
            known.pop(stream.id, None)
        stream.spool.close()
        if not stream.closing:
            stream.closing = True
            stream.sink.finish()

    def _note_room(self, stream: LinkStream) -> None:
        if stream.was_full and stream.spool.has_room:
            stream.was_full = False
            stream.sink.room()


def _frame(kind: int, number: int, offset: int, payload: bytes | memoryview = b"") -> bytes:
    return HEADER.pack(kind, number, offset, len(payload)) + payload


def send_message(stream: LinkStream, message: dict[str, object]) -> None:
    """Write one JSON object as a line to the CONTROL stream."""
    stream.write(json.dumps(message).encode() + b"\n")


class MessageSink(Sink):
    """Read JSON lines from the CONTROL stream and call `handle` with each object."""

    def __init__(self, stream: LinkStream, handle: Callable[[dict[str, object]], None]) -> None:
        self._stream, self._handle, self._buffer = stream, handle, bytearray()

    def deliver(self, data: memoryview) -> None:
        """Handle bytes in order; a line that is not a JSON object is a LinkError."""
        self._buffer += data
        self._stream.consume(len(data))
        lines: list[bytes] = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(lines.pop())
        if len(self._buffer) > HELLO_BYTES:
            raise LinkError("a control message without an end")
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LinkError(f"a control message that cannot be read: {error}") from error
            if not isinstance(message, dict):
                raise LinkError("a control message that is no object")
            self._handle(message)
