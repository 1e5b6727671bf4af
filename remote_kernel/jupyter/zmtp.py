"""Tell where the messages of a ZMQ connection begin and end, from the bytes that one peer sends.

Reads what ZMTP 3 (rfc.zeromq.org/spec/23) says without encryption; anything else is passed on unread.
Python 3.8, standard library: this file is shipped to the remote host too.
"""

from __future__ import annotations

_GREETING_BYTES = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
_LONGEST = 16 << 20


GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


class Piece:
    """Bytes of the connection as they came; `frames` is the message that they are, None where they are none."""

    __slots__ = ("frames", "raw")

    def __init__(self, raw: bytes, frames: list[bytes] | None) -> None:
        self.raw, self.frames = raw, frames


class Follower:
    """Split one direction of a connection, from its first byte on, into pieces that together are the same bytes."""

    def __init__(self) -> None:
        self._greeting = bytearray()
        self._buffer = bytearray()
        self._blind = False

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes; give what is complete. What cannot be followed comes back as it is, from then on."""
        pieces: list[Piece] = []
        missing = _GREETING_BYTES - len(self._greeting)
        if missing:  # goes on at once: a peer holds the rest of its greeting back until it has seen the other's start
            self._greeting += data[:missing]
            pieces.append(Piece(data[:missing], None))
            if len(self._greeting) == _GREETING_BYTES:
                self._blind = not _can_be_followed(self._greeting)
        self._buffer += data[missing:]
        while not self._blind and self._take_message(pieces):
            pass
        if self._blind and self._buffer:
            pieces.append(Piece(self._take(len(self._buffer)), None))
        return pieces

    def _take_message(self, pieces: list[Piece]) -> bool:
        at = 0
        frames: list[bytes] = []
        while True:
            if len(self._buffer) < at + 2:
                return False
            flags = self._buffer[at]
            if flags & ~(_MORE | _LONG | _COMMAND):
                self._blind = True
                return False
            head = 9 if flags & _LONG else 2
            if len(self._buffer) < at + head:
                return False
            size = int.from_bytes(self._buffer[at + 1 : at + head], "big")
            end = at + head + size
            if end > _LONGEST:
                self._blind = True
                return False
            if len(self._buffer) < end:
                return False
            if flags & _COMMAND:
                if frames:  # the spec does not forbid it in the middle of a message; no peer does it
                    self._blind = True
                    return False
                pieces.append(Piece(self._take(end), None))
                return True
            frames.append(bytes(self._buffer[at + head : end]))
            at = end
            if not flags & _MORE:
                pieces.append(Piece(self._take(at), frames))
                return True

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


class Skimmer:
    """Tell where the messages of one direction of a connection end, from its first byte on, and keep none of them."""

    def __init__(self) -> None:
        self.follows = True
        """False from where the bytes are encrypted or are no ZMTP; nothing can be told then."""
        self._greeting = bytearray()
        self._head = b""  # of a frame, as far as it is there
        self._left = 0  # bytes of the frame that are still to come
        self._last = True  # whether its message ends with it

    @property
    def between(self) -> bool:
        """Whether the bytes so far end with a message."""
        return self._last and not self._left and not self._head

    def ends(self, data: bytes) -> list[int]:
        """Take the next bytes; give the places in them at which a message, a command or the greeting is over."""
        found: list[int] = []
        at, size = 0, len(data)
        missing = _GREETING_BYTES - len(self._greeting)
        if missing:
            self._greeting += data[:missing]
            at = min(missing, size)
            if at == missing:
                self.follows = _can_be_followed(self._greeting)
                found.append(at)
        left = self._left
        while at < size and self.follows:
            if left:
                pass
            elif self._head or size - at < 9:
                at, left = self._take_head(data, at)
            else:  # most heads; by the function each message takes 3 us longer
                flags = data[at]
                if flags & ~(_MORE | _LONG | _COMMAND):
                    self.follows = False
                    break
                if flags & _LONG:
                    left = int.from_bytes(data[at + 1 : at + 9], "big")
                    at += 9
                else:
                    left = data[at + 1]
                    at += 2
                self._last = not flags & _MORE
            step = min(left, size - at)
            left -= step
            at += step
            if self._last and not left and not self._head:
                found.append(at)
        self._left = left
        return found

    def _take_head(self, data: bytes, at: int) -> tuple[int, int]:
        """Read a frame's flags and size, or as much of them as there is; give the place behind it and the size."""
        before = len(self._head)
        head = self._head + data[at : at + 9 - before]
        flags = head[0]
        if flags & ~(_MORE | _LONG | _COMMAND):
            self.follows = False
            return at, 0
        size = 9 if flags & _LONG else 2
        if len(head) < size:
            self._head = head
            return at + len(head) - before, 0
        self._head = b""
        self._last = not flags & _MORE
        return at + size - before, int.from_bytes(head[1:size], "big")


def frames_of(raw: bytes) -> list[bytes]:
    """Give a message's frames from its bytes; of a message that is cut short, those that are whole."""
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
    """Whether these bytes begin a command, not a message."""
    return bool(raw[:1]) and bool(raw[0] & _COMMAND)


def message(frames: list[bytes]) -> bytes:
    """Give a message's bytes."""
    raw = b""
    for at, frame in enumerate(frames):
        more = _MORE if at < len(frames) - 1 else 0
        long = len(frame) > 255
        raw += bytes([more | (_LONG if long else 0)]) + len(frame).to_bytes(8 if long else 1, "big") + frame
    return raw


def command(name: bytes, properties: dict[bytes, bytes]) -> bytes:
    """Give a command's frame, such as READY."""
    body = bytes([len(name)]) + name
    for key, value in properties.items():
        body += bytes([len(key)]) + key + len(value).to_bytes(4, "big") + value
    return bytes([_COMMAND, len(body)]) + body


def _can_be_followed(greeting: bytearray) -> bool:
    """Whether this is ZMTP 3 without encryption."""
    signed = greeting[0] == 0xFF and greeting[9] == 0x7F
    return signed and greeting[10] >= 3 and greeting[12:32].rstrip(b"\0") == b"NULL"
