"""Store what a cell gave, as it came: one file of JSON lines that any number of readers follow.

The file is also the queue between the host and its clients: a reader that is slow, or comes later, or comes again after
its own process was killed, reads on from the byte that it has got to. Nothing waits in memory for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from remote_kernel.session.events import Display, Done, Event, Line, Stream, Update, to_line

HELD_BYTES = 64 << 20
KEPT_BYTES = 2 << 30  # as much as the agent's spool: a cell that prints for ever must not fill the home's disk
_CHUNK = 1 << 18
_RETRY_SECONDS = 1.0
_BULK = (Stream, Display, Update)


class Journal:
    """One cell's journal, written by its host. On a full disk its end stays in memory, up to HELD_BYTES.

    Of what a cell prints and shows KEPT_BYTES are kept; Done says how much is lost beyond either.
    """

    def __init__(self, path: str) -> None:
        """Open the file (0600) to append to it; where the disk has no room for it, all of it is held."""
        self.path = path
        self.is_done = False
        self.lost_bytes = 0  # of events that neither the disk nor the memory had room for
        self.left_out_bytes = 0  # of what came when KEPT_BYTES were there
        self._fd = -1
        self._size = 0
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = _cut_half_line(self._fd)
        self._held = bytearray()
        self._retry_at = 0.0
        self._grown = asyncio.Event()

    def append(self, event: Event, line: Line | None = None) -> None:
        """Write the event, and let those know who wait for it; `line` is its line where that is known already."""
        if isinstance(event, Done):
            event = event._replace(message="; ".join(filter(None, (event.message, self._losses()))))
        parts = line or (to_line(event),)
        self.is_done = self.is_done or isinstance(event, Done)
        size = sum(map(len, parts))
        if self._size + len(self._held) + size > KEPT_BYTES and isinstance(event, _BULK):
            self.left_out_bytes += size
            return
        if not self._held and self._write(parts):
            pass
        elif len(self._held) + size <= HELD_BYTES or not isinstance(event, _BULK):
            self._held += b"".join(parts)
        else:
            self.lost_bytes += size
        self._write_held()
        self._grown.set()

    def _write_held(self) -> None:
        """Write what the disk had no room for, once in a while: the disk may have been tidied up meanwhile."""
        if self._held and (self.is_done or time.monotonic() >= self._retry_at):
            if self._write((bytes(self._held),)):
                self._held.clear()
            self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _losses(self) -> str:
        lost = left_out = ""
        if self.lost_bytes:
            lost = f"{self.lost_bytes} bytes of what it gave are lost: the disk of {self.path} is full"
        if self.left_out_bytes:
            left_out = f"{self.left_out_bytes} bytes of what it gave are left out: {KEPT_BYTES} of a cell are kept"
        return "; ".join(filter(None, (lost, left_out)))

    @property
    def end(self) -> int:
        """The byte behind the last of it, on the disk or not."""
        return self._size + len(self._held)

    @property
    def is_held(self) -> bool:
        """True if a part of it is in memory only."""
        return bool(self._held)

    def _write(self, parts: Line) -> bool:
        """Write all of it, or nothing and return false: a reader never finds half a line before a whole one."""
        if self._fd < 0:
            return False
        size = sum(map(len, parts))
        try:
            written = os.writev(self._fd, parts)
            while written < size:
                written += os.write(self._fd, memoryview(b"".join(parts))[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            return False
        self._size += size
        return True

    async def follow(self, since: int = 0) -> AsyncIterator[bytes]:
        """Yield the bytes from `since` on, in pieces that end anywhere, until Done is among them."""
        while True:
            done = self.is_done  # before reading: what comes meanwhile is for the next round
            self._grown.clear()
            piece = self._read(since)
            since += len(piece)
            if piece:
                yield piece
            elif done:
                return
            else:
                await self._grown.wait()

    def _read(self, since: int) -> bytes:
        """Return what comes at this byte: from the disk, or what it had no room for; nothing where nothing has come."""
        if since < self._size:
            fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_RDONLY)
            try:
                return os.pread(fd, min(_CHUNK, self._size - since), since)
            finally:
                if fd != self._fd:
                    os.close(fd)
        return bytes(self._held[since - self._size : since - self._size + _CHUNK])

    def holds(self, at: int) -> bool:
        """True if this byte is among those that the disk had no room for yet, or just behind them."""
        return self._size < at <= self.end

    def restore(self) -> None:
        """Write the file anew where it was removed while it was open. Raises OSError."""
        if self._fd < 0 or os.path.exists(self.path):
            return
        new = os.open(f"{self.path}.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            copied = 0
            while piece := os.pread(self._fd, _CHUNK, copied):
                copied += os.write(new, piece)
            os.rename(f"{self.path}.new", self.path)
        except OSError:
            os.close(new)
            raise
        os.close(self._fd)
        self._fd = new

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _cut_half_line(fd: int) -> int:
    """Cut off the line in the middle of which an earlier host was killed, and return the size."""
    size = end = os.fstat(fd).st_size
    while end:
        start = max(0, end - _CHUNK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(fd, end)
    return end


def is_line_start(path: str, at: int) -> bool:
    """True if this is a byte of the journal to read on from: where a line begins, or the next one will."""
    if at <= 0:
        return at == 0
    with open(path, "rb") as file:
        file.seek(at - 1)
        return file.read(1) == b"\n"


def release_memory() -> None:
    """Release to the system what is free, where the C library can: not macOS, nor musl.

    glibc keeps what is freed in between of what is not: after a cell that has printed faster than it was written, 200
    to 450 MB of messages that had waited stayed with the host, measured for cells of 500 MB; 34 MB when released.
    """
    import ctypes  # takes a megabyte itself

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass
