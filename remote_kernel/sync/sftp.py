"""Copy files over SFTP, where the remote host has no Python, or lets its users do nothing but copy.

What is copied, left out, deleted and named is decided by the same parts as ever, but all of them run here. It costs a
few round trips for all files together, and what SFTP cannot tell: times have whole seconds, a large file that changed
is copied whole, and with --checksum files are read over the network.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from remote_kernel.errors import ConnectionLost, NoSftp, RemoteError, RemoteKernelError, RemoteShellNoise, by_name
from remote_kernel.sync import blocks, wire
from remote_kernel.sync.contents import Contents
from remote_kernel.sync.folders import Folders
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.partial_file import PartialFile, open_partial
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.remote_end import RemoteProcess, refused
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import Sender, Source, find_source
from remote_kernel.sync.sftp_client import Job, NotSftp, PipeBroken, Sftp
from remote_kernel.sync.sftp_push import LARGE_AT_ONCE, SMALL, SftpReceiver, make_folders
from remote_kernel.sync.sftp_tree import WINDOW, find_remote_source, read_file
from remote_kernel.sync.transfer import Outcome, Transfer, outcome
from remote_kernel.sync.tree import FILE, Entry, Listing
from remote_kernel.sync.validate import A_HOME
from remote_kernel.sync.wire import SyncFailure, Violation, shown, to_text
from remote_kernel.transport import choice, notes

_MOST_NAMED = 100
_END_SECONDS = 5.0
_SECOND = 10**9
_CLOCKS_DIFFER = 1  # seconds, between hosts that keep time


class SftpEnd(RemoteProcess):
    """An SFTP server as the remote end; `sftp` speaks with it, once `greet` has been called."""

    sftp: Sftp

    def _argv(self) -> list[str]:
        return choice.subsystem_argv(self._options, "sftp")

    def _start(self, fd_in: int, fd_out: int) -> None:
        self._fds = fd_in, fd_out

    def greet(self) -> None:
        """Wait until the server answers. Raises TransportError's kinds, NoSftp, RemoteShellNoise."""
        try:
            with self._patience():
                self.sftp = Sftp(*self._fds)
        except PipeBroken as error:
            noise = error.args[0]
            found = self._no_greeting(noise)
            if isinstance(error, NotSftp) and isinstance(found, ConnectionLost):  # it would have gone on
                words = noise.decode("utf-8", "replace")[:100]
                raise RemoteShellNoise(
                    f"{self._options.endpoint} answered something else than SFTP: {words!r}",
                    "let its rc files print nothing in shells that are not interactive",
                ) from error
            if not isinstance(found, RemoteError) and "subsystem request failed" not in found.message:
                raise found from error
            raise NoSftp(
                f"{self._options.endpoint} does not allow copying files over SFTP",
                "its sshd needs a line 'Subsystem sftp internal-sftp'",
            ) from error
        notes.clear_refusals(self._options)

    def check(self) -> None:
        """Raise ConnectionLost if the carrier has ended."""
        if not self._process.is_running:
            raise self.why()

    def why(self) -> RemoteKernelError:
        """Return the error for a conversation that broke off."""
        self._process.end(_END_SECONDS)
        return self._lost()


class SftpPush:
    """Sends what is here to an SFTP server, as often as `run` is called."""

    def __init__(self, transfer: Transfer, end: SftpEnd) -> None:
        self._transfer, self._end = transfer, end

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        transfer, options = self._transfer, self._transfer.options
        with _told_by_name(transfer, self._end):
            found = self._find()
            if not options.dry_run and _wait_for_the_second(found.listing, 0):
                found = self._find()
            host = str(transfer.launch.endpoint)
            receiver = SftpReceiver(self._end.sftp, host, found, options, transfer.progress.moved)
            receiver.consider(_path(self._end.sftp, transfer, transfer.target.path, makes_workdir=not options.dry_run))
            wanted = [receiver.entries[number].size for number in receiver.plan.wanted]
            transfer.progress.planned(sum(wanted), len(wanted))
            receiver.receive()
        return _outcome(receiver, found.listing, options.names_paths)

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""
        self._end.check()

    def _find(self) -> Source:
        return find_source(self._transfer.source.path, self._transfer.options).listed()


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


@contextmanager
def pusher(transfer: Transfer, instead_of: RemoteKernelError | None = None) -> Iterator[SftpPush]:
    """Yield what sends to an SFTP server, as long as the block.

    Raises as `sync` does, and NoSftp, or what it is done `instead_of`.
    """
    with _greeted(transfer, instead_of) as end:
        yield SftpPush(transfer, end)


def fetch(transfer: Transfer, instead_of: RemoteKernelError | None = None) -> Outcome:
    """Receive what differs from an SFTP server, once. Raises as `pusher` does."""
    options, path = transfer.options, transfer.source.path
    with _greeted(transfer, instead_of) as end, _told_by_name(transfer, end):
        if b"/" not in path and _expanded(end.sftp, path) != path:
            raise SyncFailure(*A_HOME)
        path = _path(end.sftp, transfer, path, makes_workdir=False)

        def find() -> Source:
            host = str(transfer.launch.endpoint)
            return find_remote_source(end.sftp, path, Rules.of(options), host, with_digests=options.checksum)

        found = find()
        if not options.dry_run and _wait_for_the_second(found.listing, _CLOCKS_DIFFER):
            found = find()
        receiver = SftpFetch(end.sftp, found, transfer.target.path, options, transfer.progress.moved)
        plan = receiver.consider()
        transfer.progress.planned(plan["bytes"], plan["files"])
        receiver.ask(plan)
        return outcome(plan, receiver.receive())


@contextmanager
def _greeted(transfer: Transfer, instead_of: RemoteKernelError | None) -> Iterator[SftpEnd]:
    with SftpEnd(transfer.launch) as end:
        try:
            end.greet()
        except (NoSftp, RemoteShellNoise):
            if instead_of:
                raise instead_of from None
            raise
        if instead_of:
            transfer.progress.fell_back(instead_of)
        yield end


@contextmanager
def _told_by_name(transfer: Transfer, end: SftpEnd) -> Iterator[None]:
    """Raise the errors of the block's parts as those that a user is told."""
    try:
        yield
    except SyncFailure as error:
        raise by_name(error.name, error.message, error.hint) from error
    except Violation as error:
        raise refused(transfer.launch, error) from error
    except PipeBroken as error:
        raise end.why() from error


def _version(entry: Entry) -> bytes:
    return b"%d %d" % (entry.size, entry.time)


def _start_of(part: PartialFile, entry: Entry) -> int:
    start = min(part.size, entry.size) - 2 * WINDOW
    if start >= blocks.LEAST:
        os.ftruncate(part.fd, start)
        return start
    os.ftruncate(part.fd, 0)
    return 0


def _wait_for_the_second(listing: Listing, clocks_differ: int) -> bool:
    """Wait for the end of the second in which a file was changed: a later change in it would look the same.

    The files' clock may differ from the one here by so many seconds.
    """
    now = time.time()
    seconds = (entry.time // _SECOND for entry in listing.entries if entry.kind == FILE)
    recent = [second for second in seconds if abs(second - int(now)) <= clocks_differ]
    if not recent:
        return False
    time.sleep(max(recent) + 1 + clocks_differ - now)
    return True


def _path(sftp: Sftp, transfer: Transfer, path: bytes, *, makes_workdir: bool) -> bytes:
    """Return a path as SFTP wants it, which starts in the home: from the workdir, made if need be and asked for."""
    path = _expanded(sftp, path)
    folder = _expanded(sftp, os.fsencode(transfer.launch.workdir))
    if not folder:
        return path
    try:
        if makes_workdir:
            make_folders(sftp, folder)
    except OSError as error:
        raise SyncFailure(
            "SyncError", f"cannot use the workdir {shown(folder)} on {transfer.launch.endpoint}: {error.strerror}"
        ) from error
    return os.path.join(folder, path)


def _expanded(sftp: Sftp, path: bytes) -> bytes:
    if path == b"~" or path.startswith(b"~/"):
        return path[2:] or b"."
    if not path.startswith(b"~"):
        return path
    name, slash, rest = path.partition(b"/")
    try:
        return sftp.wait(sftp.whole_path(name)).name() + slash + rest
    except OSError:
        return path


def _outcome(receiver: SftpReceiver, listing: Listing, names: bool) -> Outcome:
    plan = receiver.plan
    actions = plan.actions(receiver.entries) if names else []
    return Outcome(
        root=to_text(receiver.root),
        files=receiver.files,
        bytes=receiver.bytes,
        folders=len(plan.folders),
        links=len(plan.links),
        touched=len(plan.touched) - receiver.left_as_they_are,
        deleted=receiver.deleted,
        unchanged=plan.unchanged + receiver.left_as_they_are,
        left_out=listing.left_out,
        passed_over=tuple(map(to_text, listing.passed_over)),
        failures=sum(bool(path) for path, _ in receiver.failed),
        failed=tuple((to_text(path), reason) for path, reason in receiver.failed[:_MOST_NAMED]),
        actions=tuple((verb, to_text(path)) for verb, path in actions),
    )
