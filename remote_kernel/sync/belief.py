"""What the other end says, and what of it is believed: the one place where that is decided.

A rule: the other end is not to be trusted. Whoever can change the remote host, or its Python, speaks as the sender of a
fetch. So all that comes from there is looked at here before anything is done about it: names, numbers, sizes, kinds,
rules, and whether it is what was asked for. Three more things keep to the rule, and need no trust in this one:

- `contents` takes in only files that were asked for, once each, in the order and lengths that their entries allow;
- `folders` opens every folder below the root so that no link leads elsewhere, whoever made it and when;
- what is left out of `--delete` by `--exclude` is what was given here, not what the other end repeats.

What is new in the protocol is checked here too, and what it says is refused (Violation), not mended.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from remote_kernel.sync import wire
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry, is_part
from remote_kernel.sync.wire import SyncFailure, Violation, Wire, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST = 1 << 63  # neither a size nor a time in seconds is as large
A_HOME = (
    "SyncError",
    "what a remote home is called is not known here",
    "write for example 'remote:~/' for what is in it, and a folder here for that to go to",
)
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_COUNTS = ("files", "bytes", "folders", "links", "touched", "deleted", "unchanged", "left_out", "failures")
_VERBS = ("replace", "make", "link", "copy", "touch", "delete")


class Asked(NamedTuple):
    """What a fetch asked the other end for: a path there, and what is to be left out."""

    path: bytes
    excludes: tuple[bytes, ...]
    use_gitignore: bool


class Offer(NamedTuple):
    """What the other end has. `mode` is that of the folder itself. `left` are paths that it could not read, each with
    the reason; `left_out` counts what its rules leave out, and `passed_over` are sockets, pipes and devices.
    """

    name: bytes
    is_folder: bool
    mode: int
    root: bytes
    rules: Rules
    has_rsync: bool
    entries: list[Entry]
    left: list[tuple[bytes, str]]
    left_out: int
    passed_over: list[str]


NOTHING = Offer(b"", False, 0o777, b"", Rules([], False), False, [], [], 0, [])


def read_offer(wire_: Wire, asked: Asked | None) -> Offer:
    """Read what the other end has. Where nothing was `asked`, it is the one whose wishes count: where it pushes.

    Raises Violation, Broken, SyncFailure.
    """
    begin = wire_.read_object(wire.BEGIN)
    entries: list[Entry] = []
    while True:
        kind, _, body = wire_.read()
        if kind == wire.ENTRIED:
            break
        if kind != wire.ENTRIES:
            raise Violation(f"message {kind!r} among the entries")
        rows = wire.decoded(body)
        if not isinstance(rows, list):
            raise Violation("entries that are no list")
        entries += map(unpack, rows)
    try:
        offer = _offer(begin, entries, wire.decoded(body))
    except _MALFORMED as error:
        raise Violation("an offer that cannot be read") from error
    check(entries, offer.is_folder)
    if asked is None:
        return offer
    _check_name(offer, asked)
    return offer._replace(rules=_own(offer, asked))


def unpack(row: list[Any]) -> Entry:
    """Give the entry that `pack` was called with. Raises Violation."""
    try:
        path, kind, mode, size, time, extra, is_sparse = row
        raw = bytes.fromhex(extra) if kind == FILE else to_bytes(extra)
        return Entry(to_bytes(path), kind, int(mode), int(size), int(time), raw, bool(is_sparse))
    except _MALFORMED as error:
        raise Violation("an entry that cannot be read") from error


def check(entries: list[Entry], is_folder: bool) -> None:
    """Raise Violation unless every path stays below the root, in folders that are listed before, and is there once.

    The other end is believed in nothing that could lead a file elsewhere: `..`, an absolute path, a link that is then
    taken for a folder.
    """
    folders, seen = {b""}, set()
    if not is_folder and (len(entries) > 1 or any(entry.kind != FILE or b"/" in entry.path for entry in entries)):
        raise Violation("a single file that is none")
    for entry in entries:
        path, kind, mode, size, time, extra, _ = entry
        parent, _, name = path.rpartition(b"/")
        if name in (b"", b".", b"..") or b"\0" in name or parent not in folders or path in seen or is_part(name):
            raise Violation("a path that leads elsewhere, or comes twice")
        if (
            kind not in (FILE, FOLDER, LINK)
            or not 0 <= mode <= 0o777
            or not 0 <= size < _MOST
            or abs(time) >= _MOST * 10**9
        ):
            raise Violation("an entry that cannot be")
        if kind == LINK and (not extra or b"\0" in extra):
            raise Violation("a link to nowhere")
        seen.add(path)
        if kind == FOLDER:
            folders.add(path)


def plan(said: Any) -> dict[str, Any]:
    """Give the receiving end's plan, every part of it of the type that it has to have. Raises Violation."""
    try:
        actions = [[verb, _text(path)] for verb, path in said.get("actions", ()) if verb in _VERBS]
        found: dict[str, Any] = {key: _text(said[key]) for key in ("root", "name")}
        if b"\0" in to_bytes(found["root"]) or b"/" in to_bytes(found["name"]):
            raise ValueError
        return {**found, "files": _count(said["files"]), "bytes": _count(said["bytes"]), "actions": actions}
    except _MALFORMED as error:
        raise Violation("a plan that cannot be read") from error


def summary(said: Any) -> dict[str, Any]:
    """Give the receiving end's summary, every part of it of the type that it has to have. Raises Violation."""
    try:
        found: dict[str, Any] = {key: _count(said[key]) for key in _COUNTS}
        failed = [[_text(path), _text(reason)] for path, reason in said["failed"]]
        return {**found, "passed_over": [_text(path) for path in said["passed_over"]], "failed": failed}
    except _MALFORMED as error:
        raise Violation("a summary that cannot be read") from error


def _offer(begin: Any, entries: list[Entry], notes: Any) -> Offer:
    name, root = to_bytes(begin["name"]), to_bytes(begin["root"])
    if b"/" in name or name in (b".", b"..") or b"\0" in name + root or is_part(name):
        raise ValueError
    mode = _count(begin["mode"])
    if mode > 0o777:
        raise ValueError
    left = [(to_bytes(path), _text(reason)) for path, reason in notes["left"]]
    passed_over = [_text(path) for path in notes["passed_over"]]
    rules = Rules.unpack(begin["rules"])
    return Offer(
        name,
        bool(begin["is_folder"]),
        mode,
        root,
        rules,
        bool(begin["rsync"]),
        entries,
        left,
        _count(notes["left_out"]),
        passed_over,
    )


def _check_name(offer: Offer, asked: Asked) -> None:
    """The name of what is fetched says where it goes, and so what it may overwrite or delete: the one asked for."""
    name = os.path.basename(asked.path)
    if name in (b"", b".", b".."):
        name = b""
    if offer.name == name and (offer.is_folder or (name and all(entry.path == name for entry in offer.entries))):
        return
    if name.startswith(b"~") and name == asked.path:
        raise SyncFailure(*A_HOME)
    raise Violation("another name than the one asked for")


def _own(offer: Offer, asked: Asked) -> Rules:
    """Give the offer's rules with the --exclude that was given here, and refuse what that leaves out."""
    excludes = Rules(list(asked.excludes), False)
    if offer.is_folder and asked.excludes:
        for entry in offer.entries:
            if excludes.leave_out(entry.path, entry.kind == FOLDER):
                raise Violation("what --exclude leaves out")
    return offer.rules.with_choice(list(asked.excludes), asked.use_gitignore)


def _text(said: Any) -> str:
    """Give a text that can be put into bytes."""
    if not isinstance(said, str):
        raise TypeError
    to_bytes(said)
    return said


def _count(said: Any) -> int:
    if type(said) is not int or not 0 <= said < _MOST:
        raise ValueError
    return said
