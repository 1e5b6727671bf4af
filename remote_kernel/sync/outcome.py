"""What a copy is asked for, who hears of it, and what became of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from remote_kernel.errors import RemoteKernelError
from remote_kernel.sync.wishes import Wishes


class Manner(NamedTuple):
    """How to copy: `excludes` are lines as in a .gitignore, `gitignore` reads those that there are.

    `sftp` asks for SFTP also where the remote host has a Python.
    """

    wishes: Wishes = Wishes()
    excludes: tuple[str, ...] = ()
    gitignore: bool = True
    sftp: bool = False


class Progress(Protocol):
    """Who is told how far it is."""

    def planned(self, size: int, files: int) -> None:
        """Hear how many bytes and files there are to copy."""

    def moved(self, size: int, files: int) -> None:
        """Hear that so many bytes and files more have been dealt with."""

    def fell_back(self, error: RemoteKernelError) -> None:
        """Hear that it goes over SFTP because of that error."""


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
    """Put the receiving end's plan and summary together.

    Raises RemoteKernelError where the other end's words are not what they should be.
    """
    actions = tuple((str(verb), str(path)) for verb, path in plan.get("actions", ()))
    failed = tuple((str(path), str(reason)) for path, reason in summary["failed"])
    rest = {**summary, "failed": failed, "passed_over": tuple(summary["passed_over"])}
    try:
        return Outcome(root=str(plan["root"]), actions=actions, **rest)
    except TypeError as error:
        raise RemoteKernelError("the two ends of the sync do not understand each other", "try again") from error
