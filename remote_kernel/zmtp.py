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
