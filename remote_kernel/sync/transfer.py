"""Copy files one way, between here and a remote host: run one end here and the other there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from remote_kernel.errors import RemoteKernelError, by_name
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.place import Place
from remote_kernel.sync.receiver import Receiver, Wishes
from remote_kernel.sync.sender import Sender, find_source
from remote_kernel.sync.wire import Broken, SyncFailure, to_text


class Manner(NamedTuple):
    """How to copy: `excludes` are lines as in a .gitignore, `gitignore` reads those that there are."""

    wishes: Wishes = Wishes()
    excludes: tuple[str, ...] = ()
    gitignore: bool = True


class Progress(Protocol):
    """Who is told how far it is."""

    def planned(self, size: int, files: int) -> None:
        """Hear how many bytes and files there are to copy."""

    def moved(self, size: int, files: int) -> None:
        """Hear that so many bytes and files more have been dealt with."""


class Outcome(NamedTuple):
    """What was done, or with `dry_run` would be.

    `root` is the folder that it went to, `actions` are verbs and paths if asked for. `left_out` counts what rules left
    out, `passed_over` are sockets, pipes and devices. `failed` are the first of `failures` paths, with reasons; an
    empty path speaks of all.
    """

    root: str
    files: int
    bytes: int
    folders: int
    links: int
    touched: int
    deleted: int
    unchanged: int
    left_out: int
    passed_over: tuple[str, ...]
    failures: int
    failed: tuple[tuple[str, str], ...]
    actions: tuple[tuple[str, str], ...]


def sync(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    """Copy a file or folder there or here, once.

    Raises NothingToSync, NoRoom, SyncError; ConnectionLost, after which the same call goes on; TransportError's kinds.
    """
    if source.is_remote:
        return _fetch(options, source, target, manner, progress)
    with FarEnd(options, far_settings(options, "receive", target, manner)) as far:
        return Push(far, source, manner, progress).run()


class Push:
    """Sends what is here to a far end that receives, as often as `run` is called."""

    def __init__(self, far: FarEnd, source: Place, manner: Manner, progress: Progress) -> None:
        self._far, self._source, self._manner, self._progress = far, source, manner, progress
        self._is_greeted = False

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        wishes = self._manner.wishes
        excludes = [os.fsencode(line) for line in self._manner.excludes]
        try:
            found = find_source(self._source.path, excludes, self._manner.gitignore, wishes.checksum)
        except SyncFailure as error:
            raise by_name(error.name, error.message, error.hint) from error
        if not self._is_greeted:
            self._far.greet()
            self._is_greeted = True
        sender = Sender(self._far.wire, found, self._progress.moved)
        return _told(self._far, lambda: self._converse(sender))

    def _converse(self, sender: Sender) -> Outcome:
        plan = sender.offer()
        self._progress.planned(plan["bytes"], plan["files"])
        return _outcome(plan, sender.deliver(dry_run=self._manner.wishes.dry_run))


def _fetch(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    with FarEnd(options, far_settings(options, "send", source, manner)) as far:
        far.greet()
        receiver = Receiver(far.wire, target.path, manner.wishes, progress.moved)

        def converse() -> Outcome:
            plan = receiver.consider()
            progress.planned(plan["bytes"], plan["files"])
            receiver.ask(plan)
            return _outcome(plan, receiver.receive())

        return _told(far, converse)


def _told(far: FarEnd, converse: Callable[[], Outcome]) -> Outcome:
    try:
        return converse()
    except (Broken, SyncFailure) as error:
        raise far.why(error) from error


def far_settings(options: LaunchOptions, role: str, place: Place, manner: Manner) -> dict[str, Any]:
    """Give what the remote end's program is started with; `role` is `send` or `receive`."""
    return {
        "role": role,
        "folder": options.workdir,
        "path": to_text(place.path),
        "excludes": [to_text(os.fsencode(line)) for line in manner.excludes],
        "gitignore": manner.gitignore,
        "wishes": manner.wishes._asdict(),
    }


def _outcome(plan: dict[str, Any], summary: dict[str, Any]) -> Outcome:
    """Raises RemoteKernelError where the other end's words are not what they should be."""
    actions = tuple((str(verb), str(path)) for verb, path in plan.get("actions", ()))
    failed = tuple((str(path), str(reason)) for path, reason in summary["failed"])
    rest = {**summary, "failed": failed, "passed_over": tuple(summary["passed_over"])}
    try:
        return Outcome(root=str(plan["root"]), actions=actions, **rest)
    except TypeError as error:
        raise RemoteKernelError("the two ends of the sync do not understand each other", "try again") from error
