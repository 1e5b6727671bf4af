"""Find where the messages of a ZMQ connection begin and end, from the bytes that one peer sends.

Reads what ZMTP 3 (rfc.zeromq.org/spec/23) says without encryption; anything else is passed on unread.
"""

from __future__ import annotations

GREETING_BYTES = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
_LONGEST = 16 << 20  # of a message that is held until it is whole
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


class Piece:
    """Bytes of the connection as they came; `frames` is the message that they are, None where they are none."""

    __slots__ = ("frames", "raw")

    def __init__(self, raw: bytes, frames: list[bytes] | None) -> None:
        self.raw, self.frames = raw, frames


class EndFinder:
    """Find where the messages of one direction of a connection end, from its first byte on, and keep none of them."""

    def __init__(self) -> None:
        self.follows = True
        """False from where the bytes are encrypted or are no ZMTP; nothing can be found then."""
        self.greeting = bytearray()
        self._head = b""  # of a frame, as far as it is there
        self.left = 0  # bytes of the frame that are still to come
        self._last = True  # whether its message ends with it

    @property
    def between(self) -> bool:
        """True if the bytes so far end with a message."""
        return self._last and not self.left and not self._head

    def ends(self, data: bytes) -> list[int]:
        """Return the places in the next bytes at which a message, a command or the greeting is over."""
        found: list[int] = []
        at, missing = 0, GREETING_BYTES - len(self.greeting)
        if missing:
            self.greeting += data[:missing]
            at = min(missing, len(data))
            if at == missing:
                self.follows = _can_be_followed(self.greeting)
                found.append(at)
        before = len(self._head)
        if before:
            data, self._head = self._head + data, b""
        size, left = len(data), self.left
        while at < size and self.follows:
            if not left:
                flags = data[at]
                if flags & ~(_MORE | _LONG | _COMMAND):
                    self.follows = False
                    break
                head = 9 if flags & _LONG else 2
                if size - at < head:
                    self._head = data[at:]
                    break
                left = data[at + 1] if head == 2 else int.from_bytes(data[at + 1 : at + 9], "big")
                at += head
                self._last = not flags & _MORE
            step = min(left, size - at)
            left -= step
            at += step
            if self._last and not left:
                found.append(at - before)
        self.left = left
        return found


class Splitter:
    """Split one direction of a connection, from its first byte on, into pieces that together are the same bytes."""

    def __init__(self) -> None:
        self._finder = EndFinder()
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Piece]:
        """Return what is complete with the next bytes. What cannot be followed comes back as it is, from then on."""
        # At once: a peer holds the rest of its greeting back until it has seen the other's start.
        start = min(GREETING_BYTES - len(self._finder.greeting), len(data))
        pieces = [Piece(data[:start], None)] if start else []
        for end in self._finder.ends(data):
            if end > start:
                raw = bytes(self._buffer + data[start:end])
                pieces.append(Piece(raw, None if is_command(raw) else frames_of(raw)))
                self._buffer.clear()
                start = end
        self._buffer += data[start:]
        if len(self._buffer) + self._finder.left > _LONGEST:
            self._finder.follows = False
        if self._buffer and not self._finder.follows:
            pieces.append(Piece(bytes(self._buffer), None))
            self._buffer.clear()
        return pieces


def frames_of(raw: bytes) -> list[bytes]:
    """Return a message's frames from its bytes; of a message that is cut short, those that are whole."""
    found = []
    at = 0
    while at + 2 <= len(raw):
        head = 9 if raw[at] & _LONG else 2
        end = at + head + int.from_bytes(raw[at + 1 : at + head], "big")
        if end > len(raw) or at + head > len(raw):
            break
        found.append(raw[at + head : end])
        at = end
    return found


def is_command(raw: bytes) -> bool:
    """True if these bytes begin a command, not a message."""
    return bool(raw[:1]) and bool(raw[0] & _COMMAND)


def message(frames: list[bytes]) -> bytes:
    """Return a message's bytes."""
    raw = b""
    for at, frame in enumerate(frames):
        more = _MORE if at < len(frames) - 1 else 0
        long = len(frame) > 255
        raw += bytes([more | (_LONG if long else 0)]) + len(frame).to_bytes(8 if long else 1, "big") + frame
    return raw


def command(name: bytes, properties: dict[bytes, bytes]) -> bytes:
    """Return a command's frame, such as READY."""
    body = bytes([len(name)]) + name
    for key, value in properties.items():
        body += bytes([len(key)]) + key + len(value).to_bytes(4, "big") + value
    return bytes([_COMMAND, len(body)]) + body


def _can_be_followed(greeting: bytearray) -> bool:
    """True if this is ZMTP 3 without encryption."""
    signed = greeting[0] == 0xFF and greeting[9] == 0x7F
    return signed and greeting[10] >= 3 and greeting[12:32].rstrip(b"\0") == b"NULL"
