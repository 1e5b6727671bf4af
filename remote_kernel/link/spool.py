"""Keep a stream's bytes until the other end has them: in memory, then in a file, then no more.

A kernel must not wait for a laptop that sleeps, so the agent takes whatever the kernel prints. The file has no
name from the moment it is made, so that nothing is left of it whatever dies.
"""

from __future__ import annotations

import os
from collections import deque

MEMORY_BYTES = 8 << 20  # at least what a Link may have under way, which is read again after a drop
REFILL_BYTES = 1 << 20
SPARE_BYTES = 16 << 20  # beyond the limit, for what cannot be left out: the end of a message, news of what is missing
SMALL_BYTES = 16 << 10


class Spool:
    """A queue of bytes with absolute offsets: appended at `end`, read near `base`, released from `base`.

    The oldest bytes are in memory and what does not fit follows in the file. `limit` bounds both together; a spool
    without folders never uses a file. A disk that is full counts as a limit that is reached.
    """

    def __init__(self, limit: int = MEMORY_BYTES, folders: tuple[str, ...] = ()) -> None:
        self.base = 0  # offset of the first byte kept
        self.limit = limit
        self._folders = folders
        # Chunks, not one bytearray: that would be moved as a whole again and again as it grows behind and shrinks in
        # front, which cost more than everything else (1.3 ms per MB).
        self._chunks: deque[bytes] = deque()
        self._chunks_at = 0  # offset of the first chunk, of which some may be released already
        self._memory = 0  # bytes in the chunks from `base` on
        self._cursor = 0  # the chunk that was read last, and its offset
        self._cursor_at = 0
        self._fd = -1
        self._file_at = self._file_end = 0  # what of the file is not in memory yet; counted on past the ring's end
        self._late: list[bytes] = []  # what the disk did not take
        self._late_bytes = 0

    def use_files(self, limit: int, folders: tuple[str, ...]) -> None:
        """Raise the limit to so many bytes, those that memory does not take in a file in one of the folders."""
        self.limit, self._folders = limit, folders

    def __len__(self) -> int:
        return self._memory + self._file_end - self._file_at + self._late_bytes

    @property
    def end(self) -> int:
        """Return the offset after the last byte."""
        return self.base + len(self)

    @property
    def full(self) -> bool:
        """True if the owner should append no more. What it appends all the same is kept, in memory at worst."""
        return bool(self._late) or len(self) >= self.limit

    @property
    def has_room(self) -> bool:
        """True if there is so much room again that it is worth while to go on, after it was full."""
        return not self._late and len(self) <= self.limit - min(self.limit // 8, SPARE_BYTES)

    @property
    def bursting(self) -> bool:
        """True if not even the spare room beyond the limit is left."""
        return len(self) >= self.limit + SPARE_BYTES or self._late_bytes >= SPARE_BYTES

    @property
    def is_disk_full(self) -> bool:
        """True if the disk is full, rather than the limit reached."""
        return bool(self._late)

    def append(self, data: bytes) -> None:
        """Keep bytes."""
        if self._late:
            self._postpone(data)
        elif self._fd < 0 and (self._memory < MEMORY_BYTES or not self._folders):
            self._hold(data)
        else:
            view = memoryview(data)
            try:
                if self._fd < 0:
                    self._fd = _unnamed_file(self._folders)
                while view and self._file_end - self._file_at < self._ring:
                    place = self._file_end % self._ring
                    count = self._ring - max(place, self._file_end - self._file_at)
                    written = os.pwrite(self._fd, view[:count], place)
                    self._file_end += written
                    view = view[written:]
            except OSError:
                pass  # the disk is full, or there is none
            if view:
                self._postpone(bytes(view))

    def _postpone(self, data: bytes) -> None:
        self._late.append(data)
        self._late_bytes += len(data)

    @property
    def _ring(self) -> int:
        """Size of the file, whose places are used again: it need never be empty while a slow reader is behind."""
        return self.limit + REFILL_BYTES + SPARE_BYTES

    def _hold(self, data: bytes) -> None:
        if self._chunks and len(self._chunks[-1]) + len(data) <= SMALL_BYTES:
            self._chunks[-1] += data  # many small messages would be many small frames
        elif data:
            self._chunks.append(data)
        self._memory += len(data)

    def read(self, offset: int, count: int) -> memoryview:
        """Return some bytes from `offset`, `count` at most, and none only where memory has none.

        Memory has MEMORY_BYTES less REFILL_BYTES from `base` on, or all there is.
        """
        if offset < self._cursor_at:
            self._cursor, self._cursor_at = 0, self._chunks_at
        while self._cursor < len(self._chunks):
            chunk = self._chunks[self._cursor]
            start = offset - self._cursor_at
            if start < len(chunk) or self._cursor + 1 == len(self._chunks):  # the last one may still grow
                return memoryview(chunk)[start : start + count]
            self._cursor += 1
            self._cursor_at += len(chunk)
        return memoryview(b"")

    def release(self, offset: int) -> None:
        """Forget what comes before `offset`, which has been read."""
        self._memory -= offset - self.base
        self.base = offset
        while self._chunks and self._chunks_at + len(self._chunks[0]) <= offset:
            self._chunks_at += len(self._chunks.popleft())
            if self._cursor:
                self._cursor -= 1
            else:
                self._cursor_at = self._chunks_at
        if (self._fd >= 0 or self._late) and self._memory <= MEMORY_BYTES - REFILL_BYTES:
            self._refill()

    def _refill(self) -> None:
        while self._file_at < self._file_end and self._memory < MEMORY_BYTES:
            place = self._file_at % self._ring
            count = min(REFILL_BYTES, self._file_end - self._file_at, self._ring - place)
            data = os.pread(self._fd, count, place)
            self._hold(data)
            self._file_at += len(data)
        if self._file_at == self._file_end:
            for data in self._late:
                self._hold(data)
            self._late.clear()
            self._late_bytes = 0
            self.close()

    def close(self) -> None:
        """Close the file, which frees its space. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._file_at = self._file_end = 0


def _unnamed_file(folders: tuple[str, ...]) -> int:
    """Make a file without a name in the first folder that takes one, and give its descriptor."""
    refused: OSError | None = None
    for folder in folders:
        path = os.path.join(folder, f"remote_kernel-{os.urandom(6).hex()}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            refused = error
            continue
        os.unlink(path)
        return fd
    raise refused or OSError("no folder for the spool")
