"""Messages between the two ends of a sync: a kind, a number and a body, over a byte pipe."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEGIN, ENTRIES, LEFT, PASSED, RULES, ENTRIED = b"B", b"E", b"L", b"p", b"r", b"e"
ACTIONS, PLAN, WANT, WHOLE, WANTED = b"a", b"P", b"W", b"w", b"."
FILE, DATA, SAME, DONE, SMALL = b"F", b"D", b"=", b"Z", b"f"
FAILED, SENT, UNDONE, SUMMARY, ABORT = b"X", b"s", b"x", b"S", b"A"
CHUNK = 256 << 10
LENGTH = struct.Struct(">Q")
_HEAD = struct.Struct(">cQI")
_LONGEST = 4 << 20  # of a message; the digests of a file take 1 MiB at most
_LONGEST_TEXT = 1 << 20  # of its JSON, which may be compressed a thousand times and takes 20 MB once read
MOST_UNDONE = 100  # paths named in a summary
_ROWS = 1000  # in a message
ROW_BYTES = 600  # that an entry takes once it is read, its names aside
# Of lists in one run. Every listed file takes memory, a million of them as much as a million real ones; where the other
# end lists more than half of what there is, it would end whatever runs here.
MOST_LISTED = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
TOO_MANY = "a list that fills half of the memory here"


class Broken(Exception):
    """The pipe ended in the middle."""


class Violation(Broken):
    """The other end said what it must not say at this point, or at all. Its argument tells what."""


class SyncFailure(Exception):
    """Nothing more can be done. `name` is that of an error in remote_kernel.errors."""

    def __init__(self, name: str, message: str, hint: str = "") -> None:
        super().__init__(name, message, hint)
        self.name, self.message, self.hint = name, message, hint


class MessageWire:
    """One end of the pipe. Owns neither descriptor; what is written waits for `flush`, or for a buffer to be full.

    `written` counts the bytes that have gone, `listed` those that the lists of a run take here.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = io.BufferedReader(io.FileIO(fd_in, "rb", closefd=False), CHUNK)
        self._raw = io.FileIO(fd_out, "wb", closefd=False)
        self._out = bytearray()
        self._early = b""
        self.written = self.listed = 0

    def write(self, kind: bytes, number: int = 0, body: bytes | memoryview = b"") -> None:
        """Send one message. Raises Broken."""
        self._out += _HEAD.pack(kind, number, len(body))
        if len(body) >= CHUNK // 4:
            self.flush()
            self._write(body)
            return
        self._out += body
        if len(self._out) >= CHUNK:
            self.flush()

    def write_object(self, kind: bytes, value: Any) -> None:
        """Send what JSON can hold, and is short."""
        self.write(kind, 0, zlib.compress(_json(value), 1))

    def write_rows(self, kind: bytes, rows: list[Any]) -> None:
        """Send a list, in as many messages as it takes; none for an empty one."""
        text = _json(rows) if 0 < len(rows) <= _ROWS else b""
        if text and (len(text) <= _LONGEST_TEXT or len(rows) == 1):
            self.write(kind, 0, zlib.compress(text, 1))
        elif rows:
            half = len(rows) // 2
            self.write_rows(kind, rows[:half])
            self.write_rows(kind, rows[half:])

    def flush(self) -> None:
        """Send what waits. Raises Broken."""
        if self._out:
            self._write(self._out)
            self._out = bytearray()

    def read(self) -> tuple[bytes, int, bytes]:
        """Return the next message. Raises Broken at the end, SyncFailure if the other end gave up."""
        kind, number, length = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > _LONGEST:
            raise Violation("a message that is too long")
        body = self._exactly(length)
        if kind == ABORT:
            raise _failure(body)
        return kind, number, body

    def read_object(self, kind: bytes) -> Any:
        """Return the next message, which has to be of that kind."""
        found, _, body = self.read()
        if found != kind:
            raise Violation(f"message {found!r} in place of {kind!r}")
        return decoded(body)

    def rows(self, body: bytes) -> list[Any]:
        """Return what one message of `write_rows` holds. Raises Violation, also where all of a run are too many."""
        text = _inflated(body)
        found = _read_json(text)
        if not isinstance(found, list):
            raise Violation("entries that are no list")
        self.weigh(len(text) + ROW_BYTES * len(found))
        return found

    def weigh(self, count: int) -> None:
        """Count so many bytes to what the lists of this run take. Raises Violation."""
        self.listed += count
        if self.listed > MOST_LISTED:
            raise Violation(TOO_MANY)

    def read_empty(self, kind: bytes) -> None:
        """Read the next message, which has to be of that kind and says no more."""
        found = self.read()[0]
        if found != kind:
            raise Violation(f"message {found!r} in place of {kind!r}")

    def put_back(self, data: bytes) -> None:
        """Keep what somebody else has read already: `read` begins with it."""
        self._early = data

    def at_end(self) -> bool:
        """Wait for the other end's next message, or for it to close."""
        return not self._early and not self._in.peek(1)

    def _exactly(self, count: int) -> bytes:
        try:
            early, self._early = self._early[:count], self._early[count:]
            found = early + self._in.read(count - len(early))
        except OSError as error:
            raise Broken from error
        if len(found) < count:
            raise Broken
        return found

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                count = self._raw.write(view)
                view, self.written = view[count:], self.written + count
        except OSError as error:
            raise Broken from error


def decoded(body: bytes) -> Any:
    """Return what write_object sent. Raises Broken."""
    return _read_json(_inflated(body))


def length(body: bytes) -> int:
    """Return the number that a body holds. Raises Broken."""
    if len(body) != LENGTH.size:
        raise Violation("a length that is none")
    return int.from_bytes(body, "big")


def packed(numbers: list[int]) -> bytes:
    """Return numbers as bytes."""
    return struct.pack(f">{len(numbers)}Q", *numbers)


def numbers(body: bytes) -> tuple[int, ...]:
    """Return what `packed` was called with. Raises Broken."""
    if len(body) % LENGTH.size:
        raise Violation("numbers that are none")
    return struct.unpack(f">{len(body) // LENGTH.size}Q", body)


def to_text(raw: bytes) -> str:
    """Return a path for JSON, whatever bytes it is made of."""
    return raw.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the path that `to_text` was called with."""
    return text.encode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """Return a path for a message."""
    return repr(path.decode("utf-8", "backslashreplace"))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, _LONGEST_TEXT)
    except zlib.error as error:
        raise Violation("a message that cannot be read") from error


def _read_json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Violation("a message that cannot be read") from error


def _failure(body: bytes) -> SyncFailure:
    words = decoded(body)
    if not isinstance(words, list) or len(words) != 3 or not all(isinstance(word, str) for word in words):
        raise Violation("no reason for giving up")
    return SyncFailure(*words)
