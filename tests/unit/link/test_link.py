"""The Link alone, rule by rule as its story tells them. No pytest in here: far/ runs this under every Python."""

from __future__ import annotations

import json
import random
import struct
from unittest import TestCase

from remote_kernel.link import link as link_module
from remote_kernel.link.link import (
    ACK,
    ACK_BYTES,
    ACK_SECONDS,
    CLOSE,
    CONTROL,
    DATA,
    DEAD_SECONDS,
    FRAME_BYTES,
    GREETING_SECONDS,
    HELLO,
    HELLO_BYTES,
    MOST_PONGS,
    MOST_STREAMS,
    OPEN,
    PING,
    PING_SECONDS,
    PONG,
    PROBE_SECONDS,
    PROTOCOL_VERSION,
    STDERR,
    STDOUT,
    WINDOW,
    Link,
    LinkError,
    MessageSink,
    Sink,
    send_message,
)
from remote_kernel.link.pace import FIRST_BYTES
from tests.unit.remote.two_links import frame, frames_of, play, random_schedule, take_all

raises = TestCase().assertRaisesRegex


class Collect(Sink):
    """Keep what arrives; `consume` says whether it is handed on at once."""

    def __init__(self, stream, consume=True):
        self.stream, self.consume = stream, consume
        self.data, self.finished, self.rooms = b"", 0, 0
        stream.sink = self

    def deliver(self, data):
        self.data += data
        if self.consume:
            self.stream.consume(len(data))

    def finish(self):
        self.finished += 1

    def room(self):
        self.rooms += 1


class Pair:
    """A launcher's and an agent's Link on a pipe that carries everything at once."""

    def __init__(self, consume=True):
        self.opened = []
        self.launcher = Link()
        self.agent = Link(lambda stream: self.opened.append(Collect(stream, consume)))
        self.connect()

    def connect(self, now=0.0):
        for link in (self.launcher, self.agent):
            link.disconnected()
            link.connected(now)

    def carry(self):
        """Let all frames arrive and give them, the launcher's and the agent's."""
        sent = ([], [])
        while True:
            pieces = take_all(self.launcher), take_all(self.agent)
            if not any(pieces):
                return sent
            for piece, link, seen in zip(pieces, (self.agent, self.launcher), sent):  # noqa: B905 - Python 3.8
                link.receive(piece)
                seen.extend(frames_of(piece))

    def tick(self, now):
        return [link.tick(now) for link in (self.launcher, self.agent)]


def connected_link(opened=None):
    """Give a Link whose HELLO is out and answered, on its first pipe."""
    link = Link(opened) if opened else Link()
    link.connected(0.0)
    take_all(link)
    link.receive(hello())
    return link


def agent_with_stream(consume=True):
    """Give an agent's Link on which stream 16 was opened, and that stream's sink."""
    opened = []
    link = connected_link(lambda stream: opened.append(Collect(stream, consume)))
    link.receive(frame(OPEN, 16, 0, b"iopub"))
    return link, opened[0]


def hello(**values):
    """Spell a greeting."""
    said = {"version": PROTOCOL_VERSION, "highest": 15, "streams": {"0": [0, 0], "1": [0, 0], "2": [0, 0]}}
    said.update(values)
    return frame(HELLO, 0, 0, json.dumps(said).encode())


# -- what is on the wire


def test_wire_format_is_frozen():
    # Changing any of these is another protocol: raise PROTOCOL_VERSION with it.
    assert PROTOCOL_VERSION == 1
    assert (HELLO, OPEN, DATA, ACK, CLOSE, PING, PONG) == (1, 2, 3, 4, 5, 6, 7)
    assert (CONTROL, STDOUT, STDERR) == (0, 1, 2)
    assert link_module.HEADER.size == 17
    link = Link()
    link.open("hb").write(b"xyz")
    link.connected(0.0)
    greeting, opening, data = frames_of(take_all(link))
    assert json.loads(greeting.payload) == {
        "version": 1,
        "highest": 15,
        "streams": {"0": [0, 0], "1": [0, 0], "2": [0, 0], "16": [0, 0]},
    }
    assert frame(opening.kind, 16, 0, b"hb") == bytes.fromhex("02 00000010 0000000000000000 00000002") + b"hb"
    assert frame(data.kind, 16, 0, b"xyz") == bytes.fromhex("03 00000010 0000000000000000 00000003") + b"xyz"
    assert frame(ACK, 16, 1 << 40) == struct.pack("!BIQI", 4, 16, 1 << 40, 0)


def test_window_is_within_what_both_ends_allow():
    # The receiver holds the sender to the same numbers: they belong to the protocol.
    assert (WINDOW, FRAME_BYTES, HELLO_BYTES) == (4 << 20, 64 << 10, 1 << 20)
    assert ACK_BYTES * 2 < WINDOW


# -- streams


def test_hello_is_the_first_frame_of_every_pipe():
    link = Link()
    for _ in range(3):
        link.open("shell").write(b"x")
        link.connected(0.0)
        assert frames_of(take_all(link))[0].kind == HELLO
        link.disconnected()


def test_first_pipe_carries_bytes_before_any_answer():
    link = Link()
    link.open("shell").write(b"hello")
    link.connected(0.0)
    assert [f.kind for f in frames_of(take_all(link))] == [HELLO, OPEN, DATA]


def test_second_pipe_carries_no_bytes_before_the_answer():
    link = Link()
    link.open("shell").write(b"hello")
    link.connected(0.0)
    link.disconnected()
    link.connected(0.0)
    link.open("hb").write(b"more")
    assert [f.kind for f in frames_of(take_all(link))] == [HELLO]
    link.receive(hello())
    assert [f.kind for f in frames_of(take_all(link))] == [OPEN, OPEN, DATA, DATA]


def test_open_names_the_channel():
    pair = Pair()
    pair.launcher.open("iopub")
    pair.launcher.open("control")
    pair.carry()
    assert [(sink.stream.id, sink.stream.channel) for sink in pair.opened] == [(16, "iopub"), (17, "control")]


def test_bytes_go_both_ways_in_order():
    pair = Pair()
    here = Collect(pair.launcher.open("shell"))
    pair.carry()
    there = pair.opened[0]
    for i in range(100):
        here.stream.write(b"%d," % i)
        there.stream.write(b"%d;" % i)
        if i % 7 == 0:
            pair.carry()
    pair.carry()
    assert there.data == b"".join(b"%d," % i for i in range(100))
    assert here.data == b"".join(b"%d;" % i for i in range(100))


def test_frames_may_arrive_one_byte_at_a_time():
    link, sink = agent_with_stream()
    for byte in frame(DATA, 16, 0, b"abc") + frame(PING) + frame(DATA, 16, 3, b"def"):
        link.receive(bytes([byte]))
    assert sink.data == b"abcdef"


def test_data_frames_are_bounded():
    link = connected_link()
    stream = link.open("shell")
    stream.write(bytes(WINDOW))
    sizes = []
    for _ in range(8):  # each round trip lets more be under way, and frames grow with that
        sent = frames_of(take_all(link))
        sizes += [len(f.payload) for f in sent if f.kind == DATA]
        for mark in [f.offset for f in sent if f.kind == PING]:
            link.receive(frame(PONG, 0, mark))
    assert sizes[0] == FIRST_BYTES // 4
    assert max(sizes) == FRAME_BYTES


# -- window and acknowledgements


def test_window_is_never_exceeded():
    pair = Pair(consume=False)
    stream = pair.launcher.open("shell")
    stream.write(bytes(3 * WINDOW))
    pair.carry()
    sink = pair.opened[0]
    assert len(sink.data) == WINDOW == stream.under_way
    sink.stream.consume(ACK_BYTES)
    pair.carry()
    assert len(sink.data) == WINDOW + ACK_BYTES


def test_stream_that_is_not_read_stops_alone():
    pair = Pair(consume=False)
    stuck, other = pair.launcher.open("iopub"), pair.launcher.open("shell")
    stuck.write(bytes(2 * WINDOW))
    pair.carry()
    other.write(b"interrupt")
    pair.carry()
    assert pair.opened[1].data == b"interrupt"
    assert len(pair.opened[0].data) == WINDOW


def test_large_consumption_is_acknowledged_at_once():
    link, sink = agent_with_stream(consume=False)
    for start in range(0, ACK_BYTES, FRAME_BYTES):
        link.receive(frame(DATA, 16, start, bytes(FRAME_BYTES)))
    sink.stream.consume(ACK_BYTES - 1)
    assert take_all(link) == b""
    sink.stream.consume(1)
    (ack,) = frames_of(take_all(link))
    assert (ack.kind, ack.number, ack.offset) == (ACK, 16, ACK_BYTES)


def test_small_consumption_is_acknowledged_late_and_together():
    link, _ = agent_with_stream()
    link.tick(1.0)
    link.receive(frame(DATA, 16, 0, b"abc") + frame(DATA, 16, 3, b"de"))
    assert take_all(link) == b""
    assert link.due() == 1.0 + ACK_SECONDS
    link.tick(1.0 + ACK_SECONDS)
    (ack,) = frames_of(take_all(link))
    assert (ack.kind, ack.number, ack.offset) == (ACK, 16, 5)
    assert link.due() > 1.0 + ACK_SECONDS


def test_bytes_are_kept_until_acknowledged_and_then_forgotten():
    link = connected_link()
    stream = link.open("shell")
    stream.write(b"abcdef")
    take_all(link)
    assert not link.idle()
    link.receive(frame(ACK, 16, 4))
    assert (stream.under_way, stream.end) == (2, 6)
    link.receive(frame(ACK, 16, 2))  # late, from before: nothing new
    assert stream.under_way == 2
    link.receive(frame(ACK, 16, 6))
    assert link.idle()


def test_full_stream_tells_when_there_is_room():
    link = connected_link()
    sink = Collect(link.open("shell"))
    stream = sink.stream
    stream.spool.limit = 100
    stream.write(bytes(99))
    assert not stream.full
    stream.write(bytes(1))
    assert stream.full
    take_all(link)
    link.receive(frame(ACK, 16, 0))
    assert sink.rooms == 0
    link.receive(frame(ACK, 16, 11))  # a byte of room is not worth while
    assert sink.rooms == 0
    link.receive(frame(ACK, 16, 12))
    assert sink.rooms == 1
    link.receive(frame(ACK, 16, 13))
    assert sink.rooms == 1


def test_room_of_a_reconnect_is_told():
    link = connected_link()
    sink = Collect(link.open("shell"))
    sink.stream.spool.limit = 100
    sink.stream.write(bytes(100))
    assert sink.stream.full
    take_all(link)
    link.disconnected()
    link.connected(1.0)
    link.receive(hello(highest=16, streams={"0": [0, 0], "1": [0, 0], "2": [0, 0], "16": [100, 60]}))
    assert sink.rooms == 1


# -- who goes first


def test_stream_with_the_fewest_bytes_under_way_goes_first():
    link = connected_link()
    bulk = link.open("iopub")
    bulk.write(bytes(2 * FIRST_BYTES // 4))
    assert [f.number for f in frames_of(take_all(link)) if f.kind == DATA] == [16, 16]
    bulk.write(bytes(FIRST_BYTES // 4))
    beat = link.open("hb")
    beat.write(b"beat")
    sent = [(f.kind, f.number) for f in frames_of(take_all(link)) if f.kind != PING]
    assert sent == [(OPEN, 17), (DATA, 17), (DATA, 16)]


def test_small_message_waits_for_one_frame_of_bulk_at_most():
    link = connected_link()
    link.open("iopub").write(bytes(WINDOW))
    quiet = link.open("control")
    link.next_frame(), link.next_frame()  # the two OPENs
    sent = [frames_of(link.next_frame())[0] for _ in range(4)]
    assert {f.number for f in sent if f.kind == DATA} == {16}
    quiet.write(b"interrupt")
    assert frames_of(link.next_frame())[0].payload == b"interrupt"


def test_two_busy_streams_share_the_pipe():
    link = connected_link()
    for channel in ("iopub", "shell"):
        link.open(channel).write(bytes(10 * FRAME_BYTES))
    numbers = [f.number for f in frames_of(take_all(link)) if f.kind == DATA]
    assert abs(numbers[:10].count(16) - numbers[:10].count(17)) <= 1


def test_bulk_waits_when_the_path_is_full_and_small_messages_do_not():
    link = connected_link()
    link.open("iopub").write(bytes(WINDOW))
    sent = frames_of(take_all(link))
    assert sum(len(f.payload) for f in sent if f.kind == DATA) == FIRST_BYTES
    marks = [f.offset for f in sent if f.kind == PING]
    assert marks == [FIRST_BYTES // 2, FIRST_BYTES]
    link.open("hb").write(b"beat")
    assert [f.payload for f in frames_of(take_all(link)) if f.kind == DATA] == [b"beat"]
    link.receive(frame(PONG, 0, marks[0]))
    assert sum(len(f.payload) for f in frames_of(take_all(link)) if f.kind == DATA) >= marks[0]


# -- close


def test_close_follows_the_last_byte_and_is_acknowledged_one_further():
    pair = Pair()
    stream = pair.launcher.open("shell")
    stream.write(b"bye")
    stream.close()
    stream.write(b"too late")
    sent, answered = pair.carry()
    assert [(f.kind, f.offset) for f in sent[-2:]] == [(DATA, 0), (CLOSE, 3)]
    assert (answered[-1].kind, answered[-1].offset) == (ACK, 4)
    assert (pair.opened[0].data, pair.opened[0].finished) == (b"bye", 1)
    assert list(pair.launcher.streams) == list(pair.agent.streams) == [0, 1, 2]
    assert pair.launcher.idle()


def test_close_waits_for_the_window():
    pair = Pair(consume=False)
    stream = pair.launcher.open("shell")
    stream.write(bytes(WINDOW + 5))
    stream.close()
    sent, _ = pair.carry()
    assert CLOSE not in [f.kind for f in sent]
    pair.opened[0].stream.consume(WINDOW)
    pair.carry()
    assert (len(pair.opened[0].data), pair.opened[0].finished) == (WINDOW + 5, 1)


def test_agent_may_close_a_stream():
    pair = Pair()
    here = Collect(pair.launcher.open("shell"))
    pair.carry()
    pair.opened[0].stream.write(b"last words")
    pair.opened[0].stream.close()
    pair.carry()
    assert (here.data, here.finished, pair.opened[0].finished) == (b"last words", 1, 0)
    assert list(pair.launcher.streams) == list(pair.agent.streams) == [0, 1, 2]


def test_both_ends_may_close_at_once():
    pair = Pair()
    here = Collect(pair.launcher.open("shell"))
    pair.carry()
    there = pair.opened[0]
    for sink in (here, there):
        sink.stream.write(b"x")
        sink.stream.close()
    pair.carry()
    assert here.finished == there.finished == 0
    assert list(pair.launcher.streams) == list(pair.agent.streams) == [0, 1, 2]


def test_bytes_for_a_closed_stream_make_room_and_go_nowhere():
    # The other end may have a window full under way when the owner closes; it must not stall before it knows.
    link, sink = agent_with_stream(consume=False)
    sink.stream.close()
    link.receive(frame(DATA, 16, 0, b"abc"))
    assert sink.data == b""
    assert sink.stream.consumed == 3


def test_late_frames_of_a_stream_that_is_gone_are_ignored():
    pair = Pair()
    stream = pair.launcher.open("shell")
    stream.close()
    pair.carry()
    for link in (pair.launcher, pair.agent):
        link.receive(frame(ACK, 16, 0) + frame(DATA, 16, 0, b"x") + frame(CLOSE, 16, 0))
        assert list(link.streams) == [0, 1, 2]


def test_stream_closed_before_it_was_ever_sent_still_arrives():
    link = Link()
    stream = link.open("shell")
    stream.write(b"x")
    stream.close()
    link.connected(0.0)
    assert [f.kind for f in frames_of(take_all(link))] == [HELLO, OPEN, DATA, CLOSE]


def test_consuming_after_the_end_is_harmless():
    pair = Pair(consume=False)
    stream = pair.launcher.open("shell")
    stream.write(b"abc")
    stream.close()
    pair.carry()
    pair.opened[0].stream.consume(3)
    pair.tick(1.0)
    assert frames_of(take_all(pair.agent)) == []


# -- reconnect


def test_reconnect_resends_what_did_not_arrive():
    pair = Pair()
    stream = pair.launcher.open("shell")
    stream.write(b"abc")
    pair.carry()
    stream.write(b"def")
    take_all(pair.launcher)  # sent, and lost
    pair.connect(1.0)
    sent, _ = pair.carry()
    assert [(f.kind, f.offset, f.payload) for f in sent if f.kind == DATA] == [(DATA, 3, b"def")]
    assert pair.opened[0].data == b"abcdef"


def test_reconnect_opens_again_what_never_arrived():
    pair = Pair()
    pair.carry()
    pair.launcher.open("shell").write(b"x")
    take_all(pair.launcher)
    pair.connect(1.0)
    pair.carry()
    assert [sink.data for sink in pair.opened] == [b"x"]


def test_reconnect_drops_what_the_other_end_closed():
    pair = Pair()
    stream = pair.launcher.open("shell")
    pair.carry()
    stream.close()
    pair.agent.receive(take_all(pair.launcher))
    take_all(pair.agent)  # the acknowledgement is lost
    assert 16 in pair.launcher.streams
    pair.connect(1.0)
    pair.carry()
    assert 16 not in pair.launcher.streams
    assert len(pair.opened) == 1


def test_reconnect_resends_a_lost_close():
    pair = Pair()
    stream = pair.launcher.open("shell")
    pair.carry()
    stream.close()
    take_all(pair.launcher)
    pair.connect(1.0)
    pair.carry()
    assert pair.opened[0].finished == 1
    assert 16 not in pair.launcher.streams


def test_half_a_frame_dies_with_its_pipe():
    pair = Pair()
    stream = pair.launcher.open("shell")
    pair.carry()
    stream.write(b"abcdef")
    data = take_all(pair.launcher)
    for cut in range(1, len(data)):
        pair.agent.receive(data[:cut])
        pair.connect(float(cut))
        pair.carry()
        assert pair.opened[0].data == b"abcdef"


def test_acknowledgements_lost_with_the_pipe_are_made_up_by_hello():
    pair = Pair()
    stream = pair.launcher.open("shell")
    stream.write(b"abc")
    pair.carry()
    assert stream.under_way == 3  # the acknowledgement waits for its time
    pair.connect(1.0)
    pair.carry()
    assert pair.launcher.idle()


def test_streams_may_open_and_write_while_there_is_no_pipe():
    pair = Pair()
    pair.carry()
    for link in (pair.launcher, pair.agent):
        link.disconnected()
    pair.launcher.open("shell").write(b"meanwhile")
    assert take_all(pair.launcher) == b""
    pair.connect(1.0)
    pair.carry()
    assert pair.opened[0].data == b"meanwhile"


# -- time


def test_ping_fills_silence():
    link = connected_link()
    assert link.due() == PING_SECONDS
    assert link.tick(PING_SECONDS - 0.1)
    assert take_all(link) == b""
    assert link.tick(PING_SECONDS)
    assert [f.kind for f in frames_of(take_all(link))] == [PING]
    assert link.due() == 2 * PING_SECONDS


def test_due_is_not_in_the_past_while_the_pipe_takes_nothing():
    # A slow uplink takes a frame every some seconds: the loop must sleep meanwhile, not spin.
    link = connected_link()
    link.open("shell").write(bytes(WINDOW))
    for now in (PING_SECONDS, PING_SECONDS + 1, PING_SECONDS + 2):
        link.tick(now)
        assert link.due() > now


def test_ping_is_answered():
    link = connected_link()
    link.receive(frame(PING))
    assert [f.kind for f in frames_of(take_all(link))] == [PONG]
    link.receive(frame(PONG))
    assert take_all(link) == b""


def test_first_word_may_take_as_long_as_a_login():
    link = Link()
    link.connected(100.0)
    assert link.tick(100.0 + GREETING_SECONDS - 0.1)
    assert not link.tick(100.0 + GREETING_SECONDS)


def test_doubt_asks_for_a_sign_of_life_soon():
    link = connected_link()
    link.tick(1.0)
    link.probe(1.0)
    assert [f.kind for f in frames_of(take_all(link))] == [PING]
    assert link.due() == 1.0 + PROBE_SECONDS
    assert link.tick(0.9 + PROBE_SECONDS)
    assert not link.tick(1.0 + PROBE_SECONDS)


def test_doubt_is_over_once_the_other_end_answers():
    link = connected_link()
    link.probe(1.0)
    link.receive(frame(PONG))
    assert link.tick(1.0 + DEAD_SECONDS - 0.1)


def test_doubt_without_a_pipe_does_nothing():
    link = connected_link()
    link.disconnected()
    link.probe(1.0)
    assert link.due() == float("inf")


def test_pipe_is_dead_after_silence_and_not_before():
    link = connected_link()
    assert link.tick(DEAD_SECONDS - 0.1)
    assert not link.tick(DEAD_SECONDS)


def test_any_frame_is_a_sign_of_life():
    link = connected_link()
    link.tick(10.0)
    link.receive(frame(PING))
    assert link.tick(10.0 + DEAD_SECONDS - 0.1)
    assert not link.tick(10.0 + DEAD_SECONDS)


def test_link_without_a_pipe_wants_no_time():
    link = connected_link()
    link.disconnected()
    assert link.due() == float("inf")
    assert link.tick(1e9)
    assert take_all(link) == b""


# -- what no Link of this version sends


def test_other_version_is_named():
    link = connected_link()
    with raises(LinkError, "protocol 99"):
        link.receive(hello(version=99))


def test_greetings_that_cannot_be_read_are_link_errors():
    texts = [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"version": 1}',
        b'{"version": 1, "highest": "x", "streams": {}}',
        b'{"version": 1, "highest": null, "streams": {}}',
        b'{"version": 1, "highest": 1e999, "streams": {}}',
        b'{"version": 1, "highest": 15, "streams": []}',
        b'{"version": 1, "highest": 15, "streams": {"0": 1}}',
        b'{"version": 1, "highest": 15, "streams": {"0": [1, 2, 3]}}',
        b'{"version": 1, "highest": 15, "streams": {"0": [Infinity, NaN]}}',
        b'{"version": 1, "highest": 15, "streams": {"x": [0, 0]}}',
        b"[" * 200000,
        b'{"a":' * 100000,
    ]
    for text in texts:
        link = Link()
        link.connected(0.0)
        with raises(LinkError, "greeting"):
            link.receive(frame(HELLO, 0, 0, text))


def test_greetings_that_cannot_be_true_are_link_errors():
    for known in ([1, 0], [0, 1], [-1, -1], [-1, 0], [1 << 60, 1 << 60]):
        link = connected_link()
        link.disconnected()
        link.connected(1.0)
        with raises(LinkError, "stream 0"):
            link.receive(hello(streams={"0": known, "1": [0, 0], "2": [0, 0]}))


def test_greeting_that_forgets_acknowledged_bytes_is_a_link_error():
    link = connected_link()
    link.streams[CONTROL].write(b"abc")
    take_all(link)
    link.receive(frame(ACK, CONTROL, 3))
    link.disconnected()
    link.connected(1.0)
    with raises(LinkError, "stream 0"):
        link.receive(hello())


def test_hostile_frames_are_link_errors():
    frames = {
        "kind 0": frame(0),
        "kind 8": frame(8),
        "kind 255": b"\xff" * 17,
        "65537 bytes": frame(DATA, 16, 0, bytes(FRAME_BYTES + 1)),
        "1048577 bytes": frame(HELLO, 0, 0, bytes(HELLO_BYTES + 1)),
        "never opened": frame(DATA, 99, 0, b"x"),
        "stream 98 was never": frame(ACK, 98, 0),
        "stream 97 was never": frame(CLOSE, 97, 0),
        "are missing": frame(DATA, 16, 5, b"x"),
        "acknowledged": frame(ACK, 16, 5),
        "closed at 5": frame(CLOSE, 16, 5),
        "stream 0: closed": frame(CLOSE, 0, 0),
    }
    for message, data in frames.items():
        link, _ = agent_with_stream()
        with raises(LinkError, message):
            link.receive(data)


def test_too_long_a_frame_is_refused_by_its_header():
    link, _ = agent_with_stream()
    with raises(LinkError, "4294967295 bytes"):
        link.receive(struct.pack("!BIQI", DATA, 16, 0, 0xFFFFFFFF))


def test_agent_cannot_open_streams_at_the_launcher():
    with raises(LinkError, "cannot be opened"):
        connected_link().receive(frame(OPEN, 16, 0, b"shell"))


def test_more_than_the_window_is_a_link_error():
    link, sink = agent_with_stream(consume=False)
    for start in range(0, WINDOW, FRAME_BYTES):
        link.receive(frame(DATA, 16, start, bytes(FRAME_BYTES)))
    assert len(sink.data) == WINDOW
    with raises(LinkError, "window"):
        link.receive(frame(DATA, 16, WINDOW, b"x"))


def test_overlapping_bytes_are_delivered_once():
    link, sink = agent_with_stream()
    link.receive(frame(DATA, 16, 0, b"abc") + frame(DATA, 16, 1, b"bcd") + frame(DATA, 16, 0, b"abcd"))
    assert sink.data == b"abcd"


def test_input_is_held_for_one_frame_only():
    link, _ = agent_with_stream()
    data = frame(DATA, 16, 0, bytes(1000))
    link.receive(data[:500])
    link.receive(data[500:] + frame(PONG) * 1000 + frame(PING)[:5])
    assert len(link._input) == 5


# -- what an end may make the other one hold


def test_pings_without_a_reader_are_a_link_error():
    """Else each would leave an answer in memory."""
    link = connected_link()
    link.receive(frame(PING) * MOST_PONGS)
    with raises(LinkError, "asks for signs of life and takes none"):
        link.receive(frame(PING))


def test_pings_whose_answers_are_taken_may_go_on_for_ever():
    link = connected_link()
    for _ in range(10):
        link.receive(frame(PING, 0, 7) * MOST_PONGS)
        assert take_all(link) == frame(PONG, 0, 7) * MOST_PONGS


def test_acknowledgements_that_nobody_takes_become_one():
    link, _ = agent_with_stream()
    take_all(link)
    size = 0
    while size < 100 * ACK_BYTES:
        link.receive(frame(DATA, 16, size, bytes(FRAME_BYTES)))
        size += FRAME_BYTES
    assert take_all(link) == frame(ACK, 16, size)


def test_endless_streams_are_a_link_error():
    link = connected_link(Collect)
    count = MOST_STREAMS - len(link.streams)
    link.receive(b"".join(frame(OPEN, 16 + number, 0, b"shell") for number in range(count)))
    with raises(LinkError, "cannot be opened"):
        link.receive(frame(OPEN, 16 + count, 0, b"shell"))


def test_streams_that_are_opened_and_closed_while_nobody_takes_the_acknowledgements_are_a_link_error():
    link = connected_link(Collect)
    with raises(LinkError, "cannot be opened"):
        for number in range(16, 16 + 3 * MOST_STREAMS):
            link.receive(frame(OPEN, number, 0, b"shell") + frame(CLOSE, number))


def test_long_name_of_a_channel_is_a_link_error():
    with raises(LinkError, "cannot be opened"):
        connected_link(Collect).receive(frame(OPEN, 16, 0, bytes(FRAME_BYTES)))


def test_link_that_is_full_has_room_again_once_streams_are_closed():
    pair = Pair()
    streams = []
    while not pair.launcher.is_full:
        streams.append(pair.launcher.open("shell"))
    pair.carry()
    pair.connect()  # the greetings name them all
    pair.carry()
    assert len(pair.opened) == len(streams)
    for stream in streams[:2]:
        stream.close()
    pair.opened[-1].stream.close()
    pair.carry()
    for _ in range(3):
        assert not pair.launcher.is_full
        pair.launcher.open("shell")
    pair.carry()
    assert len(pair.opened) == len(streams) + 3
    assert pair.launcher.is_full


# -- control messages


def messages_of(data):
    """Give what a MessageSink makes of bytes on the CONTROL stream, cut in two at every place."""
    found = None
    for cut in range(len(data) + 1):
        link = connected_link()
        heard = []
        control = link.streams[CONTROL]
        control.sink = MessageSink(control, heard.append)
        link.receive(frame(DATA, CONTROL, 0, data[:cut]) + frame(DATA, CONTROL, cut, data[cut:]))
        assert found is None or heard == found
        found = heard
    return found


def test_messages_arrive_whole_however_they_are_cut():
    link = connected_link()
    send_message(link.streams[CONTROL], {"do": "signal", "number": 2})
    send_message(link.streams[CONTROL], {"do": "b\ny\u00e9 \U0001f642"})
    (sent,) = frames_of(take_all(link))
    assert messages_of(sent.payload) == [{"do": "signal", "number": 2}, {"do": "b\ny\u00e9 \U0001f642"}]


def test_control_messages_that_cannot_be_read_are_link_errors():
    for text in (b"x\n", b"[]\n", b"1\n", b"\xff\n", b"[" * 60000 + b"\n", b'{"a":' * 12000 + b"\n"):
        with raises(LinkError, "control message"):
            link = connected_link()
            link.streams[CONTROL].sink = MessageSink(link.streams[CONTROL], lambda message: None)
            link.receive(frame(DATA, CONTROL, 0, text))


def test_control_message_without_an_end_is_a_link_error():
    link = connected_link()
    link.streams[CONTROL].sink = MessageSink(link.streams[CONTROL], lambda message: None)
    with raises(LinkError, "without an end"):
        for start in range(0, 3 * HELLO_BYTES, FRAME_BYTES):
            link.receive(frame(DATA, CONTROL, start, b"a" * FRAME_BYTES))


# -- schedules


def test_random_schedules_lose_and_repeat_nothing():
    # Fixed seeds, so that every Python plays the same; test_link_properties looks for new ones.
    for seed in range(150):
        play(random_schedule(random.Random(seed)))
