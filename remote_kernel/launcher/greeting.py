"""Send a front end the first bytes of ZMTP's greeting before the kernel, a round trip away, has said a word.

Two peers greet in turns: each sends ten bytes, its version once it has seen those, and the rest once it has seen the
version. Over the Link that is a round trip in which nothing else happens, at every connection. But the first eleven
bytes are the same from every peer of version 3, so a front end gets them at once, and its own whole greeting waits
for the kernel's socket. Of the kernel's bytes the first eleven then go no further; all others go through untouched.

A kernel that greets in another way (libzmq before 4.0, of 2013) has its connection closed, and so has the front end,
which connects again by itself; by then the launcher knows, and gives no more head starts.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from remote_kernel.link.link import LinkStream, Sink

FIRST_BYTES = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"  # ZMTP 3.1: signature, major version
_MARK, _VERSION = 9, 10


class EarlyGreeting(Sink):
    """Stand before a stream's sink until the kernel's first bytes have come, of which the front end has the like."""

    def __init__(self, stream: LinkStream, connection: socket.socket, refused: Callable[[], None]) -> None:
        """Send the front end its first bytes. `refused` is called if the kernel greets in another way."""
        self._stream, self._sink, self._refused = stream, stream.sink, refused
        self._came = b""
        stream.sink = self
        with contextlib.suppress(OSError):  # it has gone already, as the stream's sink is about to notice
            connection.send(FIRST_BYTES)

    def deliver(self, data: memoryview) -> None:
        """Discard the kernel's first bytes, then step aside."""
        count = min(len(data), len(FIRST_BYTES) - len(self._came))
        self._came += data[:count]
        self._stream.consume(count)
        if not _begins_alike(self._came):
            self._refused()
            self._stream.close()
            self._sink.finish()
        elif len(self._came) < len(FIRST_BYTES):
            return
        self._stream.sink = self._sink
        if count < len(data):
            self._sink.deliver(data[count:])

    def finish(self) -> None:
        """Close the front end's connection: the kernel has closed its own."""
        self._sink.finish()

    def room(self) -> None:
        """Read the front end again."""
        self._sink.room()


def _begins_alike(came: bytes) -> bool:
    """True if these may be the first bytes of a version 3 greeting; what is between its two marks is free."""
    return (
        came[:1] == FIRST_BYTES[:1]
        and came[_MARK:_VERSION] in (b"", FIRST_BYTES[_MARK:_VERSION])
        and (len(came) <= _VERSION or came[_VERSION] >= FIRST_BYTES[_VERSION])
    )
