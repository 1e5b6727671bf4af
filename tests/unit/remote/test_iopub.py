"""What the agent does with iopub when there is no room: it reads on, discards whole messages, and counts them."""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.session import Session

from remote_kernel.jupyter.signing import DELIMITER, Signer
from remote_kernel.jupyter.zmtp import GREETING, EndFinder, Splitter, command, frames_of, message
from remote_kernel.link import spool as spool_module
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import Reactor
from remote_kernel.remote.iopub import IopubSocket, MissingMessages
from remote_kernel.remote.text_log import _text

KEY = "secret"
READY = command(b"READY", {b"Socket-Type": b"XPUB"})
CURVE = GREETING.replace(b"NULL\0", b"CURVE")
SESSION = Session(key=KEY.encode())
REACTORS: list[Reactor] = []
OPENED: list[socket.socket] = []
NOTICE = re.compile(r"\n\[remote_kernel: (\d+) messages? \(\d+\.\d MiB\) are missing here: .*\]\n")


def published(kind: str, content: dict[str, Any], cell: str = "cell") -> bytes:
    """Give a message as the kernel's iopub sends it."""
    made = SESSION.msg(kind, content, parent={"msg_id": cell, "session": "front end"})
    return message([kind.encode(), *SESSION.serialize(made)])


def line(n: int, size: int = 0, cell: str = "cell") -> bytes:
    return published("stream", {"name": "stdout", "text": f"{n} {'x' * size}\n"}, cell)


def status(state: str, cell: str = "cell") -> bytes:
    return published("status", {"execution_state": state}, cell)


class Socket:
    """A connection to iopub with room for `limit` bytes, and what came of it."""

    def __init__(self, limit: int, inherited: IopubSocket | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.near, far = socket.socketpair()
        OPENED.extend((self.near, far))
        self.stream = Link().open("iopub")
        self.stream.spool.limit = limit
        self.far = far
        self.sink = IopubSocket(
            REACTORS[0], self.stream, self.near, lambda _: None, {"key": KEY}, self._told, inherited
        )
        self.raw = b""

    def _told(self, event: str, **fields: Any) -> None:
        self.events.append(dict(fields, event=event))

    def take(self, data: bytes, step: int = 1000) -> None:
        for start in range(0, len(data), step):
            self.sink.take(data[start : start + step])
            self.sink.must_pause()

    def drain(self) -> None:
        """Be a front end that takes all there is."""
        while self.stream.unsent() > 0:
            self.raw += self.stream.piece()
            self.stream.release(self.stream.sent)
            self.stream._link._note_room(self.stream)

    def messages(self) -> list[dict[str, Any]]:
        """Give what came; each has to be signed as the kernel signs."""
        found = []
        for piece in Splitter().feed(self.raw):
            if piece.frames:
                assert Signer({"key": KEY}).accepts(piece.frames)
                at = piece.frames.index(DELIMITER)
                header, parent, _, content = map(json.loads, piece.frames[at + 2 : at + 6])
                found.append({"type": header["msg_type"], "cell": parent["msg_id"], **content})
        return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spool_module, "SPARE_BYTES", 20_000)
    with Reactor() as reactor:
        REACTORS[:] = [reactor]
        yield
    while OPENED:
        OPENED.pop().close()


def numbers_and_missing(found: list[dict[str, Any]]) -> tuple[list[int], int]:
    """Give the numbers of the lines, and how many messages the notices say are missing."""
    numbers, missing = [], 0
    for each in found:
        if each["type"] == "stream" and each["name"] == "stderr":
            said = NOTICE.fullmatch(each["text"])
            assert said, each
            missing += int(said[1])
        elif each["type"] == "stream":
            numbers.append(int(each["text"].split()[0]))
    return numbers, missing


@pytest.mark.parametrize("step", [1, 100, 100_000])
@pytest.mark.parametrize("beyond", [0, 10], ids=["acknowledged to an end", "in the middle"])
def test_launcher_in_the_place_of_a_killed_one_gets_what_that_one_has_not_acknowledged(step: int, beyond: int) -> None:
    killed = Socket(1 << 20)
    begun = GREETING + READY + line(0) + line(1)
    killed.take(begun, step)
    killed.take(b"".join(line(n) for n in range(2, 40)), step)
    killed.stream.sent = len(begun) + beyond
    killed.stream.release(len(begun) + beyond)
    assert killed.sink.is_acknowledged_to_an_end == (not beyond)
    other = Socket(1 << 20, killed.sink)
    other.take(GREETING + READY, step)
    killed.far.sendall(line(40))
    other.take(line(40) + line(41), step)
    other.drain()
    numbers, _ = numbers_and_missing(other.messages())
    assert numbers == [*range(3 if beyond else 2, 41), 40, 41]  # that one comes twice: each connection brings it
    assert killed.near.fileno() < 0
    assert other.sink.is_acknowledged_to_an_end


def test_what_nobody_inherits_any_longer_is_closed() -> None:
    killed = Socket(1 << 20)
    killed.take(GREETING + READY + line(0))
    Socket(1 << 20, killed.sink).sink.finish()
    assert killed.near.fileno() < 0


def test_what_has_no_room_is_counted_and_the_end_of_the_cell_comes() -> None:
    made = Socket(50_000)
    made.take(GREETING + READY + status("busy") + b"".join(line(n, 500) for n in range(200)) + status("idle"))
    assert made.events == [{"event": "overflow", "exact": True, "disk": False}]
    made.drain()
    found = made.messages()
    numbers, missing = numbers_and_missing(found)
    assert numbers == list(range(len(numbers))) and 40 < len(numbers) < 80
    assert missing == 200 - len(numbers)
    assert [each.get("execution_state") for each in (found[0], found[-1])] == ["busy", "idle"]
    assert found[-2]["name"] == "stderr"
    assert (made.events[1]["event"], made.events[1]["messages"]) == ("discarded", missing)


def test_what_comes_after_there_is_room_again_is_complete() -> None:
    made = Socket(20_000)
    made.take(GREETING + READY + b"".join(line(n, 500) for n in range(100)))
    made.drain()
    made.take(b"".join(line(n, 500) for n in range(100, 110)))
    made.drain()
    numbers, missing = numbers_and_missing(made.messages())
    assert numbers[-10:] == list(range(100, 110))
    assert len(numbers) + missing == 110


def test_each_cell_is_told_of_its_own_loss() -> None:
    made = Socket(10_000)
    flood = [line(n, 500, cell) for cell in ("one", "two") for n in range(50)]
    made.take(GREETING + READY + b"".join(flood))
    made.drain()
    notices = [(each["cell"], each["text"]) for each in made.messages() if each.get("name") == "stderr"]
    assert [cell for cell, _ in notices] == ["one", "two"]
    assert "50 messages" in notices[1][1]


def test_results_and_errors_come_through_and_large_ones_do_not() -> None:
    made = Socket(10_000)
    flood = b"".join(line(n, 500) for n in range(50))
    error = published("error", {"ename": "ZeroDivisionError", "evalue": "", "traceback": []})
    large = published("execute_result", {"data": {"text/plain": "x" * 70_000}})
    made.take(GREETING + READY + flood + large + error)
    made.drain()
    assert [each["type"] for each in made.messages()][-2:] == ["stream", "error"]


def test_a_large_message_that_was_begun_is_completed() -> None:
    made = Socket(10_000)
    made.take(GREETING + READY + line(0, 25_000) + line(1), step=1000)
    made.drain()
    assert numbers_and_missing(made.messages()) == ([0], 1)


def test_a_message_that_bursts_the_spare_room_waits() -> None:
    made = Socket(10_000)
    data = GREETING + READY + line(0, 100_000)
    made.take(data[:40_000], step=1000)
    assert made.sink.must_pause()
    assert made.events == [{"event": "overflow", "exact": False, "disk": False}]
    made.drain()
    made.take(data[40_000:])
    made.drain()
    assert numbers_and_missing(made.messages()) == ([0], 0)


def test_even_the_state_of_cells_is_bounded() -> None:
    made = Socket(10_000)
    made.take(GREETING + READY + status("busy") * 1000)
    assert len(made.stream.spool) < 10_000 + 20_000 + 2_000
    made.drain()
    found = made.messages()
    _, missing = numbers_and_missing(found)
    assert len([each for each in found if each["type"] == "status"]) + missing == 1000


def test_an_encrypted_connection_is_read_no_further_and_the_loss_is_said_to_be_unknown() -> None:
    made = Socket(10_000)
    made.take(CURVE + b"\x04" + bytes(20_000))
    assert made.sink.must_pause()
    assert made.events == [{"event": "overflow", "exact": False, "disk": False}]
    made.drain()
    assert len(made.raw) == 64 + 20_001


def test_the_end_of_the_kernel_gives_the_count_too() -> None:
    made = Socket(10_000)
    made.take(GREETING + READY + b"".join(line(n, 500) for n in range(50)))
    made.sink.at_end()
    made.drain()
    numbers, missing = numbers_and_missing(made.messages())
    assert len(numbers) + missing == 50
    assert made.events[-1]["messages"] == missing


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 32), limit=st.sampled_from([2_000, 30_000]), step=st.sampled_from([30, 900, 5000]))
def test_every_message_comes_or_is_counted(seed: int, limit: int, step: int) -> None:
    chance = random.Random(seed)
    made = Socket(limit)
    sent = chance.randrange(100)
    lines = [line(n, chance.choice([1, 300, 3000]), chance.choice(["a", "b"])) for n in range(sent)]
    data = GREETING + READY + b"".join(lines) + status("idle")
    slowness = chance.choice([3, 30, 300])
    for start in range(0, len(data), step):
        made.take(data[start : start + step], step)
        if not chance.randrange(slowness):
            made.drain()
    made.drain()
    numbers, missing = numbers_and_missing(made.messages())
    assert numbers == sorted(set(numbers))
    assert len(numbers) + missing == sent
    assert sum(each.get("messages", 0) for each in made.events) == missing
    assert [each for each in made.messages() if each.get("execution_state") == "idle"]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=4), max_size=6),
    st.randoms(use_true_random=False),
)
def test_ends_are_where_the_messages_end(all_frames: list[list[bytes]], chance: random.Random) -> None:
    messages = [message(frames) for frames in all_frames]
    data = GREETING + READY + b"".join(messages)
    finder, ends, at = EndFinder(), [], 0
    while at < len(data):
        step = chance.choice([1, 2, 5, 100, 1000])
        ends += [at + end for end in finder.ends(data[at : at + step])]
        at += step
    places = [len(GREETING), len(GREETING + READY)]
    for each in messages:
        places.append(places[-1] + len(each))
    assert ends == places
    assert finder.follows and finder.between
    assert [frames_of(each) for each in messages] == all_frames


@pytest.mark.parametrize("header", [b"\x81\xa3abc", b"[" * 100_000, b"[]"], ids=["msgpack", "nested", "no object"])
def test_a_loss_of_messages_that_are_no_json_is_told_to_the_log_alone(header: bytes) -> None:
    missing = MissingMessages([b"topic", DELIMITER, b"", header, b"parent", b"", b""])
    missing.add(100)
    assert missing.notice(Signer({"key": "k"})) == b""


def test_text_log_passes_over_what_is_nested_too_deep() -> None:
    deep = b"[" * 100_000
    assert _text([DELIMITER, b"", b'{"msg_type": "stream"}', b"{}", b"{}", deep]) == ""
    assert _text([DELIMITER, b"", deep, b"{}", b"{}", b"{}"]) == ""
