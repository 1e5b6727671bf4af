"""What the other end offers, and what of it is believed: the one place, beside `answers`, where that is decided.

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
from remote_kernel.sync.answers import MALFORMED, MOST, count, text
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry, is_part
from remote_kernel.sync.wire import SyncFailure, Violation, Wire, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

A_HOME = (
    "SyncError",
    "what a remote home is called is not known here",
    "write for example 'remote:~/' for what is in it, and a folder here for that to go to",
)


class Asked(NamedTuple):
    """What a fetch asked the other end for: a path there, and what is to be left out."""

    path: bytes
    excludes: tuple[bytes, ...]
    use_gitignore: bool


class Offer:
    """What the other end has, read as it comes. Where nothing was `asked`, it is the one whose wishes count: it pushes.

    `name`, `is_folder`, `root` and the `mode` of the folder itself are known at once, the rest once `arriving` has been
    gone through: `rules`, `entries`; `left`, which it could not read, each with the reason; `left_out`,
    how many its rules leave out; `passed_over`, sockets, pipes and devices.
    """

    def __init__(self, wire_: Wire, asked: Asked | None, *, with_rules: bool = True) -> None:
        """Read how it begins; rules are read only `with_rules`. Raises Violation, Broken, SyncFailure."""
        self._wire, self._asked, self._with_rules = wire_, asked, with_rules
        wire_.listed = 0
        begin = wire_.read_object(wire.BEGIN)
        try:
            self.name, self.root = to_bytes(begin["name"]), to_bytes(begin["root"])
            self.is_folder, self.mode = bool(begin["is_folder"]), count(begin["mode"])
            if b"/" in self.name or self.name in (b".", b"..") or b"\0" in self.name + self.root or is_part(self.name):
                raise ValueError
            if self.mode > 0o777:
                raise ValueError
        except MALFORMED as error:
            raise Violation("an offer that cannot be read") from error
        if asked:
            self._check_name(asked)
        self._tree = Tree(None if self.is_folder else self.name)
        excludes = list(asked.excludes) if asked and self.is_folder else []
        self._excludes = Rules(excludes, False) if excludes else None
        self.rules = Rules([], False)
        self.entries: list[Entry] = []
        self.left: list[tuple[bytes, str]] = []
        self.left_out = 0
        self.passed_over: list[str] = []

    def arriving(self, as_: bytes = b"") -> Iterator[Entry]:
        """Give each entry as it comes; a single file gets the name `as_`. Raises Violation, Broken, SyncFailure."""
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
        """Take in what is no entry: a message about what was left, passed over, or a part of the rules."""
        try:
            if kind == wire.LEFT:
                self.left += [(to_bytes(path), text(reason)) for path, reason in self._wire.rows(body)]
            elif kind == wire.PASSED:
                self.passed_over += map(text, self._wire.rows(body))
            elif kind != wire.RULES:
                raise Violation(f"message {kind!r} among the entries")
            elif self._with_rules:
                self._wire.weigh(wire.ROW_BYTES + 2 * len(body) + 8 * body.count(b"\n"))
                self.rules.take(number, body)
        except MALFORMED as error:
            raise Violation("an offer that cannot be read") from error

    def _finish(self, notes: Any) -> None:
        self.left_out = count(notes["left_out"])
        self.rules.use_gitignore = bool(notes["gitignore"])
        if self._asked:
            self.rules = self.rules.with_choice(list(self._asked.excludes), self._asked.use_gitignore)

    def _check_name(self, asked: Asked) -> None:
        """The name of what is fetched says where it goes, and so what it may overwrite or delete: the one asked for."""
        name = os.path.basename(asked.path)
        if name in (b"", b".", b".."):
            name = b""
        if self.name == name and (self.is_folder or name):
            return
        if name.startswith(b"~") and name == asked.path:
            raise SyncFailure(*A_HOME)
        raise Violation("another name than the one asked for")

    def _check_excludes(self, entries: list[Entry]) -> None:
        """Refuse what the --exclude that was given here leaves out."""
        rules = self._excludes
        if rules and any(rules.leave_out(entry.path, entry.kind == FOLDER) for entry in entries):
            raise Violation("what --exclude leaves out")


def unpack(row: list[Any]) -> Entry:
    """Give the entry that `pack` was called with. Raises Violation."""
    try:
        path, kind, mode, size, time, extra, is_sparse = row
        raw = bytes.fromhex(extra) if kind == FILE else to_bytes(extra)
        return Entry(to_bytes(path), kind, int(mode), int(size), int(time), raw, bool(is_sparse))
    except MALFORMED as error:
        raise Violation("an entry that cannot be read") from error


class Tree:
    """The paths that have come. Every one stays below the root, in folders that came before, and comes once.

    The other end is believed in nothing that could lead a file elsewhere: `..`, an absolute path, a link that is then
    taken for a folder. `single` is the name of a file that comes alone.
    """

    def __init__(self, single: bytes | None) -> None:
        self._single = single
        self._folders: set[bytes] = {b""}
        self._seen: set[bytes] = set()

    def take(self, entries: list[Entry]) -> None:
        """Take in some more. Raises Violation."""
        folders, seen = self._folders, self._seen
        for entry in entries:
            path, kind, mode, size, time, extra, _ = entry
            parent, _, name = path.rpartition(b"/")
            if name in (b"", b".", b"..") or b"\0" in name or parent not in folders or path in seen or is_part(name):
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
