"""Compare what is offered with what is there: what is to be fetched, made, mended and deleted.

Reads and changes nothing but what it is told to compare.
"""

from __future__ import annotations

import os
import stat
import unicodedata

from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import FOLDER, LINK, Entry, digest, is_partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class StatLike(Protocol):
        """What `os.stat_result` says of a path, as far as it is looked at here."""

        @property
        def st_mode(self) -> int: ...
        @property
        def st_size(self) -> int: ...
        @property
        def st_mtime_ns(self) -> int: ...


_UNITS = (10**9, 10**3, 100)  # nanoseconds in what some file systems round times down to


class Plan:
    """Numbers of entries: files `wanted`, `folders` and `links` to make, `touched` that need only mode and time.

    `obstructing` are paths in the way that go first, `to_delete` those that go last, what is inside before the folder.
    `failed` are paths that nothing can be done about, each with the reason.
    """

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.folders: list[int] = []
        self.links: list[int] = []
        self.touched: list[int] = []
        self.obstructing: list[bytes] = []
        self.to_delete: list[bytes] = []
        self.failed: list[tuple[bytes, str]] = []
        self.unchanged = 0

    def actions(self, entries: list[Entry]) -> list[tuple[str, bytes]]:
        """Return all that is to be done, as a verb and a path."""
        return [
            *(("replace", path) for path in self.obstructing),
            *(("make", entries[number].path + b"/") for number in self.folders),
            *(("link", entries[number].path) for number in self.links),
            *(("copy", entries[number].path) for number in self.wanted),
            *(("touch", entries[number].path) for number in self.touched),
            *(("delete", path) for path in self.to_delete),
        ]


class Disk:
    """What is below a folder of this machine. Another class with these methods may stand for one elsewhere."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    def is_there(self) -> bool:
        """True if there is such a folder."""
        return os.path.isdir(self._root)

    def look(self, path: bytes) -> StatLike | None:
        """Return what is there; a link is itself."""
        try:
            return os.lstat(os.path.join(self._root, path))
        except OSError:
            return None

    def link_target(self, path: bytes) -> bytes:
        """Return where a link leads; nowhere, if it has just gone."""
        try:
            return os.readlink(os.path.join(self._root, path))
        except OSError:
            return b""

    def has_digest(self, path: bytes, wanted: bytes) -> bool:
        """True if a file's content is that one."""
        try:
            return digest(os.path.join(self._root, path)) == wanted
        except OSError:
            return False

    def inside(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Return what is in a folder, by name, and which of that are folders. Raises OSError."""
        with os.scandir(os.path.join(self._root, path) if path else self._root) as items:
            return sorted((item.name, item.is_dir(follow_symlinks=False)) for item in items)


def compare(there: Disk, entries: Iterable[Entry], delete: bool, checksum: bool) -> Plan:
    """Return what has to be done so that these entries are there; what is in the way goes with `delete`.

    What the source lacks is found by `find_extra`.
    """
    plan = Plan()
    missing: set[bytes] = set() if there.is_there() else {b""}
    blocked: set[bytes] = set()
    for number, entry in enumerate(entries):
        parent = entry.path.rpartition(b"/")[0]
        if parent in blocked:
            blocked.add(entry.path)
            continue
        about = None if parent in missing else there.look(entry.path)
        if about and _is_in_the_way(entry, about.st_mode):
            if not delete:
                plan.failed.append((entry.path, _in_the_way(about.st_mode)))
                blocked.add(entry.path)
                continue
            plan.obstructing.append(entry.path)
            about = None
        if about is None and entry.kind == FOLDER:
            missing.add(entry.path)
        _decide(plan, number, entry, there, about, checksum)
    return plan


def find_extra(there: Disk, entries: list[Entry], obstructing: Iterable[bytes], rules: Rules) -> list[bytes]:
    """Return what is there and not among the entries, unless rules leave it out or it goes before, as `obstructing`.

    What is inside comes before its folder.
    """
    if not there.is_there():
        return []
    found: list[bytes] = []
    known = {entry.path for entry in entries}
    obstructing = set(obstructing)
    spelled: dict[str, bytes] = {}
    for folder in [b"", *(entry.path for entry in entries if entry.kind == FOLDER)]:
        if folder in obstructing or folder.rpartition(b"/")[0] in obstructing:
            obstructing.add(folder)  # nor is anything below it: the way there may lead through a link
            continue
        try:
            inside = there.inside(folder)
        except OSError:
            continue
        listed = {name for name, _ in inside}
        for name, is_folder in inside:
            path = folder + b"/" + name if folder else name
            if path in known or is_partial(name) or rules.leave_out(path, is_folder):
                continue
            spelled = spelled or {_fold(entry.path): entry.path for entry in entries}
            other = spelled.get(_fold(path))
            # Where A and a are one name, or both spellings of é, this is what an entry was found under, or came to.
            if other and os.path.basename(other) not in listed and there.look(other):
                continue
            more, emptied = below(there, path, rules) if is_folder else ([], True)
            found += [*more, path] if emptied else more
    return found


def is_same_time(wanted: int, there: int) -> bool:
    """True if the times (nanoseconds) are equal as far as the file system at either end, or SFTP, can tell."""
    return wanted == there or any(
        0 in (wanted % unit, there % unit) and wanted // unit == there // unit for unit in _UNITS
    )


def below(there: Disk, path: bytes, rules: Rules) -> tuple[list[bytes], bool]:
    """Return what is in a folder and no rule protects, what is inside before its folder, and whether that is all."""
    found: list[bytes] = []
    kept: set[bytes] = set()  # folders that hold something that stays
    waiting = [(path, True)]
    while waiting:
        item, is_new_folder = waiting.pop()
        if not is_new_folder:
            if item not in kept:
                found.append(item)
            continue
        try:
            inside = there.inside(item)
        except OSError:
            _keep(item, kept)
            continue
        waiting.append((item, False))
        for name, is_folder in reversed(inside):
            more = item + b"/" + name
            if rules.leave_out(more, is_folder) and not is_partial(name):
                _keep(item, kept)
            else:
                waiting.append((more, is_folder))
    return [item for item in found if item != path], path not in kept


def _keep(folder: bytes, kept: set[bytes]) -> None:
    while folder and folder not in kept:
        kept.add(folder)
        folder = folder.rpartition(b"/")[0]


def _is_in_the_way(entry: Entry, mode: int) -> bool:
    """True if what is there would have to be removed first; a file or link in a file's or link's place need not."""
    return stat.S_ISDIR(mode) != (entry.kind == FOLDER)


def _in_the_way(mode: int) -> str:
    kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a file"
    return f"{kind} is in its place, which only --delete replaces"


def _decide(plan: Plan, number: int, entry: Entry, there: Disk, about: StatLike | None, checksum: bool) -> None:
    if entry.kind == FOLDER:
        if about is None:
            plan.folders.append(number)
        return
    if entry.kind == LINK:
        if about is None or not stat.S_ISLNK(about.st_mode) or there.link_target(entry.path) != entry.extra:
            plan.links.append(number)
        elif not is_same_time(entry.time, about.st_mtime_ns):
            plan.touched.append(number)
        else:
            plan.unchanged += 1
        return
    if about is None or not stat.S_ISREG(about.st_mode) or about.st_size != entry.size:
        plan.wanted.append(number)
        return
    same_time = is_same_time(entry.time, about.st_mtime_ns)
    if not (there.has_digest(entry.path, entry.extra) if checksum else same_time):
        plan.wanted.append(number)
    elif not same_time or about.st_mode & 0o777 != entry.mode:
        plan.touched.append(number)
    else:
        plan.unchanged += 1


def _fold(path: bytes) -> str:
    return unicodedata.normalize("NFC", path.decode("utf-8", "surrogateescape")).casefold()
