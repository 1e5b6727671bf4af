"""The Link under schedules that nobody thought of: cuts at any byte, slow readers, closes, reconnects, garbage."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_kernel.link import link as link_module
from remote_kernel.link.link import DATA, FRAME_BYTES, HEADER, HELLO_BYTES, OPEN, Link, LinkError, MessageSink, Sink
from tests.unit.remote.two_links import (
    SMALL,
    STEP_NAMES,
    World,
    frame,
    play,
    play_step,
    random_schedule,
    sizes,
    take_all,
)

_SIZES = st.one_of(st.integers(0, 64), st.integers(0, 3000), st.sampled_from([699, 700, 701, 999, 1000, 4000, 8000]))
_SCHEDULES = st.lists(st.tuples(st.sampled_from(STEP_NAMES), st.integers(0, 60), _SIZES), min_size=10, max_size=160)
_RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "database": None}


@settings(max_examples=600, **_RELAXED)
@given(_SCHEDULES)
def test_every_byte_arrives_once_and_in_order(steps: list[tuple[str, int, int]]) -> None:
    play(steps)


def test_schedules_reach_what_they_are_meant_to_reach() -> None:
    # A schedule that never fills a window or never cuts half a frame would prove nothing.
    seen = dict.fromkeys(("window", "half a frame", "close", "nobody", "full"), 0)
    with sizes(**SMALL):
        for seed in range(100):
            world = World()
            world.connect()
            for step in random_schedule(random.Random(seed)):
                _note(world, step, seen)
    assert all(count >= 10 for count in seen.values()), seen


def _note(world: World, step: tuple[str, int, int], seen: dict[str, int]) -> None:
    halves = [bool(end.link._input) for end in world.ends]
    play_step(world, *step)
    if step[0] in ("cut", "connect", "nobody") and any(halves):
        seen["half a frame"] += 1
    seen["nobody"] += step[0] == "nobody"
    for end in world.ends:
        seen["window"] += any(s.under_way == link_module.WINDOW for s in end.link.streams.values())
        seen["full"] += any(record.waiting_for_room for record in end.records.values())
        seen["close"] += any(record.finished for record in end.records.values())


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_ten_thousand_schedules_lose_nothing() -> None:
    start = random.SystemRandom().randrange(1 << 32)
    for seed in range(start, start + 10000):
        try:
            play(random_schedule(random.Random(seed)))
        except Exception as error:
            raise AssertionError(f"schedule of seed {seed}") from error


# -- garbage


class Absorb(Sink):
    """Take everything at once."""

    def __init__(self, link: Link, number: int) -> None:
        self.stream = link.streams[number]
        self.stream.sink = self

    def deliver(self, data: bytes) -> None:
        self.stream.consume(len(data))


def _listening(agent: bool) -> Link:
    link = Link((lambda stream: setattr(stream, "sink", Absorb(link, stream.id))) if agent else None)
    control = link.streams[0]
    control.sink = MessageSink(control, lambda message: None)
    for number in (1, 2):
        Absorb(link, number)
    if not agent:
        Absorb(link, link.open("shell").id)
    link.connected(0.0)
    take_all(link)
    return link


def _feed(link: Link, pieces: list[bytes]) -> bool:
    """Feed pieces until the Link refuses; check after each that it holds no more than one frame."""
    for piece in pieces:
        try:
            link.receive(piece)
        except LinkError:
            return False
        assert len(link._input) < HEADER.size + max(HELLO_BYTES, FRAME_BYTES)
        take_all(link)
        held = sum(len(stream.spool) for stream in link.streams.values())
        assert held == 0, "it keeps bytes that nobody wrote"
    return True


@settings(max_examples=300, **_RELAXED)
@given(st.booleans(), st.lists(st.binary(max_size=200), max_size=10))
def test_random_bytes_are_taken_or_refused(agent: bool, pieces: list[bytes]) -> None:
    _feed(_listening(agent), pieces)


_FRAMES = st.builds(
    frame,
    st.integers(0, 8),
    st.one_of(st.integers(0, 20), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"{}", b'{"version": 1, "highest": 1e999, "streams": {}}', b"[" * 5000, b"\n[[[\n"]),
    ),
)


@settings(max_examples=300, **_RELAXED)
@given(st.booleans(), st.lists(_FRAMES, max_size=12))
def test_random_frames_are_taken_or_refused(agent: bool, frames: list[bytes]) -> None:
    _feed(_listening(agent), frames)


def _traffic(seed: int) -> bytes:
    """Give what a busy launcher sends on its first pipe to an agent that has nothing to say."""
    chooser = random.Random(seed)
    world = World()
    world.connect()
    sent = b""
    for _ in range(6):
        world.open("shell").write(chooser.randrange(2000))
        for end in world.ends:
            for record in end.records.values():
                record.consume(record.unread)
                if end.side == 0:
                    record.write(chooser.randrange(500))
                    if record.stream.id >= 16 and chooser.random() < 0.2:
                        record.close()
            while world.send(end, 1):
                pass
            sent += bytes(end.wire) if end.side == 0 else b""
            world.carry(end, len(end.wire))
        world.pass_time(0.3)
    return sent


def _absorbing_agent() -> Link:
    link = Link(lambda stream: setattr(stream, "sink", Absorb(link, stream.id)))
    for number in (0, 1, 2):
        Absorb(link, number)
    link.connected(0.0)
    take_all(link)
    return link


_TRAFFIC = [_traffic(seed) for seed in range(5)]


@settings(max_examples=300, **_RELAXED)
@given(
    st.sampled_from(_TRAFFIC),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from(["flip", "drop", "double", "insert"])), max_size=4),
    st.lists(st.integers(1, 4000), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_damaged_traffic_is_taken_or_refused(
    traffic: bytes, damages: list[tuple[int, str]], cuts: list[int], chooser: random.Random
) -> None:
    data = bytearray(traffic)
    for place, kind in damages:
        at = place % len(data)
        if kind == "flip":
            data[at] ^= 1 << chooser.randrange(8)
        elif kind == "drop":
            del data[at : at + chooser.randrange(1, 40)]
        elif kind == "double":
            data[at:at] = data[at : at + 60]
        else:
            data[at:at] = bytes(chooser.randrange(256) for _ in range(20))
    pieces = []
    while data:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(bytes(data[:size]))
        del data[:size]
    _feed(_absorbing_agent(), pieces)


def test_undamaged_traffic_is_taken() -> None:
    # What keeps the test above honest: without damage none of it is refused.
    for traffic in _TRAFFIC:
        assert _feed(_absorbing_agent(), [traffic])


def test_flood_of_one_stream_is_refused_at_its_window() -> None:
    held = []
    link = Link(lambda stream: held.append(stream))
    link.connected(0.0)
    take_all(link)
    link.receive(frame(OPEN, 16, 0, b"iopub"))
    sent = 0
    while sent < link_module.WINDOW:
        link.receive(frame(DATA, 16, sent, bytes(FRAME_BYTES)))
        sent += FRAME_BYTES
    with pytest.raises(LinkError, match="window"):
        link.receive(frame(DATA, 16, sent, b"x"))
