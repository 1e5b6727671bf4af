"""The end that has the destination: compare, say what is wanted, and put it in place.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from remote_kernel.sync import wire
from remote_kernel.sync.contents import Contents, basis, has_old_version
from remote_kernel.sync.part import part_path, sweep
from remote_kernel.sync.plan import Disk, Plan, below, check, compare, is_same_time
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import shown
from remote_kernel.sync.tool import ALL, CHANGED, NEVER, has_rsync
from remote_kernel.sync.tree import FILE, FOLDER, Entry
from remote_kernel.sync.wire import Broken, SyncFailure, Wire, to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MOST_NAMED = 100
_BATCH = 10_000


class Wishes(NamedTuple):
    """What is asked for besides the files: `delete` what the source lacks, `dry_run` changes nothing, `checksum`
    compares contents where sizes are equal, `names` tells every path that is dealt with, `rsync` is who carries files:
    NEVER it, where both ends have it those CHANGED that are large, or ALL.
    """

    delete: bool = False
    dry_run: bool = False
    checksum: bool = False
    names: bool = False
    rsync: str = CHANGED


class Offer(NamedTuple):
    """What the other end has. `notes` says what it left out and could not read."""

    name: bytes
    is_folder: bool
    root: bytes
    rules: Rules
    has_rsync: bool
    entries: list[Entry]
    notes: dict[str, Any]


class Receiver:
    """One run of the receiving end. `moved` is called with bytes and files that have been dealt with."""

    def __init__(self, wire_: Wire, target: bytes, wishes: Wishes, moved: Callable[[int, int], None]) -> None:
        self._wire, self._target, self._wishes, self._moved = wire_, target, wishes, moved
        self.offer = Offer(b"", False, b"", Rules([], False), False, [], {})
        self.root = b""
        self.plan = Plan()
        self.for_rsync: list[bytes] = []
        self._rsync_is_here: bool | None = None
        self._failed: list[tuple[bytes, str]] = []
        self._deleted = 0

    def consider(self) -> dict[str, Any]:
        """Read what the other end has, work out what is to be done, and give that. Raises Broken, SyncFailure."""
        self.offer = _read_offer(self._wire)
        check(self.offer.entries, self.offer.is_folder)
        self.root, entries = find_target(self._target, self.offer)
        self.offer = self.offer._replace(entries=entries)
        rules = self.offer.rules if self.offer.is_folder else None
        self.plan = compare(Disk(self.root), entries, rules, self._wishes.delete, self._wishes.checksum)
        self._failed = [(to_bytes(path), reason) for path, reason in self.offer.notes["left"]]
        if self._failed and self.plan.doomed:
            self.plan.doomed = []
            self._failed.append((b"", "nothing was deleted, because not all of the source could be read"))
        self._failed += self.plan.failed
        return self._described()

    def ask(self, plan: dict[str, Any]) -> None:
        """Tell the plan, make folders and links, and say which contents are wanted. Raises Broken, SyncFailure."""
        self._wire.write_object(wire.PLAN, plan)
        if not self._wishes.dry_run:
            self._make_way()
        whole: list[int] = []
        for number in self.plan.wanted:
            entry = self.offer.entries[number]
            path = os.path.join(self.root, entry.path)
            if self._is_for_rsync(path, entry):
                self.for_rsync.append(entry.path)
                self._wire.write(wire.BY_RSYNC, number)
            elif self._wishes.dry_run or not (digests := basis(path, entry)):
                whole.append(number)
            else:
                self._wire.write(wire.WANT, number, digests)
        for first in range(0, len(whole), _BATCH):
            self._wire.write(wire.WHOLE, 0, wire.packed(whole[first : first + _BATCH]))
        self._wire.write(wire.WANTED)
        self._wire.flush()

    def receive(self) -> dict[str, Any]:
        """Put everything in place and give the summary, which the other end gets too. Raises Broken, SyncFailure."""
        contents = Contents(self._wire, self.root, self.offer.entries, self._moved)
        if self._wishes.dry_run:
            self._deleted = len(self.plan.doomed)
            self._wire.read_empty(wire.SENT)
        else:
            contents.receive()
            self._failed += contents.failed
            self._delete()
            self._finish_folders()
        summary = self._summary(contents)
        self._wire.write_object(wire.SUMMARY, summary)
        self._wire.flush()
        return summary

    def _is_for_rsync(self, path: bytes, entry: Entry) -> bool:
        mode = self._wishes.rsync
        if mode == NEVER or self._wishes.dry_run or (mode == CHANGED and not has_old_version(path, entry)):
            return False
        if self._rsync_is_here is None:
            self._rsync_is_here = self.offer.has_rsync and has_rsync()
        if mode == ALL and not self._rsync_is_here:
            where = os.uname().nodename if self.offer.has_rsync else "the sending side"
            raise SyncFailure("SyncError", f"there is no rsync 3.1 or later on {where}", "leave out --rsync")
        return self._rsync_is_here

    def _make_way(self) -> None:
        """Remove what is in the way, make folders and links, and mend modes and times."""
        try:
            os.makedirs(self.root, exist_ok=True)
        except OSError as error:
            raise SyncFailure("SyncError", f"cannot make the folder {shown(self.root)}: {error.strerror}") from error
        for path in self.plan.cleared:
            self._try(path, lambda path=path: self._clear(path))  # type: ignore[misc]
        for numbers, action in (
            (self.plan.folders, self._make_folder),
            (self.plan.links, self._make_link),
            (self.plan.touched, self._touch),
        ):
            for number in numbers:
                entry = self.offer.entries[number]
                self._try(entry.path, lambda entry=entry, action=action: action(entry))  # type: ignore[misc]

    def _try(self, path: bytes, action: Callable[[], None]) -> bool:
        try:
            action()
        except OSError as error:
            self._failed.append((path, str(error.strerror or error)))
            return False
        return True

    def _clear(self, path: bytes) -> None:
        whole = os.path.join(self.root, path)
        if os.path.isdir(whole) and not os.path.islink(whole):
            found, _ = below(Disk(self.root), path, self.offer.rules)
            for item in found:
                self._remove(item)
            os.rmdir(whole)
        else:
            os.unlink(whole)

    def _make_folder(self, entry: Entry) -> None:
        os.mkdir(os.path.join(self.root, entry.path), entry.mode | 0o700)

    def _make_link(self, entry: Entry) -> None:
        path = os.path.join(self.root, entry.path)
        new = part_path(path, b"link")
        try:
            os.unlink(new)
        except OSError:
            pass
        os.symlink(entry.extra, new)
        os.utime(new, ns=(entry.time, entry.time), follow_symlinks=False)
        os.rename(new, path)

    def _touch(self, entry: Entry) -> None:
        path = os.path.join(self.root, entry.path)
        if entry.kind == FILE:
            os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.time, entry.time), follow_symlinks=False)

    def _delete(self) -> None:
        """Delete what the source lacks, unless something went wrong: then it may still be needed."""
        if self._failed and self.plan.doomed:
            self._failed.append((b"", "nothing was deleted, because not everything could be copied"))
            return
        for path in self.plan.doomed:
            self._deleted += self._try(path, lambda path=path: self._remove(path))  # type: ignore[misc]

    def _remove(self, path: bytes) -> None:
        whole = os.path.join(self.root, path)
        if os.path.isdir(whole) and not os.path.islink(whole):
            os.rmdir(whole)
        else:
            os.unlink(whole)

    def _finish_folders(self) -> None:
        """Give folders their modes and times, the innermost first; the root itself keeps its own."""
        if not self._failed:
            sweep(self.root)
        for entry in reversed(self.offer.entries):
            if entry.kind != FOLDER:
                continue
            path = os.path.join(self.root, entry.path)
            try:
                there = os.lstat(path)
            except OSError:
                continue  # it could not be made, which has been told
            if not stat.S_ISDIR(there.st_mode):
                continue
            try:
                if not self._failed:
                    sweep(path)
                    there = os.lstat(path)
                # Who set its group bit there, for a shared folder, did so on purpose.
                mode = entry.mode | (stat.S_IMODE(there.st_mode) & 0o7000)
                if stat.S_IMODE(there.st_mode) != mode:
                    os.chmod(path, mode)
                if not is_same_time(entry.time, there.st_mtime_ns):
                    os.utime(path, ns=(entry.time, entry.time))
            except OSError as error:
                # A folder of somebody else's that is shared with us takes files, but no mode or time from us.
                if not isinstance(error, PermissionError) or there.st_uid == os.geteuid():
                    self._failed.append((entry.path, str(error.strerror)))

    def _described(self) -> dict[str, Any]:
        plan, entries = self.plan, self.offer.entries
        found: dict[str, Any] = {
            "root": to_text(self.root),
            "name": "" if self.offer.is_folder or not entries else to_text(entries[0].path),
            "files": len(plan.wanted),
            "bytes": sum(entries[number].size for number in plan.wanted),
        }
        if self._wishes.names:
            found["actions"] = [[verb, to_text(path)] for verb, path in plan.actions(entries)]
        return found

    def _summary(self, contents: Contents) -> dict[str, Any]:
        dry, plan = self._wishes.dry_run, self.plan
        return {
            "files": len(plan.wanted) if dry else contents.files,
            "bytes": sum(self.offer.entries[number].size for number in plan.wanted) if dry else contents.bytes,
            "folders": len(plan.folders),
            "links": len(plan.links),
            "touched": len(plan.touched),
            "deleted": self._deleted,
            "unchanged": plan.unchanged,
            "left_out": self.offer.notes["left_out"],
            "passed_over": self.offer.notes["passed_over"][:_MOST_NAMED],
            "failures": sum(bool(path) for path, _ in self._failed),
            "failed": [[to_text(path), reason] for path, reason in self._failed[:_MOST_NAMED]],
        }


def find_target(target: bytes, offer: Offer) -> tuple[bytes, list[Entry]]:
    """Give the folder that the entries' paths start from here, and the entries, a single file renamed if it is to be.

    As rsync does: a folder that is named goes into the target, what is inside a folder too; a file goes into a folder
    that there is, or that ends with a slash, and else gets the target's name. Raises SyncFailure.
    """
    if offer.is_folder:
        root = os.path.join(target, offer.name) if offer.name else target
        for path in (target, root):
            if os.path.lexists(path or b".") and not os.path.isdir(path or b"."):
                raise SyncFailure(
                    "SyncError", f"{shown(path)} is no folder, and the source is one", "give another name"
                )
        return os.path.realpath(root or b"."), offer.entries
    if not target or target.endswith((b"/", b"/.", b"/..")) or target in (b".", b"..") or os.path.isdir(target):
        whole = target.rstrip(b"/")
        if whole and os.path.lexists(whole) and not os.path.isdir(whole):
            raise SyncFailure("SyncError", f"{shown(target)} is no folder", "leave out the slash to replace it")
        return os.path.realpath(target or b"."), offer.entries
    folder, name = os.path.split(target)
    return os.path.realpath(folder or b"."), [entry._replace(path=name) for entry in offer.entries]


def unpack(row: list[Any]) -> Entry:
    """Give the entry that `pack` was called with. Raises Broken."""
    try:
        path, kind, mode, size, time, extra, is_sparse = row
        raw = bytes.fromhex(extra) if kind == FILE else to_bytes(extra)
        return Entry(to_bytes(path), kind, int(mode), int(size), int(time), raw, bool(is_sparse))
    except (TypeError, ValueError, AttributeError) as error:
        raise Broken from error


def _read_offer(wire_: Wire) -> Offer:
    begin = wire_.read_object(wire.BEGIN)
    entries: list[Entry] = []
    while True:
        kind, _, body = wire_.read()
        if kind == wire.ENTRIED:
            notes = wire.decoded(body)
            break
        if kind != wire.ENTRIES:
            raise Broken
        entries += map(unpack, wire.decoded(body))
    name = to_bytes(begin["name"])
    if b"/" in name or name in (b".", b"..") or b"\0" in name:
        raise Broken
    rules = Rules.unpack(begin["rules"])
    return Offer(name, bool(begin["is_folder"]), to_bytes(begin["root"]), rules, bool(begin["rsync"]), entries, notes)
