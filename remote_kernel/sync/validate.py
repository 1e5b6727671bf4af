"""What the other end offers, and what of it is believed: the one place where that is decided.

A rule: the other end is not to be trusted. Whoever can change the remote host, or its Python, speaks as the sender of a
fetch. So all that comes from there is looked at here before anything is done about it: names, numbers, sizes, kinds,
rules, and whether it is what was asked for. Three more things keep to the rule, and need no trust in this one:

- `contents` takes in only files that were asked for, once each, in the order and lengths that their entries allow;
- `folders` opens every folder below the root so that no link leads elsewhere, whoever made it and when;
- what is left out of `--delete` by `--exclude` is what was given here, not what the other end repeats.

What is new in the protocol is checked here too, and what it says is refused (Violation), not mended.
"""

from __future__ import annotations

import os

from remote_kernel.sync import wire
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry, is_partial
from remote_kernel.sync.wire import MessageWire, SyncFailure, Violation, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MOST = 1 << 63  # neither a size nor a time in seconds is as large
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
COUNTS = ("files", "bytes", "folders", "links", "touched", "deleted", "unchanged", "left_out", "failures")
_VERBS = ("replace", "make", "link", "copy", "touch", "delete")
A_HOME = (
    "SyncError",
    "what a remote home is called is not known here",
    "write for example 'remote:~/' for what is in it, and a folder here for that to go to",
)


class SourceOffer:
    """What the other end has, read as it comes. Where no path was `asked` for, it pushes, and its rules count.

    `name`, `is_folder` and the `mode` of the folder itself are known at once, the rest once `arriving` has been
    gone through: `rules`, `entries`; `left`, which it could not read, each with the reason; `left_out`,
    how many its rules leave out; `passed_over`, sockets, pipes and devices.
    """

    def __init__(self, wire_: MessageWire, options: SyncOptions, asked: bytes | None = None) -> None:
        """Read how it begins; `asked` is the path that a fetch asked for. Raises Violation, Broken, SyncFailure."""
        self._wire, self._options, self._is_asked = wire_, options, asked is not None
        wire_.listed = 0
        begin = wire_.read_object(wire.BEGIN)
        try:
            self.name = to_bytes(begin["name"])
            self.is_folder, self.mode = bool(begin["is_folder"]), count(begin["mode"])
            if b"/" in self.name or self.name in (b".", b"..") or b"\0" in self.name or is_partial(self.name):
                raise ValueError
            if self.mode > 0o777:
                raise ValueError
        except MALFORMED as error:
            raise Violation("an offer that cannot be read") from error
        if asked is not None:
            self._check_name(asked)
        self._tree = OfferedPaths(None if self.is_folder else self.name)
        excludes = list(options.exclude) if self._is_asked and self.is_folder else []
        self._excludes = Rules(excludes, False) if excludes else None
        self.rules = Rules([], False)
        self.entries: list[Entry] = []
        self.left: list[tuple[bytes, str]] = []
        self.left_out = 0
        self.passed_over: list[str] = []

    def arriving(self, as_: bytes = b"") -> Iterator[Entry]:
        """Yield each entry as it comes; a single file gets the name `as_`. Raises Violation, Broken, SyncFailure."""
        while True:
            kind, number, body = self._wire.read()
            if kind == wire.ENTRIED:
                break
            if kind != wire.ENTRIES:
                self._take_note(kind, number, body)
                continue
            entries = list(map(unpack, self._wire.rows(body)))
            self._tree.take(entries)
            self._check_excludes(entries)
            entries = [entry._replace(path=as_) for entry in entries] if as_ else entries
            self.entries += entries
            yield from entries
        try:
            self._finish(wire.decoded(body))
        except MALFORMED as error:
            raise Violation("an offer that cannot be read") from error

    def _take_note(self, kind: bytes, number: int, body: bytes) -> None:
        """Read what is no entry: a message about what was left, passed over, or a part of the rules."""
        try:
            if kind == wire.LEFT:
                self.left += [(to_bytes(path), text(reason)) for path, reason in self._wire.rows(body)]
            elif kind == wire.PASSED:
                self.passed_over += map(text, self._wire.rows(body))
            elif kind != wire.RULES:
                raise Violation(f"message {kind!r} among the entries")
            elif self._options.delete:  # else nobody asks them
                self._wire.weigh(wire.ROW_BYTES + 2 * len(body) + 8 * body.count(b"\n"))
                self.rules.take(number, body)
        except MALFORMED as error:
            raise Violation("an offer that cannot be read") from error

    def _finish(self, notes: Any) -> None:
        self.left_out = count(notes["left_out"])
        self.rules.use_gitignore = bool(notes["gitignore"])
        if self._is_asked:
            self.rules = self.rules.with_choice(self._options)

    def _check_name(self, asked: bytes) -> None:
        """Refuse another name than the one asked for: it says where it goes, and so what it may overwrite or delete."""
        name = os.path.basename(asked)
        if name in (b"", b".", b".."):
            name = b""
        if self.name == name and (self.is_folder or name):
            return
        if name.startswith(b"~") and name == asked:
            raise SyncFailure(*A_HOME)
        raise Violation("another name than the one asked for")

    def _check_excludes(self, entries: list[Entry]) -> None:
        """Refuse what the --exclude that was given here leaves out."""
        rules = self._excludes
        if rules and any(rules.leave_out(entry.path, entry.kind == FOLDER) for entry in entries):
            raise Violation("what --exclude leaves out")


def unpack(row: list[Any]) -> Entry:
    """Return the entry that `pack` was called with. Raises Violation."""
    try:
        path, kind, mode, size, time, extra, is_sparse = row
        raw = bytes.fromhex(extra) if kind == FILE else to_bytes(extra)
        return Entry(to_bytes(path), kind, int(mode), int(size), int(time), raw, bool(is_sparse))
    except MALFORMED as error:
        raise Violation("an entry that cannot be read") from error


class OfferedPaths:
    """The paths that have come. Every one stays below the root, in folders that came before, and comes once.

    The other end is believed in nothing that could lead a file elsewhere: `..`, an absolute path, a link that is then
    taken for a folder. `single` is the name of a file that comes alone.
    """

    def __init__(self, single: bytes | None) -> None:
        self._single = single
        self._folders: set[bytes] = {b""}
        self._seen: set[bytes] = set()

    def take(self, entries: list[Entry]) -> None:
        """Check and add some more. Raises Violation."""
        folders, seen = self._folders, self._seen
        for entry in entries:
            path, kind, mode, size, time, extra, _ = entry
            parent, _, name = path.rpartition(b"/")
            if name in (b"", b".", b"..") or b"\0" in name or parent not in folders or path in seen or is_partial(name):
                raise Violation("a path that leads elsewhere, or comes twice")
            if (
                kind not in (FILE, FOLDER, LINK)
                or not 0 <= mode <= 0o777
                or not 0 <= size < MOST
                or abs(time) >= MOST * 10**9
            ):
                raise Violation("an entry that cannot be")
            if kind == LINK and (not extra or b"\0" in extra):
                raise Violation("a link to nowhere")
            if self._single is not None and (path != self._single or kind != FILE):
                raise Violation("a single file that is none")
            seen.add(path)
            if kind == FOLDER:
                folders.add(path)


def check_plan(said: Any) -> dict[str, Any]:
    """Return the receiving end's plan, every part of it of the type that it has to have. Raises Violation."""
    try:
        root = text(said["root"])
        return {"root": root, "files": count(said["files"]), "bytes": count(said["bytes"])}
    except MALFORMED as error:
        raise Violation("a plan that cannot be read") from error


def check_actions(rows: list[Any]) -> list[list[str]]:
    """Return the verbs and paths of the receiving end's plan. Raises Violation."""
    try:
        return [[verb, text(path)] for verb, path in rows if verb in _VERBS]
    except MALFORMED as error:
        raise Violation("a plan that cannot be read") from error


def check_summary(said: Any, failed: list[Any]) -> dict[str, Any]:
    """Return the receiving end's summary, every part of it of the type that it has to have. Raises Violation."""
    try:
        found: dict[str, Any] = {key: count(said[key]) for key in COUNTS}
        return {**found, "failed": [[text(path), text(reason)] for path, reason in failed]}
    except MALFORMED as error:
        raise Violation("a summary that cannot be read") from error


def text(said: Any) -> str:
    """Return a text that can be put into bytes. Raises TypeError, ValueError."""
    if not isinstance(said, str):
        raise TypeError
    to_bytes(said)
    return said


def count(said: Any) -> int:
    """Return a number of things. Raises ValueError."""
    if type(said) is not int or not 0 <= said < MOST:
        raise ValueError
    return said
