"""Copy files over SFTP, where the remote host has no Python, or lets its users do nothing but copy.

What is copied, left out, deleted and named is decided by the same parts as ever, but all of them run here. It costs a
few round trips for all files together, and what SFTP cannot tell: times have whole seconds, a large file that changed
is copied whole, and with --checksum files are read over the network.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remote_kernel.errors import NoSftp, RemoteKernelError, RemoteShellNoise, by_name
from remote_kernel.options import LaunchOptions
from remote_kernel.sftp.client import Sftp
from remote_kernel.sftp.packets import PipeBroken
from remote_kernel.sync.carrying import refused
from remote_kernel.sync.outcome import Manner, Outcome, Progress, outcome
from remote_kernel.sync.place import Place
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.sender import Source, find_source
from remote_kernel.sync.sftp_end import SftpEnd
from remote_kernel.sync.sftp_fetch import SendingThread
from remote_kernel.sync.sftp_modes import make_folders
from remote_kernel.sync.sftp_push import SftpReceiver
from remote_kernel.sync.sftp_tree import FarSource
from remote_kernel.sync.tree import FILE, Listing
from remote_kernel.sync.validate import A_HOME
from remote_kernel.sync.wire import Broken, SyncFailure, Violation, shown, to_text

_MOST_NAMED = 100
_SECOND = 10**9
_CLOCKS_DIFFER = 1  # seconds, between hosts that keep time


class SftpPush:
    """Sends what is here to an SFTP server, as often as `run` is called."""

    def __init__(
        self, options: LaunchOptions, end: SftpEnd, source: Place, target: Place, manner: Manner, progress: Progress
    ) -> None:
        self._options, self._end, self._source, self._target = options, end, source, target
        self._manner, self._progress = manner, progress

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        wishes = self._manner.wishes
        found = self._find()
        if not wishes.dry_run and _wait_for_the_second(found.listing, 0):
            found = self._find()
        receiver = SftpReceiver(self._end.sftp, str(self._options.endpoint), found, wishes, self._progress.moved)
        try:
            path = _path(self._end.sftp, self._options, self._target.path, makes_workdir=not wishes.dry_run)
            receiver.consider(path)
            wanted = [receiver.entries[number].size for number in receiver.plan.wanted]
            self._progress.planned(sum(wanted), len(wanted))
            receiver.receive()
        except PipeBroken as error:
            raise self._end.why() from error
        return _outcome(receiver, found.listing, wishes.names)

    def _find(self) -> Source:
        manner = self._manner
        try:
            return find_source(self._source.path, _excludes(manner), manner.gitignore, manner.wishes.checksum).listed()
        except SyncFailure as error:
            raise by_name(error.name, error.message, error.hint) from error

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""
        self._end.check()


def copy(
    options: LaunchOptions,
    source: Place,
    target: Place,
    manner: Manner,
    progress: Progress,
    *,
    instead_of: RemoteKernelError | None = None,
) -> Outcome:
    """Copy files either way, once. Raises as `sync` does, and NoSftp, or what it is done `instead_of`."""
    with _greeted(options, progress, instead_of) as end:
        if source.is_remote:
            return _fetch(options, end, source, target, manner, progress)
        return SftpPush(options, end, source, target, manner, progress).run()


@contextmanager
def pusher(
    options: LaunchOptions,
    source: Place,
    target: Place,
    manner: Manner,
    progress: Progress,
    *,
    instead_of: RemoteKernelError | None = None,
) -> Iterator[SftpPush]:
    """Give what sends to an SFTP server, as long as the block. Raises as `copy` does."""
    with _greeted(options, progress, instead_of) as end:
        yield SftpPush(options, end, source, target, manner, progress)


@contextmanager
def _greeted(options: LaunchOptions, progress: Progress, instead_of: RemoteKernelError | None) -> Iterator[SftpEnd]:
    with SftpEnd(options) as end:
        try:
            end.greet()
        except (NoSftp, RemoteShellNoise):
            if instead_of:
                raise instead_of from None
            raise
        if instead_of:
            progress.fell_back(instead_of)
        yield end


def _fetch(
    options: LaunchOptions, end: SftpEnd, source: Place, target: Place, manner: Manner, progress: Progress
) -> Outcome:
    wishes = manner.wishes
    try:
        if b"/" not in source.path and _expanded(end.sftp, source.path) != source.path:
            raise SyncFailure(*A_HOME)
        path = _path(end.sftp, options, source.path, makes_workdir=False)

        def find() -> Source:
            far = FarSource(end.sftp, _excludes(manner), manner.gitignore)
            return far.find(path, str(options.endpoint), with_digests=wishes.checksum)

        found = find()
        if not wishes.dry_run and _wait_for_the_second(found.listing, _CLOCKS_DIFFER):
            found = find()
        with SendingThread(found, end, wishes.dry_run, progress.moved) as thread:
            receiver = Receiver(thread.wire, target.path, wishes, progress.moved)
            plan = receiver.consider()
            progress.planned(plan["bytes"], plan["files"])
            receiver.ask(plan)
            return outcome(plan, receiver.receive())
    except SyncFailure as error:
        raise by_name(error.name, error.message, error.hint) from error
    except Violation as error:
        raise refused(options, error) from error
    except (PipeBroken, Broken) as error:
        raise end.why() from error


def _wait_for_the_second(listing: Listing, clocks_differ: int) -> bool:
    """Let the second end in which a file was changed: a later change within it could not be told from this one.

    The files' clock may differ from the one here by so many seconds.
    """
    now = time.time()
    seconds = (entry.time // _SECOND for entry in listing.entries if entry.kind == FILE)
    recent = [second for second in seconds if abs(second - int(now)) <= clocks_differ]
    if not recent:
        return False
    time.sleep(max(recent) + 1 + clocks_differ - now)
    return True


def _excludes(manner: Manner) -> list[bytes]:
    return [os.fsencode(line) for line in manner.excludes]


def _path(sftp: Sftp, options: LaunchOptions, path: bytes, *, makes_workdir: bool) -> bytes:
    """Give a path as SFTP wants it, which starts in the home: from the workdir, made if need be and asked for."""
    path = _expanded(sftp, path)
    folder = _expanded(sftp, os.fsencode(options.workdir))
    if not folder:
        return path
    try:
        if makes_workdir:
            make_folders(sftp, folder)
    except OSError as error:
        raise by_name(
            "SyncError", f"cannot use the workdir {shown(folder)} on {options.endpoint}: {error.strerror}"
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
    plan, entries = receiver.plan, receiver.entries
    summary: dict[str, Any] = {
        "files": receiver.files,
        "bytes": receiver.bytes,
        "folders": len(plan.folders),
        "links": len(plan.links),
        "touched": len(plan.touched) - receiver.left_as_they_are,
        "deleted": receiver.deleted,
        "unchanged": plan.unchanged + receiver.left_as_they_are,
        "left_out": listing.left_out,
        "passed_over": [to_text(path) for path in listing.passed_over],
        "failures": sum(bool(path) for path, _ in receiver.failed),
        "failed": [[to_text(path), reason] for path, reason in receiver.failed[:_MOST_NAMED]],
    }
    described: dict[str, Any] = {"root": to_text(receiver.root)}
    if names:
        described["actions"] = [(verb, to_text(path)) for verb, path in plan.actions(entries)]
    return outcome(described, summary)
