"""Two Links and the pipes between them, simulated: every byte may be delayed, cut off or read late.

Python 3.8 and the standard library: it runs under every interpreter that the remote side may have.
"""

from __future__ import annotations

import contextlib
import tempfile

from remote_kernel.link import link as link_module
from remote_kernel.link import spool as spool_module
from remote_kernel.link.link import HEADER, Link, Sink

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
UNWANTED = "unwanted"  # a channel that the agent closes as soon as it is opened


class Frame:
    """One frame, taken apart."""

    def __init__(self, kind, number, offset, payload):
        self.kind, self.number, self.offset, self.payload = kind, number, offset, payload

    def __repr__(self):
        return f"Frame({self.kind}, {self.number}, {self.offset}, {len(self.payload)} bytes)"


def frames_of(data):
    """Take apart whole frames."""
    found = []
    while data:
        kind, number, offset, length = HEADER.unpack_from(data)
        found.append(Frame(kind, number, offset, bytes(data[HEADER.size : HEADER.size + length])))
        assert len(found[-1].payload) == length, "half a frame"
        data = data[HEADER.size + length :]
    return found


def frame(kind, number=0, offset=0, payload=b""):
    """Spell a frame."""
    return HEADER.pack(kind, number, offset, len(payload)) + payload


def take_all(link):
    """Take every frame that a Link wants to send now."""
    found = b""
    while True:
        data = link.next_frame()
        if not data:
            return found
        found += data


@contextlib.contextmanager
def sizes(**values):
    """Make the Link's window and frames small, so that small schedules reach every limit."""
    where = {name: link_module if hasattr(link_module, name) else spool_module for name in values}
    before = {name: getattr(module, name) for name, module in where.items()}
    try:
        for name, module in where.items():
            setattr(module, name, values[name])
        yield
    finally:
        for name, module in where.items():
            setattr(module, name, before[name])


SMALL = {"WINDOW": 4000, "FRAME_BYTES": 700, "ACK_BYTES": 1000, "MEMORY_BYTES": 6000, "REFILL_BYTES": 500}


def content(number, side, start, size):
    """Give bytes `start` to `start + size` of what `side` writes to a stream: no two places look alike."""
    block = b"".join(b"%d.%d.%d " % (number, side, i) for i in range(start // 8, (start + size) // 8 + 2))
    return block[:size]


class Record(Sink):
    """One end's view of a stream: what was written, what arrived, and whether it was told of the end."""

    def __init__(self, end, stream):
        self.end, self.stream = end, stream
        if end.side and stream.channel == "iopub":
            stream.spool.use_files(40000, (tempfile.gettempdir(),))
        else:
            stream.spool.use_files(8000, ())
        self.peer = None
        self.written = bytearray()
        self.arrived = bytearray()
        self.unread = 0
        self.closed = False
        self.finished = False
        self.waiting_for_room = False
        stream.sink = self

    def deliver(self, data):
        assert not self.closed, "bytes delivered to an owner that had closed"
        assert not self.finished, "bytes delivered after the end"
        at = len(self.arrived)
        assert self.peer.written[at : at + len(data)] == data, f"stream {self.stream.id}: other bytes at {at}"
        self.arrived += data
        self.unread += len(data)

    def finish(self):
        assert not self.finished, "told twice of the end"
        assert not self.closed, "told of the end after closing"
        assert self.peer.closed, "told of an end that is none"
        assert self.arrived == self.peer.written, "told of the end before the last byte"
        self.finished = True

    def room(self):
        assert self.waiting_for_room, "told of room without having asked"
        self.waiting_for_room = False

    def write(self, size):
        if self.closed or self.finished:
            return
        if self.stream.full:
            self.waiting_for_room = True
            return
        data = content(self.stream.id, self.end.side, len(self.written), size)
        self.written += data
        self.stream.write(data)

    def consume(self, size):
        size = min(size, self.unread)
        if size:
            self.unread -= size
            self.stream.consume(size)

    def close(self):
        if not self.closed and not self.finished:
            self.closed = True
            self.stream.close()


class End:
    """A Link, its records, and what it has put on the wire that has not arrived."""

    def __init__(self, side, opened=None):
        self.side = side
        self.link = Link(opened) if opened else Link()
        self.records = {}
        self.wire = bytearray()
        self.attached = False  # to the pipe whose other end is the other End, rather than to nobody


class World:
    """A launcher's Link (0) and an agent's (1), with a pipe between them that comes and goes."""

    def __init__(self):
        self.now = 0.0
        self.ends = (End(0), End(1, self._opened))
        for record in [(end, end.link.streams[n]) for n in (0, 1, 2) for end in self.ends]:
            self._record(*record)
        self.opened = []

    def _record(self, end, stream):
        record = end.records[stream.id] = Record(end, stream)
        other = self.ends[1 - end.side].records.get(stream.id) if hasattr(self, "ends") else None
        if other:
            record.peer, other.peer = other, record
        return record

    def _opened(self, stream):
        assert stream.id not in self.opened, "opened twice"
        assert not self.opened or stream.id > self.opened[-1], "opened out of order"
        assert stream.channel == self.ends[0].records[stream.id].stream.channel
        self.opened.append(stream.id)
        record = self._record(self.ends[1], stream)
        if stream.channel == UNWANTED:
            record.close()

    # -- what may happen

    def open(self, channel):
        end = self.ends[0]
        return self._record(end, end.link.open(channel))

    def connect(self):
        """Give both ends a new pipe; the one that had not yet noticed the old one's end notices now."""
        for end in self.ends:
            self.cut(end)
        for end in self.ends:
            end.link.connected(self.now)
            end.attached = True

    def connect_to_nobody(self, side):
        """Give one end a pipe that is cut before the other end ever has it."""
        end = self.ends[side]
        for each in self.ends:
            self.cut(each)
        end.link.connected(self.now)
        end.attached = False

    def cut(self, end):
        """Let one end notice that its pipe is gone. What it had sent may still arrive while the other has not."""
        if end.link.up:
            end.link.disconnected()
        end.attached = False
        other = self.ends[1 - end.side]
        if not other.attached:
            end.wire.clear()
        other.wire.clear()  # nobody reads it any more

    def send(self, end, count):
        """Put up to so many frames on the wire, if there is one."""
        for _ in range(count):
            data = end.link.next_frame() if end.link.up else b""
            if not data:
                return False
            if end.attached and self.ends[1 - end.side].attached:
                end.wire += data
        return True

    def carry(self, end, size):
        """Let up to so many bytes arrive at the other end."""
        other = self.ends[1 - end.side]
        data = bytes(end.wire[:size])
        del end.wire[:size]
        if data and other.attached:
            other.link.receive(data)

    def pass_time(self, seconds):
        self.now += seconds
        for end in self.ends:
            if not end.link.tick(self.now):
                self.cut(end)

    # -- the end

    def settle(self):
        """Connect, let everything move until nothing does, and check that all is where it belongs."""
        if not all(end.attached for end in self.ends):
            self.connect()
        for _ in range(2000):
            moved = False
            for end in self.ends:
                moved = self.send(end, 500) or moved
                moved = moved or bool(end.wire)
                self.carry(end, len(end.wire))
                for record in end.records.values():
                    moved = moved or record.unread > 0
                    record.consume(record.unread)
            before = [end.link._unacked for end in self.ends if end.link._unacked]
            if not moved and not before:
                break
            self.pass_time(link_module.ACK_SECONDS)
            if not all(end.link.up for end in self.ends):
                self.connect()
        else:
            raise AssertionError("never quiet")
        self.check()

    def check(self):
        launcher, agent = self.ends
        assert launcher.link.idle(), "the launcher's end still holds something"
        assert agent.link.idle(), "the agent's end still holds something"
        assert list(agent.records) == list(launcher.records), "a stream was never opened there"
        for number, here in launcher.records.items():
            there = agent.records[number]
            for reader, writer in ((here, there), (there, here)):
                end = reader.end.link
                assert writer.written.startswith(reader.arrived)
                if not reader.closed:
                    assert reader.arrived == writer.written, f"stream {number}: bytes are missing"
                    assert not reader.waiting_for_room or reader.finished, f"stream {number}: nobody told of the room"
                assert reader.finished == (writer.closed and not reader.closed), f"stream {number}: an end unseen"
                gone = reader.closed or writer.closed
                assert (number in end.streams) != gone, f"stream {number}: kept, or dropped too early"


STEPS = (
    ("open", 2), ("write", 12), ("consume", 6), ("close", 1), ("send", 14), ("carry", 14), ("cut", 1),
    ("connect", 2), ("nobody", 1), ("time", 3),
)  # fmt: skip
STEP_NAMES = [name for name, weight in STEPS for _ in range(weight)]


def play(steps):
    """Play a schedule on small Links and settle it. A step is a name and two numbers that it reads its own way."""
    with sizes(**SMALL):
        world = World()
        if not steps or steps[0][1] % 4:  # else front ends connect before the first pipe is there
            world.connect()
        for name, a, b in steps:
            play_step(world, name, a, b)
            for end in world.ends:
                for stream in end.link.streams.values():
                    assert stream.under_way <= link_module.WINDOW, "more under way than the window"
        world.settle()
        return world


def play_step(world, name, a, b):
    """Let one step happen; a step that makes no sense now does nothing."""
    end = world.ends[a % 2]
    records = list(end.records.values())
    record = records[(a // 2) % len(records)]
    if name == "open":
        if len(world.ends[0].records) < 12:
            world.open(UNWANTED if b % 10 == 0 else CHANNELS[b % 5])
    elif name == "write":
        record.write(b)
    elif name == "consume":
        record.consume(b)
    elif name == "close":
        if record.stream.id >= 16:
            record.close()
    elif name == "send":
        world.send(end, 1 + b % 9)
    elif name == "carry":
        world.carry(end, b)
    elif name == "cut":
        world.cut(end)
    elif name == "connect":
        if not all(each.attached for each in world.ends):
            world.connect()
    elif name == "nobody":
        world.connect_to_nobody(a % 2)
    elif name == "time":
        world.pass_time((0.05, 0.3, 1.0, 6.0, 16.0, 61.0)[b % 6])


def random_schedule(random):
    """Give a schedule of some 20 to 200 steps."""
    return [
        (random.choice(STEP_NAMES), random.randrange(1000), random.choice((1, 7, 60, 900, 5000)) * random.randint(1, 3))
        for _ in range(random.randint(20, 200))
    ]
