"""Copy files one way, between here and a remote host: run one end here and the other there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from remote_kernel.errors import PythonNotFound, RemoteKernelError, RemoteShellNoise, UsageError, by_name
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.belief import Asked
from remote_kernel.sync.by_rsync import Errand, carry
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.outcome import Manner, Outcome, Progress, outcome
from remote_kernel.sync.place import Place
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.sender import Sender, Source, find_source
from remote_kernel.sync.tool import ALL, NEVER, has_rsync
from remote_kernel.sync.wire import Broken, SyncFailure, to_bytes, to_text
from remote_kernel.transport import choice

Told = TypeVar("Told")
CANNOT_RUN = (PythonNotFound, RemoteShellNoise)


def sync(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    """Copy a file or folder there or here, once.

    Over SFTP where no program of ours can be run there. Raises NothingToSync, NoRoom, SyncError; ConnectionLost, after
    which the same call goes on; TransportError's kinds.
    """
    manner = fitting(options, manner)
    if manner.sftp:
        return _over_sftp(options, source, target, manner, progress)
    try:
        if source.is_remote:
            return _fetch(options, source, target, manner, progress)
        with pusher(options, source, target, manner, progress) as push:
            return push.run()
    except CANNOT_RUN as error:
        if manner.wishes.rsync == ALL:
            raise
        return _over_sftp(options, source, target, manner, progress, instead_of=error)


def _over_sftp(
    options: LaunchOptions,
    source: Place,
    target: Place,
    manner: Manner,
    progress: Progress,
    instead_of: RemoteKernelError | None = None,
) -> Outcome:
    from remote_kernel.sync import by_sftp  # only here: few need it, and ssh is not started yet

    return by_sftp.copy(options, source, target, manner, progress, instead_of=instead_of)


@contextmanager
def pusher(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Iterator[Push]:
    """Give what sends to a receiving end, as long as the block."""
    with FarEnd(options, "receive", _far_settings(options, target, manner)) as far:
        yield Push(options, far, source, manner, progress)


def fitting(options: LaunchOptions, manner: Manner) -> Manner:
    """Leave rsync out where it has no way of its own to the host. Raises UsageError where it is asked for."""
    wishes = manner.wishes
    if wishes.rsync == ALL and manner.sftp:
        raise UsageError("rsync does not go over SFTP", "leave out --rsync or --sftp")
    if wishes.rsync == ALL and not has_rsync():
        raise UsageError("there is no rsync 3.1 or later here", "leave out --rsync")
    if choice.name(options) == "openssh":
        return manner
    if wishes.rsync == ALL:
        raise UsageError("rsync goes over the ssh program, not over paramiko", "leave out --rsync or --transport")
    return manner._replace(wishes=wishes._replace(rsync=NEVER))


class Push:
    """Sends what is here to a far end that receives, as often as `run` is called."""

    def __init__(self, options: LaunchOptions, far: FarEnd, source: Place, manner: Manner, progress: Progress) -> None:
        self._options, self._far, self._source, self._manner = options, far, source, manner
        self._progress = progress
        self._is_greeted = False

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        wishes = self._manner.wishes
        excludes = [os.fsencode(line) for line in self._manner.excludes]
        try:
            found = find_source(self._source.path, excludes, self._manner.gitignore, wishes.checksum)
        except SyncFailure as error:
            raise by_name(error.name, error.message, error.hint) from error
        sender = Sender(self._far.wire, found, self._progress.moved, wishes.rsync)
        if not self._is_greeted:
            self._far.greet(sender.tell)
            self._is_greeted = True
        else:
            _told(self._far, sender.tell)
        return _told(self._far, lambda: self._converse(sender, found))

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""
        self._far.check()

    def _converse(self, sender: Sender, found: Source) -> Outcome:
        plan = sender.hear()
        self._progress.planned(plan["bytes"], plan["files"])
        numbers = [want.number for want in sender.wanted if want.by_rsync]
        if numbers:
            names = tuple(sender.entry(number).path for number in numbers)
            errand = _errand(found.root, to_bytes(plan["root"]), names, to_bytes(plan["name"]), is_push=True)
            carry(self._options, errand, self._progress.moved)
        return outcome(plan, sender.deliver(self._manner.wishes.dry_run))


def _fetch(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    with FarEnd(options, "send", _far_settings(options, source, manner)) as far:
        far.greet()
        asked = Asked(source.path, tuple(map(os.fsencode, manner.excludes)), manner.gitignore)
        receiver = Receiver(far.wire, target.path, manner.wishes, progress.moved, asked)

        def converse() -> Outcome:
            plan = receiver.consider()
            progress.planned(plan["bytes"], plan["files"])
            receiver.ask(plan)
            if receiver.for_rsync:
                offer, names = receiver.offer, tuple(receiver.for_rsync)
                single = b"" if offer.is_folder else names[0]
                source_names = names if offer.is_folder else (offer.name,)
                errand = _errand(offer.root, receiver.root, source_names, single, is_push=False)
                carry(options, errand, progress.moved)
            return outcome(plan, receiver.receive())

        return _told(far, converse)


def _errand(source: bytes, target: bytes, names: tuple[bytes, ...], single: bytes, *, is_push: bool) -> Errand:
    """Give what rsync is to do; a `single` file gets that name."""
    if not single:
        return Errand(source, target, names, is_push)
    return Errand(os.path.join(source, names[0]), os.path.join(target, single), (), is_push)


def _told(far: FarEnd, converse: Callable[[], Told]) -> Told:
    try:
        return converse()
    except (Broken, SyncFailure) as error:
        raise far.why(error) from error


def _far_settings(options: LaunchOptions, place: Place, manner: Manner) -> dict[str, Any]:
    """Give what the remote end's program is started with."""
    return {
        "folder": options.workdir,
        "path": to_text(place.path),
        "excludes": [to_text(os.fsencode(line)) for line in manner.excludes],
        "gitignore": manner.gitignore,
        "wishes": manner.wishes._asdict(),
    }
