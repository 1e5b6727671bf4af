"""Get files from a host that has SFTP and nothing else: the receiver, which reads them there itself."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from remote_kernel.sync import blocks, wire
from remote_kernel.sync.contents import Contents
from remote_kernel.sync.folders import Folders
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.partial_file import PartialFile, open_partial
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.sender import Sender, Source
from remote_kernel.sync.sftp_client import Job, Sftp
from remote_kernel.sync.sftp_push import LARGE_AT_ONCE, SMALL
from remote_kernel.sync.sftp_tree import WINDOW, read_file
from remote_kernel.sync.tree import Entry


class SftpFetch(Receiver):
    """One run of the receiving end, with an SFTP server at the other. All methods raise PipeBroken, too."""

    def __init__(
        self, sftp: Sftp, source: Source, target: bytes, options: SyncOptions, moved: Callable[[int, int], None]
    ) -> None:
        messages = _Messages()
        Sender(
            messages, source, moved, options
        ).tell()  # what the server told is looked at as any other end's words are
        super().__init__(messages, target, options, moved)
        self._sftp, self._source = sftp, source

    def ask(self, plan: dict[str, Any]) -> None:
        """Make folders and links. Raises SyncFailure."""
        if self._options.dry_run:
            self._wire.write(wire.SENT)
            return
        with self._folders:
            self._make_way()

    def _contents(self) -> SftpContents:
        return SftpContents(self._sftp, self._source, self._folders, self.offer.entries, self.plan.wanted, self._moved)


class SftpContents(Contents):
    """Reads the files with these numbers there, many at a time, each beside its final name until it is whole."""

    def __init__(
        self,
        sftp: Sftp,
        source: Source,
        folders: Folders,
        entries: list[Entry],
        wanted: list[int],
        moved: Callable[[int, int], None],
    ) -> None:
        super().__init__(_Messages(), folders, entries, {}, moved)
        self._sftp, self._source, self._wanted = sftp, source, wanted

    def receive(self) -> None:
        """Read all files. Raises PipeBroken, SyncFailure when nothing more fits."""
        small = (self._fetch(number) for number in self._wanted if self._entries[number].size <= SMALL)
        self._sftp.run(small, self._sftp.handles)
        large = (self._fetch(number) for number in self._wanted if self._entries[number].size > SMALL)
        self._sftp.run(large, LARGE_AT_ONCE)

    def _fetch(self, number: int) -> Job:
        entry = self._entries[number]
        path = os.path.join(self._source.root, self._source.listing.entries[number].path)
        try:
            yield from self._fetch_small(path, entry) if entry.size <= SMALL else self._fetch_large(path, entry)
        except OSError as error:
            self._fail(entry, error)
            return
        self.files += 1
        self.bytes += entry.size
        self._moved(0, 1)

    def _fetch_small(self, path: bytes, entry: Entry) -> Job:
        """Write a file when all of it is there, so that not hundreds are open."""
        found: list[bytes] = []
        yield from read_file(self._sftp, path, 0, entry.size, lambda _, data: found.append(data))
        part = open_partial(self._folders, entry.path, _version(entry))
        try:
            part.write(b"".join(found), 0)
            part.finish(entry.size, entry.mode, entry.time)
        finally:
            part.close()
        self._moved(entry.size, 0)

    def _fetch_large(self, path: bytes, entry: Entry) -> Job:
        with Folders(self._folders.root) as folders:  # its own: others are read meanwhile
            part = open_partial(folders, entry.path, _version(entry))
            try:
                start = _start_of(part, entry)
                self._moved(start, 0)
                yield from read_file(self._sftp, path, start, entry.size, lambda at, data: self._write(part, at, data))
                part.finish(entry.size, entry.mode, entry.time)
            finally:
                part.close()

    def _write(self, part: PartialFile, offset: int, data: bytes) -> None:
        if data.count(0) < len(data):  # SFTP does not tell holes: what is nothing but zeros becomes one
            part.write(data, offset)
        self._moved(len(data), 0)


class _Messages(wire.MessageWire):
    """Messages of the other end, which runs here and has sent all of them before they are read."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, int, bytes]] = deque()
        self.written = self.listed = 0

    def write(self, kind: bytes, number: int = 0, body: bytes | memoryview = b"") -> None:
        self._waiting.append((kind, number, bytes(body)))

    def flush(self) -> None:
        pass

    def read(self) -> tuple[bytes, int, bytes]:
        return self._waiting.popleft()


def _version(entry: Entry) -> bytes:
    return b"%d %d" % (entry.size, entry.time)


def _start_of(part: PartialFile, entry: Entry) -> int:
    start = min(part.size, entry.size) - 2 * WINDOW
    if start >= blocks.LEAST:
        os.ftruncate(part.fd, start)
        return start
    os.ftruncate(part.fd, 0)
    return 0
