"""Keep bytes that are read rarely in a file without a name instead of in memory: a host process lives for weeks."""

from __future__ import annotations

import contextlib
import os
import tempfile


class Kept:
    """Bytes that are kept somewhere."""

    __slots__ = ("_at", "_data", "_fd", "_size")

    def __init__(self, data: bytes, fd: int = -1, at: int = 0) -> None:
        """Keep the bytes in memory, or know that they are in a file at this place."""
        self._data = data if fd < 0 else None
        self._fd, self._at, self._size = fd, at, len(data)

    def read(self) -> bytes:
        """Give the bytes. Raises OSError."""
        return os.pread(self._fd, self._size, self._at) if self._data is None else self._data


class Shelf:
    """A file that only grows, and is gone with the process. Where it cannot be written, memory takes its place."""

    def __init__(self) -> None:
        self._fd = -1
        self._end = 0

    def keep(self, data: bytes) -> Kept:
        """Put bytes into the file."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                with tempfile.TemporaryFile() as file:
                    self._fd = os.dup(file.fileno())
            if os.pwrite(self._fd, data, self._end) == len(data):
                self._end += len(data)
                return Kept(data, self._fd, self._end - len(data))
        return Kept(data)

    def close(self) -> None:
        """Let the file go, and with it what is in it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
