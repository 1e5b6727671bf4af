"""Take in the contents of files, each beside its final name until it is whole."""

from __future__ import annotations

import errno
import os
import stat

from remote_kernel.sync import blocks, wire
from remote_kernel.sync.folders import Folders, set_mode
from remote_kernel.sync.partial_file import PartialFile, lock_partial, open_partial, partial_path
from remote_kernel.sync.tree import PARTIAL_MARKS, Entry
from remote_kernel.sync.wire import MessageWire, SyncFailure, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_REASON = 200


def basis(folders: Folders, entry: Entry) -> bytes:
    """Return the digests of the blocks that need not come again: of the partial file, then of the one to replace."""
    if entry.size < blocks.LEAST:
        return b""
    block = blocks.block_size(entry.size)
    found = b""
    for whole_blocks in (True, False):
        try:
            folder, name = folders.locate(entry.path)
            fd = lock_partial(partial_path(name), folder)[0] if whole_blocks else _open(name, folder)
        except OSError:
            continue
        if fd < 0:
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


class Contents:
    """Receives files below a root. `moved` is called with bytes and files that have been dealt with.

    `asked` says which entries may come, once each: how many bytes of each its `basis` told of.

    `files` and `bytes` count what got its final name; `failed` are paths that did not, each with the reason.
    """

    def __init__(
        self,
        wire_: MessageWire,
        folders: Folders,
        entries: list[Entry],
        asked: dict[int, int],
        moved: Callable[[int, int], None],
    ) -> None:
        self._wire, self._folders, self._entries, self._asked, self._moved = wire_, folders, entries, asked, moved
        self.files = self.bytes = 0
        self.failed: list[tuple[bytes, str]] = []
        self._writer = SmallFileWriter()
        self._is_inside = False  # whether more of a file is still to come

    def receive(self) -> None:
        """Receive files until the other end has sent all. Raises Broken, SyncFailure when nothing more fits."""
        while True:
            kind, number, body = self._wire.read()
            if kind == wire.SENT:
                return
            if kind not in (wire.SMALL, wire.FILE) or number not in self._asked:
                raise Violation("a file that was not asked for")
            entry, told = self._entries[number], self._asked.pop(number)
            if kind == wire.SMALL:
                self._small(entry, body)
                continue
            self._is_inside = True
            try:
                self._file(entry, told)
            except OSError as error:
                self._fail(entry, error)
                self._skip()

    def _small(self, entry: Entry, data: bytes) -> None:
        """Write a file that came in one piece."""
        if len(data) != entry.size:
            raise Violation("more or less of a file than there is")
        try:
            folder, name = self._folders.locate(entry.path)
            if not self._writer.write(folder, self._folders.turn, name, entry, data):
                self._write_with_care(folder, name, entry, data)
        except OSError as error:
            self._fail(entry, error)
            return
        self.files += 1
        self.bytes += entry.size
        self._moved(entry.size, 1)

    def _write_with_care(self, folder: int, name: bytes, entry: Entry, data: bytes) -> None:
        part = open_partial(self._folders, entry.path)
        try:
            incoming = _Incoming(part, folder, name, entry, 0)
            incoming.data(0, data)
            incoming.finish(0, b"")
        finally:
            part.close()

    def _file(self, entry: Entry, told: int) -> None:
        folder, name = self._folders.locate(entry.path)
        part = open_partial(self._folders, entry.path)
        try:
            incoming = _Incoming(part, folder, name, entry, told)
            while True:
                kind, number, body = self._wire.read()
                if kind == wire.DATA:
                    incoming.data(number, body)
                    self._moved(len(body), 0)
                elif kind == wire.SAME:
                    length = wire.length(body)
                    incoming.same(number, length)
                    self._moved(length, 0)
                elif kind == wire.DONE:
                    self._is_inside = False
                    self._finish(incoming, entry, number, body)
                    return
                elif kind == wire.FAILED:
                    self._is_inside = False
                    part.remove()
                    self.failed.append((entry.path, body[:_LONGEST_REASON].decode("utf-8", "replace")))
                    return
                else:
                    raise Violation(f"message {kind!r} inside a file")
        finally:
            part.close()

    def _finish(self, incoming: _Incoming, entry: Entry, covered: int, digest: bytes) -> None:
        if incoming.finish(covered, digest):
            self.files += 1
            self.bytes += entry.size
            self._moved(0, 1)
        else:
            self.failed.append((entry.path, "it changed here while it was compared; try again"))

    def _fail(self, entry: Entry, error: OSError) -> None:
        if error.errno in FULL:
            raise no_room(self._folders.root, error) from error
        self.failed.append((entry.path, str(error.strerror or error)))

    def _skip(self) -> None:
        """Read past what remains of a file that cannot be written."""
        while self._is_inside:
            self._is_inside = self._wire.read()[0] not in (wire.DONE, wire.FAILED)


class _Incoming:
    """One file on its way in. Blocks that are there already are left where they are, or copied from the old file."""

    def __init__(self, part: PartialFile, folder: int, name: bytes, entry: Entry, told: int) -> None:
        """Cut off what the other end does not know of: it was `told` of so many bytes of the partial file."""
        self._part, self._folder, self._name, self._entry = part, folder, name, entry
        self._block = block = blocks.block_size(entry.size)
        held = part.size if part.size >= blocks.LEAST else 0
        self._in_place = min(held, entry.size, told) // block * block
        self._same: list[tuple[int, int]] = []
        self._is_other = False  # whether anything differs from the old file
        if part.size > self._in_place:
            os.ftruncate(part.fd, self._in_place)

    def data(self, offset: int, body: bytes) -> None:
        """Write what came."""
        if offset + len(body) > self._entry.size:
            raise Violation("more of a file than there is")
        self._is_other = True
        if self._entry.is_sparse and offset >= self._in_place and not body.count(0) < len(body):
            return
        self._part.write(body, offset)

    def same(self, offset: int, length: int) -> None:
        """Note what is there: one range where they touch; whole blocks in their order, so that they are not many."""
        if offset + length > self._entry.size or offset % self._block or (self._same and sum(self._same[-1]) > offset):
            raise Violation("more of a file than there is")
        if self._same and sum(self._same[-1]) == offset:
            self._same[-1] = (self._same[-1][0], self._same[-1][1] + length)
        else:
            self._same.append((offset, length))

    def finish(self, covered: int, digest: bytes) -> bool:
        """Rename the file to its final name; false where what was there before is not what it was said to be."""
        entry = self._entry
        is_all_there = not self._is_other and not self._in_place and self._same == [(0, entry.size)]
        if is_all_there and self._keep_old(digest):
            self._part.remove()
            return True
        if any(offset + length > self._in_place for offset, length in self._same):
            self._copy()
        if self._part.size > entry.size:
            os.ftruncate(self._part.fd, entry.size)
        if self._same and self._digest(self._part.fd, covered) != digest:
            self._part.remove()
            return False
        self._part.finish(entry.size, entry.mode, entry.time)
        return True

    def _keep_old(self, digest: bytes) -> bool:
        """Set the time and mode of the old file, which stays; false where it is not what it was said to be."""
        entry = self._entry
        old = _open(self._name, self._folder)
        try:
            about = os.fstat(old)
            is_same = stat.S_ISREG(about.st_mode) and about.st_size == entry.size
            if not is_same or self._digest(old, entry.size) != digest:
                return False
            set_mode(old, entry.mode)
            os.utime(old, ns=(entry.time, entry.time))
        finally:
            os.close(old)
        return True

    def _copy(self) -> None:
        old = _open(self._name, self._folder)
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

    def _digest(self, fd: int, end: int) -> bytes:
        found = blocks.new_digest()
        offset = 0
        if fd == self._part.fd and os.fstat(fd).st_size < end:
            os.ftruncate(fd, self._entry.size)
        while offset < end:
            data = os.pread(fd, min(wire.CHUNK, end - offset), offset)
            if not data:
                break
            found.update(data)
            offset += len(data)
        return found.digest()


def no_room(root: bytes, error: OSError) -> SyncFailure:
    """Return the failure for a disk that is full, or a quota that is reached."""
    where = root.decode("utf-8", "replace")
    return SyncFailure(
        "NoRoom",
        f"there is no room on {os.uname().nodename} in '{where}': {error.strerror}",
        "make room there; the same command then continues from here",
    )


def _open(name: bytes, folder: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)


class SmallFileWriter:
    """Writes small files into folders that are open, each in as few system calls as that takes.

    A tree of sources is thousands of them, and then what is done for each decides how long it takes. A small file needs
    no resuming, and so no name that is found again and no lock. Whatever is out of the ordinary is left to Contents.
    """

    def __init__(self) -> None:
        self._part = PARTIAL_MARKS[0] + os.urandom(8).hex().encode() + PARTIAL_MARKS[1]
        self._turn, self._kept = 0, -1  # which mode a new file gets as it is asked for, in the folder of that turn

    def write(self, folder: int, turn: int, name: bytes, entry: Entry, data: bytes) -> bool:
        """Write one beside its final name, which it then gets; false, and nothing is changed, if that fails.

        Another sync may sweep the partial file away, as nothing locks it: this is one reason to fail. `turn` tells
        one folder from the one before it.
        """
        try:
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, entry.mode, dir_fd=folder)
        except OSError:
            return False
        try:
            try:
                is_whole = os.write(fd, data) == len(data)
                if self._kept != entry.mode or self._turn != turn:
                    self._set_mode(fd, turn, entry.mode)
                os.utime(fd, ns=(entry.time, entry.time))
            finally:
                os.close(fd)
            if is_whole:
                os.rename(self._part, name, src_dir_fd=folder, dst_dir_fd=folder)
                return True
        except OSError:
            pass
        try:
            os.unlink(self._part, dir_fd=folder)
        except OSError:
            pass
        return False

    def _set_mode(self, fd: int, turn: int, mode: int) -> None:
        """Set a new file's mode, which a umask or the folder's ACL may have cut; it costs as much as the writing."""
        if stat.S_IMODE(os.fstat(fd).st_mode) == mode:
            self._turn, self._kept = turn, mode
        else:
            set_mode(fd, mode)
