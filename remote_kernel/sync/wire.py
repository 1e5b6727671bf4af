"""Messages between the two ends of a sync: a kind, a number and a body, over a byte pipe.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import io
import json
import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEGIN, ENTRIES, ENTRIED, PLAN, WANT, WHOLE, WANTED = b"B", b"E", b"e", b"P", b"W", b"w", b"."
FILE, DATA, SAME, DONE, SMALL = b"F", b"D", b"=", b"Z", b"f"
FAILED, SENT, SUMMARY, ABORT = b"X", b"s", b"S", b"A"
CHUNK = 256 << 10
LENGTH = struct.Struct(">Q")
_HEAD = struct.Struct(">cQI")
_LONGEST = 256 << 20  # a plan of a million paths; digests of a file of 4 TiB take 2 MiB


class Broken(Exception):
    """The pipe ended in the middle."""


class Violation(Broken):
    """The other end said what it must not say at this point, or at all. Its argument tells what."""


class SyncFailure(Exception):
    """Nothing more can be done. `name` is that of an error in remote_kernel.errors."""

    def __init__(self, name: str, message: str, hint: str = "") -> None:
        super().__init__(name, message, hint)
        self.name, self.message, self.hint = name, message, hint


class Wire:
    """One end of the pipe. Owns neither descriptor; what is written waits for `flush`, or for a buffer to be full.

    `written` counts the bytes that have gone.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = io.BufferedReader(io.FileIO(fd_in, "rb", closefd=False), CHUNK)
        self._raw = io.FileIO(fd_out, "wb", closefd=False)
        self._out = bytearray()
        self._early = b""
        self.written = 0

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
        """Send what JSON can hold."""
        self.write(kind, 0, zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 1))

    def flush(self) -> None:
        """Send what waits. Raises Broken."""
        if self._out:
            self._write(self._out)
            self._out = bytearray()

    def read(self) -> tuple[bytes, int, bytes]:
        """Give the next message. Raises Broken at the end, SyncFailure if the other end gave up."""
        kind, number, length = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > _LONGEST:
            raise Violation("a message that is too long")
        body = self._exactly(length)
        if kind == ABORT:
            raise _failure(body)
        return kind, number, body

    def read_object(self, kind: bytes) -> Any:
        """Give the next message, which has to be of that kind."""
        found, _, body = self.read()
        if found != kind:
            raise Violation(f"message {found!r} in place of {kind!r}")
        return decoded(body)

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
    """Give what write_object sent. Raises Broken."""
    try:
        return json.loads(zlib.decompressobj().decompress(body, _LONGEST))
    except (ValueError, RecursionError, zlib.error) as error:
        raise Violation("a message that cannot be read") from error


def length(body: bytes) -> int:
    """Give the number that a body holds. Raises Broken."""
    if len(body) != LENGTH.size:
        raise Violation("a length that is none")
    return int.from_bytes(body, "big")


def packed(numbers: list[int]) -> bytes:
    """Give numbers as bytes."""
    return struct.pack(f">{len(numbers)}Q", *numbers)


def numbers(body: bytes) -> tuple[int, ...]:
    """Give what `packed` was called with. Raises Broken."""
    if len(body) % LENGTH.size:
        raise Violation("numbers that are none")
    return struct.unpack(f">{len(body) // LENGTH.size}Q", body)


def to_text(raw: bytes) -> str:
    """Give a path for JSON, whatever bytes it is made of."""
    return raw.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Give the path that `to_text` was called with."""
    return text.encode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """Give a path for a message."""
    return repr(path.decode("utf-8", "backslashreplace"))


def _failure(body: bytes) -> SyncFailure:
    words = decoded(body)
    if not isinstance(words, list) or len(words) != 3 or not all(isinstance(word, str) for word in words):
        raise Violation("no reason for giving up")
    return SyncFailure(*words)
