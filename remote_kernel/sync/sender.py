"""The end that has the source: list it, then send what the other end wants."""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple

from remote_kernel.sync import blocks, wire
from remote_kernel.sync.options import SyncOptions, unpack_options
from remote_kernel.sync.remote_program import serve
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import FILE, Entry, Listing, check_start, list_file, walk
from remote_kernel.sync.validate import check_actions, check_plan, check_summary
from remote_kernel.sync.wire import LENGTH, MessageWire, SyncFailure, shown, to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SMALL = 64 << 10  # a file up to this size is one message
_HOLE = bytes(4096)
_BATCH = 1000
_AHEAD = 512 << 10  # bytes that a connection takes whether or not the other end reads them


class Source(NamedTuple):
    """What to send. `root` is the folder that the entries' paths start from; `name` is the last part of what was named,
    empty where only what is inside a folder is meant. `mode` is that of the folder itself.

    `listing` and `rules` are complete once `steps` have been gone through.
    """

    root: bytes
    name: bytes
    is_folder: bool
    listing: Listing
    rules: Rules
    mode: int = 0o777
    steps: Iterator[None] = iter(())

    def listed(self) -> Source:
        """Run all steps, and return the source."""
        for _ in self.steps:
            pass
        return self


class Want(NamedTuple):
    """A file that the other end lacks: its number, and the digests of the blocks that are there."""

    number: int
    digests: bytes


def find_source(path: bytes, options: SyncOptions) -> Source:
    """Find a file or folder; `folder/`, `.` and `..` stand for what is inside. A link is followed.

    Raises SyncFailure where there is nothing of that name.
    """
    rules = Rules.of(options)
    check_start(path)
    try:
        found = os.stat(path)
    except OSError as error:
        if os.path.islink(path) or not isinstance(error, FileNotFoundError):
            raise SyncFailure("SyncError", f"cannot read {shown(path)}: {error.strerror}") from error
        hint = "check the spelling" if path.startswith(b"/") else f"it was looked for in {shown(os.getcwdb())}"
        raise SyncFailure("NothingToSync", f"there is no {shown(path)} on {os.uname().nodename}", hint) from error
    name = os.path.basename(path)
    if stat.S_ISDIR(found.st_mode):
        whole = name in (b"", b".", b"..")
        root = os.path.realpath(path)
        mode = stat.S_IMODE(found.st_mode) & 0o777
        listing = Listing()
        steps = walk(listing, root, rules, options.checksum)
        return Source(root, b"" if whole else name, True, listing, rules, mode, steps)
    if not stat.S_ISREG(found.st_mode):
        raise SyncFailure("SyncError", f"{shown(path)} is neither a file nor a folder")
    return Source(
        os.path.realpath(os.path.dirname(path) or b"."), name, False, list_file(path, name, options.checksum), rules
    )


class Sender:
    """One run of the sending end. `moved` is called with bytes and files that have been dealt with."""

    def __init__(
        self, wire_: MessageWire, source: Source, moved: Callable[[int, int], None], options: SyncOptions
    ) -> None:
        self._wire, self._source, self._moved, self._options = wire_, source, moved, options
        self.wanted: list[Want] = []

    def offer(self) -> Any:
        """Send what there is, and return the other end's plan. Raises Broken, SyncFailure."""
        self.tell()
        return self.hear()

    def tell(self) -> None:
        """Send what there is, as far as it is listed, and list on. Raises Broken."""
        for _ in self.telling():
            pass

    def telling(self) -> Iterator[None]:
        """Do what `tell` does, in steps: the first waits for no other end that only compares. Raises Broken."""
        source, listing = self._source, self._source.listing
        begin = {"name": to_text(source.name), "is_folder": source.is_folder, "mode": source.mode}
        self._wire.write_object(wire.BEGIN, begin)
        self._wire.listed, told = 0, self._wire.written
        for entries in self._batches():
            self._wire.write_rows(wire.ENTRIES, [pack(entry) for entry in entries])
            self._wire.flush()  # the other end compares these while the next are listed
            if self._wire.written > told + _AHEAD:
                yield
                told = self._wire.written
        self._wire.write_rows(wire.LEFT, [[to_text(path), reason] for path, reason in listing.left])
        self._wire.write_rows(wire.PASSED, list(map(to_text, listing.passed_over)))
        for kind, text in source.rules.parts():
            self._wire.write(wire.RULES, kind, text)
        notes = {"left_out": listing.left_out, "gitignore": source.rules.use_gitignore}
        self._wire.write_object(wire.ENTRIED, notes)
        self._wire.flush()

    def _batches(self) -> Iterator[list[Entry]]:
        entries, told = self._source.listing.entries, 0
        for _ in self._source.steps:
            if len(entries) - told >= _BATCH:
                yield entries[told:]
                told = len(entries)
        for first in range(told, len(entries), _BATCH):
            yield entries[first : first + _BATCH]

    def hear(self) -> Any:
        """Return the other end's plan. Raises Broken, SyncFailure."""
        told, said = self._rows_before(wire.ACTIONS, wire.PLAN, sys.maxsize if self._options.names_paths else 0)
        found = {**check_plan(said), "actions": check_actions(told)}
        self.wanted = list(self._read_wanted())
        return found

    def _rows_before(self, kind: bytes, last: bytes, most: int) -> tuple[list[Any], Any]:
        """Read the messages of one list, of so many rows at most, and the object of another kind that ends it."""
        rows: list[Any] = []
        while True:
            found, _, body = self._wire.read()
            if found == last:
                return rows, wire.decoded(body)
            if found != kind or len(rows) >= most:
                raise wire.Violation(f"message {found!r} in place of {last!r}")
            rows += self._wire.rows(body)

    def deliver(self) -> Any:
        """Send what is wanted, and give the summary."""
        for want in () if self._options.dry_run else self.wanted:
            self._send(want)
        self._wire.write(wire.SENT)
        self._wire.flush()
        return self.read_summary()

    def read_summary(self) -> dict[str, Any]:
        """Return what the other end has done, and what was passed over here. Raises Broken."""
        failed, said = self._rows_before(wire.UNDONE, wire.SUMMARY, wire.MOST_UNDONE)
        return {**check_summary(said, failed), "passed_over": list(map(to_text, self._source.listing.passed_over))}

    def entry(self, number: int) -> Entry:
        """Return the entry with that number."""
        return self._source.listing.entries[number]

    def _read_wanted(self) -> Iterator[Want]:
        """Yield what the other end wants: each file once, with digests of no more than there is of it."""
        known: set[int] = set()
        while True:
            kind, number, body = self._wire.read()
            if kind == wire.WANTED:
                return
            if kind not in (wire.WANT, wire.WHOLE):
                raise wire.Violation(f"message {kind!r} among what is wanted")
            numbers = wire.numbers(body) if kind == wire.WHOLE else (number,)
            digests = b"" if kind == wire.WHOLE else body
            for number in numbers:
                if number >= len(self._source.listing.entries) or self.entry(number).kind != FILE:
                    raise wire.Violation("a file wanted that there is not")
                size = self.entry(number).size
                if number in known or len(digests) > (size // blocks.block_size(size) + 1) * blocks.DIGEST:
                    raise wire.Violation("a file wanted twice, or with more digests than it has blocks")
                known.add(number)
                yield Want(number, digests)

    def _send(self, want: Want) -> None:
        entry = self.entry(want.number)
        path = os.path.join(self._source.root, entry.path)
        if not self._source.is_folder:
            path = os.path.realpath(path)
        try:
            data = None if want.digests else read_small(path, entry)
            if data is not None:
                self._wire.write(wire.SMALL, want.number, data)
                self._moved(entry.size, 1)
                return
        except OSError:
            pass  # is told below
        self._wire.write(wire.FILE, want.number)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                self._send_content(fd, entry, want.digests)
            finally:
                os.close(fd)
            self._moved(0, 1)
        except OSError as error:
            self._wire.write(wire.FAILED, want.number, str(error.strerror or error).encode())

    def _send_content(self, fd: int, entry: Entry, digests: bytes) -> None:
        if not digests and not entry.is_sparse:
            self._send_range(fd, 0, entry.size)
            self._wire.write(wire.DONE)
            return
        block = blocks.block_size(entry.size)
        whole = blocks.new_digest()
        covered = min(len(digests) // blocks.DIGEST * block, entry.size)
        for start in range(0, covered, block):
            data = _read(fd, start, min(block, entry.size - start))
            whole.update(data)
            at = start // block * blocks.DIGEST
            if blocks.digest(data) == digests[at : at + blocks.DIGEST]:
                self._wire.write(wire.SAME, start, LENGTH.pack(len(data)))
            else:
                for at in range(0, len(data), wire.CHUNK):
                    self._wire.write(wire.DATA, start + at, data[at : at + wire.CHUNK])
            self._moved(len(data), 0)
        for start, end in _extents(fd, covered, entry.size) if entry.is_sparse else [(covered, entry.size)]:
            self._send_range(fd, start, end)
        self._wire.write(wire.DONE, covered, whole.digest() if covered else b"")

    def _send_range(self, fd: int, start: int, end: int) -> None:
        while start < end:
            data = _read(fd, start, min(wire.CHUNK, end - start))
            self._wire.write(wire.DATA, start, data)
            start += len(data)
            self._moved(len(data), 0)


def read_small(path: bytes, entry: Entry) -> bytes | None:
    """Return what a small file holds, in few system calls. Raises OSError.

    None where it may have holes, or is to be sent in pieces.
    """
    if entry.size > SMALL:
        return None
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = os.read(fd, entry.size)
    finally:
        os.close(fd)
    if len(data) < entry.size:
        raise OSError(0, "it became shorter while it was read")
    return None if entry.is_sparse and _HOLE in data else data


def pack(entry: Entry) -> list[Any]:
    """Return the entry for JSON."""
    extra = to_text(entry.extra) if entry.kind != FILE else entry.extra.hex()
    return [to_text(entry.path), entry.kind, entry.mode, entry.size, entry.time, extra, int(entry.is_sparse)]


def _read(fd: int, start: int, count: int) -> bytes:
    """Return exactly these bytes. A file that has grown since it was listed is sent as long as it was then."""
    data = os.pread(fd, count, start)
    while len(data) < count:
        more = os.pread(fd, count - len(data), start + len(data))
        if not more:
            raise OSError(0, "it became shorter while it was read")
        data += more
    return data


def _extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges that hold data; all of it where the system cannot tell holes."""
    while start < end:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
            stop = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == 6:  # ENXIO: nothing but a hole up to the end
                return
            begin, stop = start, end
        if begin >= end:
            return
        yield begin, stop
        start = stop


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Send on the remote host, once."""
    settings = parameters["settings"]
    options = unpack_options(settings["options"])

    def send(pipe: MessageWire, _: bytes) -> None:
        source = find_source(os.path.expanduser(to_bytes(settings["path"])) or b".", options)
        sender = Sender(pipe, source, lambda moved, files: None, options)
        sender.offer()
        sender.deliver()

    serve(marker, settings["folder"], send, makes_folder=False, may_lack=False)
