"""One transfer: from where to where, how, who hears of it, and what became of it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Protocol

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.options import SyncOptions

MARK = "remote:"


class SyncPath(NamedTuple):
    """A path, as it was given; `is_remote` where it is one of the remote host, relative to its workdir or home."""

    path: bytes
    is_remote: bool

    def __str__(self) -> str:
        return (MARK if self.is_remote else "") + self.path.decode("utf-8", "backslashreplace")


class Progress(Protocol):
    """Whoever shows how far a transfer is."""

    def planned(self, size: int, files: int) -> None:
        """Show how many bytes and files there are to copy."""

    def moved(self, size: int, files: int) -> None:
        """Show that so many bytes and files more have been dealt with."""

    def fell_back(self, error: RemoteKernelError) -> None:
        """Show that it goes over SFTP because of that error."""


class Transfer(NamedTuple):
    """What to copy, by the way that `launch` tells; one of the two paths is remote."""

    launch: LaunchOptions
    source: SyncPath
    target: SyncPath
    options: SyncOptions
    progress: Progress


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


def outcome(plan: dict[str, Any], summary: dict[str, Any]) -> Outcome:
    """Return the outcome of the receiving end's plan and summary.

    Raises RemoteKernelError where the other end's words are not what they should be.
    """
    actions = tuple((str(verb), str(path)) for verb, path in plan.get("actions", ()))
    failed = tuple((str(path), str(reason)) for path, reason in summary["failed"])
    rest = {**summary, "failed": failed, "passed_over": tuple(summary["passed_over"])}
    try:
        return Outcome(root=str(plan["root"]), actions=actions, **rest)
    except TypeError as error:
        raise RemoteKernelError("the two ends of the sync do not understand each other", "try again") from error


def parse_paths(source: str, target: str) -> tuple[SyncPath, SyncPath]:
    """Return both paths. Raises UsageError unless exactly one of them is remote, or where one is empty."""
    paths = (_parse(source), _parse(target))
    if paths[0].is_remote == paths[1].is_remote:
        which = "both are" if paths[0].is_remote else "neither is"
        raise UsageError(
            f"one of SRC and DST has to be remote, and {which}",
            "write for example: sync . remote:work, sync remote:out ./",
        )
    for each in paths:
        if b"\0" in each.path or not (each.path or each.is_remote):
            raise UsageError("a path is empty", "write . for this folder")
    return paths


def _parse(text: str) -> SyncPath:
    raw = os.fsencode(text)
    if text.startswith(MARK):
        return SyncPath(raw[len(MARK) :], True)
    return SyncPath(os.path.expanduser(raw), False)
