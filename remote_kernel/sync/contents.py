"""Take in the contents of files, each beside its final name until it is whole.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import blake2b

from remote_kernel.sync import blocks, small, wire
from remote_kernel.sync.part import Part, opened_part, part_path
from remote_kernel.sync.plan import is_same_time
from remote_kernel.sync.tree import FILE, Entry
from remote_kernel.sync.wire import LENGTH, Broken, SyncFailure, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = (errno.ENOSPC, errno.EDQUOT)


def basis(target: bytes, entry: Entry) -> bytes:
    """Give the digests of the blocks that need not come again: of the unfinished file, then of the one to replace."""
    if entry.size < blocks.LEAST:
        return b""
    block = blocks.block_size(entry.size)
    found = b""
    for path, whole_blocks in ((part_path(target), True), (target, False)):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_size < blocks.LEAST:
                continue
            end = min(about.st_size, entry.size)
            found += blocks.digests(
                fd, block, len(found) // blocks.DIGEST, end // block * block if whole_blocks else end
            )
        except OSError:
            continue
        finally:
            os.close(fd)
    return found


def has_old_version(target: bytes, entry: Entry) -> bool:
    """Whether a large file is to replace a large one, and nothing of it has come yet."""
    if entry.size < blocks.LEAST or os.path.lexists(part_path(target)):
        return False
    try:
        there = os.lstat(target)
    except OSError:
        return False
    return stat.S_ISREG(there.st_mode) and there.st_size >= blocks.LEAST


class Contents:
    """Receives files into `root`. `moved` is called with bytes and files that have been dealt with.

    `files` and `bytes` count what got its final name; `failed` are paths that did not, each with the reason.
    """

    def __init__(self, wire_: Wire, root: bytes, entries: list[Entry], moved: Callable[[int, int], None]) -> None:
        self._wire, self._root, self._entries, self._moved = wire_, root, entries, moved
        self.files = self.bytes = 0
        self.failed: list[tuple[bytes, str]] = []
        self._writer = small.Writer(root)
        self._is_inside = False  # whether more of a file is still to come

    def receive(self) -> None:
        """Take in files until the other end has sent all. Raises Broken, SyncFailure when nothing more fits."""
        while True:
            kind, number, body = self._wire.read()
            if kind == wire.SENT:
                return
            if kind not in (wire.SMALL, wire.FILE, wire.MOVED) or number >= len(self._entries):
                raise Broken
            entry = self._entries[number]
            if kind == wire.SMALL:
                self._small(entry, body)
                continue
            if kind == wire.MOVED:
                self._take_over(entry)
                continue
            self._is_inside = True
            try:
                self._file(entry)
            except OSError as error:
                self._fail(entry, error)
                self._skip()

    def _small(self, entry: Entry, data: bytes) -> None:
        """Write a file that came in one piece."""
        if len(data) != entry.size or entry.kind != FILE:
            raise Broken
        try:
            if not self._writer.write(entry, data):
                self._write_with_care(entry, data)
        except OSError as error:
            self._fail(entry, error)
            return
        self.files += 1
        self.bytes += entry.size
        self._moved(entry.size, 1)

    def _write_with_care(self, entry: Entry, data: bytes) -> None:
        target = os.path.join(self._root, entry.path)
        part = opened_part(target)
        try:
            incoming = _Incoming(part, target, entry)
            incoming.data(0, data)
            incoming.finish(0, b"")
        finally:
            part.close()

    def _file(self, entry: Entry) -> None:
        target = os.path.join(self._root, entry.path)
        part = opened_part(target)
        try:
            incoming = _Incoming(part, target, entry)
            while True:
                kind, number, body = self._wire.read()
                if kind == wire.DATA:
                    incoming.data(number, body)
                    self._moved(len(body), 0)
                elif kind == wire.SAME:
                    (length,) = LENGTH.unpack(body)
                    incoming.same(number, length)
                    self._moved(length, 0)
                elif kind == wire.DONE:
                    self._is_inside = False
                    self._finish(incoming, entry, number, body)
                    return
                elif kind == wire.FAILED:
                    self._is_inside = False
                    part.remove()
                    self.failed.append((entry.path, body.decode("utf-8", "replace")))
                    return
                else:
                    raise Broken
        finally:
            part.close()

    def _finish(self, incoming: _Incoming, entry: Entry, covered: int, digest: bytes) -> None:
        if incoming.finish(covered, digest):
            self.files += 1
            self.bytes += entry.size
            self._moved(0, 1)
        else:
            self.failed.append((entry.path, "it changed here while it was compared; try again"))

    def _take_over(self, entry: Entry) -> None:
        """Count a file that rsync has brought."""
        try:
            there = os.lstat(os.path.join(self._root, entry.path))
        except OSError as error:
            self._fail(entry, error)
            return
        if there.st_size != entry.size or not is_same_time(entry.time, there.st_mtime_ns):
            self.failed.append((entry.path, "rsync left it as it was, or it changed meanwhile"))
            return
        self.files += 1
        self.bytes += entry.size
        self._moved(0, 1)

    def _fail(self, entry: Entry, error: OSError) -> None:
        if error.errno in _FULL:
            where = self._root.decode("utf-8", "replace")
            raise SyncFailure(
                "NoRoom",
                f"there is no room on {os.uname().nodename} in '{where}': {error.strerror}",
                "make room there; the same command then goes on from here",
            ) from error
        self.failed.append((entry.path, str(error.strerror or error)))

    def _skip(self) -> None:
        """Read past what remains of a file that cannot be written."""
        while self._is_inside:
            self._is_inside = self._wire.read()[0] not in (wire.DONE, wire.FAILED)


class _Incoming:
    """One file on its way in. Blocks that are there already are left where they are, or copied from the old file."""

    def __init__(self, part: Part, target: bytes, entry: Entry) -> None:
        self._part, self._target, self._entry = part, target, entry
        block = blocks.block_size(entry.size)
        self._in_place = min(part.size, entry.size) // block * block if part.size >= blocks.LEAST else 0
        self._same: list[tuple[int, int]] = []
        self._is_other = False  # whether anything differs from the old file
        if part.size > self._in_place:
            os.ftruncate(part.fd, self._in_place)

    def data(self, offset: int, body: bytes) -> None:
        """Write what came."""
        if offset + len(body) > self._entry.size:
            raise Broken
        self._is_other = True
        if self._entry.is_sparse and offset >= self._in_place and not body.count(0) < len(body):
            return
        self._part.write(body, offset)

    def same(self, offset: int, length: int) -> None:
        """Note what is there: one range where they touch."""
        if offset + length > self._entry.size:
            raise Broken
        if self._same and sum(self._same[-1]) == offset:
            self._same[-1] = (self._same[-1][0], self._same[-1][1] + length)
        else:
            self._same.append((offset, length))

    def finish(self, covered: int, digest: bytes) -> bool:
        """Give the file its final name; false where what was there before is not what it was said to be."""
        entry = self._entry
        if not self._is_other and not self._in_place and self._same == [(0, entry.size)]:
            about = os.stat(self._target)
            if about.st_size == entry.size:  # nothing but the time was another
                os.chmod(self._target, entry.mode)
                os.utime(self._target, ns=(entry.time, entry.time))
                self._part.remove()
                return True
        if any(offset + length > self._in_place for offset, length in self._same):
            self._copy()
        if self._part.size > entry.size:
            os.ftruncate(self._part.fd, entry.size)
        if self._same and self._digest(covered) != digest:
            self._part.remove()
            return False
        self._part.finish(entry.size, entry.mode, entry.time)
        return True

    def _copy(self) -> None:
        old = os.open(self._target, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            for first, length in self._same:
                offset, end = max(first, self._in_place), first + length
                while offset < end:
                    data = os.pread(old, min(wire.CHUNK, end - offset), offset)
                    if not data:
                        return
                    if not self._entry.is_sparse or data.count(0) < len(data):
                        self._part.write(data, offset)
                    offset += len(data)
        finally:
            os.close(old)

    def _digest(self, end: int) -> bytes:
        found = blake2b(digest_size=blocks.DIGEST)
        offset = 0
        if os.fstat(self._part.fd).st_size < end:
            os.ftruncate(self._part.fd, self._entry.size)
        while offset < end:
            data = os.pread(self._part.fd, min(wire.CHUNK, end - offset), offset)
            if not data:
                break
            found.update(data)
            offset += len(data)
        return found.digest()
