"""The end that has the destination: compare, say what is wanted, and put it in place."""

from __future__ import annotations

import os
import pwd
import stat

from remote_kernel.sync import blocks, wire
from remote_kernel.sync.contents import FULL, Contents, basis, no_room
from remote_kernel.sync.folders import Folders, set_mode
from remote_kernel.sync.options import SyncOptions, unpack_options
from remote_kernel.sync.partial_file import new_partial_path, sweep
from remote_kernel.sync.plan import Disk, Plan, below, compare, find_extra, is_same_time
from remote_kernel.sync.remote_program import serve
from remote_kernel.sync.tree import FILE, FOLDER, Entry, check_start
from remote_kernel.sync.validate import SourceOffer
from remote_kernel.sync.wire import MessageWire, SyncFailure, shown, to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BATCH = 10_000


class Receiver:
    """One run of the receiving end. `moved` is called with bytes and files that have been dealt with.

    `asked` is the path that a fetch asks the other end for; without it the other end pushes.
    """

    def __init__(
        self,
        wire_: MessageWire,
        target: bytes,
        options: SyncOptions,
        moved: Callable[[int, int], None],
        asked: bytes | None = None,
    ) -> None:
        self._wire, self._target, self._options, self._moved = wire_, target, options, moved
        self._asked_for = asked
        self.root = b""
        self._folders = Folders(b"")
        self._asked: dict[int, int] = {}
        self.plan = Plan()
        self._failed: list[tuple[bytes, str]] = []
        self._deleted = 0
        self._left_as_they_are = 0  # whose mode cannot be kept there

    def consider(self) -> dict[str, Any]:
        """Read what the other end has, work out what is to be done, and give that. Raises Broken, SyncFailure."""
        options = self._options
        offer = self.offer = SourceOffer(self._wire, options, self._asked_for)
        check_start(self._target)
        root, name = find_target(self._target, offer.name, offer.is_folder, _is_folder_here)
        self.root = os.path.realpath(root)
        self._folders = Folders(self.root)
        deletes = offer.is_folder and options.delete
        if deletes:
            _check_deletable(self.root)
        disk = Disk(self.root)
        self.plan = compare(disk, offer.arriving(name), options.delete, options.checksum)
        if deletes:
            self.plan.to_delete = find_extra(disk, offer.entries, self.plan.obstructing, offer.rules)
        self._failed = list(offer.left)
        if self._failed and self.plan.to_delete:
            self.plan.to_delete = []
            self._failed.append((b"", "nothing was deleted, because not all of the source could be read"))
        self._failed += self.plan.failed
        return self._described()

    def ask(self, plan: dict[str, Any]) -> None:
        """Send the plan, make folders and links, and ask for what is wanted. Raises Broken, SyncFailure."""
        self._wire.write_rows(wire.ACTIONS, plan.get("actions", []))
        self._wire.write_object(wire.PLAN, {key: value for key, value in plan.items() if key != "actions"})
        whole: list[int] = []
        with self._folders:
            if not self._options.dry_run:
                self._make_way()
            for number in self.plan.wanted:
                entry = self.offer.entries[number]
                if self._options.dry_run or not (digests := basis(self._folders, entry)):
                    self._asked[number] = 0
                    whole.append(number)
                else:
                    self._asked[number] = len(digests) // blocks.DIGEST * blocks.block_size(entry.size)
                    self._wire.write(wire.WANT, number, digests)
        for first in range(0, len(whole), _BATCH):
            self._wire.write(wire.WHOLE, 0, wire.packed(whole[first : first + _BATCH]))
        self._wire.write(wire.WANTED)
        self._wire.flush()

    def receive(self) -> dict[str, Any]:
        """Put everything in place and give the summary, which the other end gets too. Raises Broken, SyncFailure."""
        contents = self._contents()
        if self._options.dry_run:
            self._deleted = len(self.plan.to_delete)
            self._wire.read_empty(wire.SENT)
        else:
            with self._folders:
                contents.receive()
                self._failed += contents.failed
                self._delete()
                self._finish_folders()
        summary = self._summary(contents)
        failed = [[to_text(path), reason] for path, reason in self._failed[: wire.MOST_UNDONE]]
        self._wire.write_rows(wire.UNDONE, failed)
        self._wire.write_object(wire.SUMMARY, summary)
        self._wire.flush()
        return {**summary, "failed": failed, "passed_over": self.offer.passed_over}

    def _contents(self) -> Contents:
        return Contents(self._wire, self._folders, self.offer.entries, self._asked, self._moved)

    def _make_way(self) -> None:
        """Remove what is in the way, make folders and links, and mend modes and times."""
        try:
            self._make_root()
        except OSError as error:
            if error.errno in FULL:
                raise no_room(self.root, error) from error
            raise SyncFailure("SyncError", f"cannot make the folder {shown(self.root)}: {error.strerror}") from error
        for path in self.plan.obstructing:
            self._try(path, lambda path=path: self._clear(path))  # type: ignore[misc]
        for numbers, action in (
            (self.plan.folders, self._make_folder),
            (self.plan.links, self._make_link),
            (self.plan.touched, self._touch),
        ):
            for number in numbers:
                entry = self.offer.entries[number]
                self._try(entry.path, lambda entry=entry, action=action: action(entry))  # type: ignore[misc]

    def _make_root(self) -> None:
        """Make the folder that all goes into, if there is none: as open to others as the one that is copied."""
        if not self.offer.is_folder or os.path.isdir(self.root):
            os.makedirs(self.root, exist_ok=True)
            return
        os.makedirs(os.path.dirname(self.root), exist_ok=True)
        mode = self.offer.mode | 0o700
        try:
            os.mkdir(self.root, mode)
        except FileExistsError:
            if not os.path.isdir(self.root):
                raise
            return  # another sync was quicker
        set_mode(self.root, stat.S_IMODE(os.stat(self.root).st_mode) & 0o7000 | mode)  # a umask may have cut it

    def _try(self, path: bytes, action: Callable[[], None]) -> bool:
        try:
            action()
        except OSError as error:
            if error.errno in FULL:
                raise no_room(self.root, error) from error
            self._failed.append((path, str(error.strerror or error)))
            return False
        return True

    def _clear(self, path: bytes) -> None:
        folder, name = self._folders.locate(path)
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            found, _ = below(Disk(self.root), path, self.offer.rules)
            for item in found:
                self._remove(item)
        self._remove(path)

    def _make_folder(self, entry: Entry) -> None:
        folder, name = self._folders.locate(entry.path)
        try:
            os.mkdir(name, entry.mode | 0o700, dir_fd=folder)
        except FileExistsError:  # another sync was quicker
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise

    def _make_link(self, entry: Entry) -> None:
        folder, name = self._folders.locate(entry.path)
        new = new_partial_path(name)
        os.symlink(entry.extra, new, dir_fd=folder)
        os.utime(new, ns=(entry.time, entry.time), dir_fd=folder, follow_symlinks=False)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _touch(self, entry: Entry) -> None:
        folder, name = self._folders.locate(entry.path)
        if entry.kind == FILE:
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(there.st_mode):
                raise OSError(0, "it is not a file any more")  # and where a link leads, no mode is ours to change
            if not set_mode(name, entry.mode, folder) and is_same_time(entry.time, there.st_mtime_ns):
                self._left_as_they_are += 1
                return
        os.utime(name, ns=(entry.time, entry.time), dir_fd=folder, follow_symlinks=False)

    def _delete(self) -> None:
        """Delete what the source lacks, unless something went wrong: then it may still be needed."""
        if self._failed and self.plan.to_delete:
            self._failed.append((b"", "nothing was deleted, because not everything could be copied"))
            return
        for path in self.plan.to_delete:
            self._deleted += self._try(path, lambda path=path: self._remove(path))  # type: ignore[misc]

    def _remove(self, path: bytes) -> None:
        try:
            folder, name = self._folders.locate(path)
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass  # another sync was quicker

    def _finish_folders(self) -> None:
        """Set the modes and times of folders, the innermost first; the root itself keeps its own."""
        if not self._failed:
            sweep(self.root)
        for entry in reversed(self.offer.entries):
            if entry.kind != FOLDER:
                continue
            try:
                folder, name = self._folders.locate(entry.path)
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError:
                continue  # it could not be made, which has been told
            if not stat.S_ISDIR(there.st_mode):
                continue
            try:
                if not self._failed:
                    sweep(os.path.join(self.root, entry.path))
                    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                # Who set its group bit there, for a shared folder, did so on purpose.
                mode = entry.mode | (stat.S_IMODE(there.st_mode) & 0o7000)
                if stat.S_IMODE(there.st_mode) != mode:
                    set_mode(name, mode, folder)
                if not is_same_time(entry.time, there.st_mtime_ns):
                    os.utime(name, ns=(entry.time, entry.time), dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                # A folder of somebody else's that is shared with us takes files, but no mode or time from us.
                if not isinstance(error, PermissionError) or there.st_uid == os.geteuid():
                    self._failed.append((entry.path, str(error.strerror)))

    def _described(self) -> dict[str, Any]:
        plan, entries = self.plan, self.offer.entries
        found: dict[str, Any] = {
            "root": to_text(self.root),
            "files": len(plan.wanted),
            "bytes": sum(entries[number].size for number in plan.wanted),
        }
        if self._options.names_paths:
            found["actions"] = [[verb, to_text(path)] for verb, path in plan.actions(entries)]
        return found

    def _summary(self, contents: Contents) -> dict[str, Any]:
        dry, plan = self._options.dry_run, self.plan
        return {
            "files": len(plan.wanted) if dry else contents.files,
            "bytes": sum(self.offer.entries[number].size for number in plan.wanted) if dry else contents.bytes,
            "folders": len(plan.folders),
            "links": len(plan.links),
            "touched": len(plan.touched) - self._left_as_they_are,
            "deleted": self._deleted,
            "unchanged": plan.unchanged + self._left_as_they_are,
            "left_out": self.offer.left_out,
            "failures": sum(bool(path) for path, _ in self._failed),
        }


def find_target(
    target: bytes, name: bytes, is_folder: bool, is_folder_there: Callable[[bytes], bool | None]
) -> tuple[bytes, bytes]:
    """Return the folder that the entries' paths start from, and the name of a single file if that is another.

    As rsync does: a folder that is named goes into the target, what is inside a folder too; a file goes into a folder
    that there is, or that ends with a slash, and else gets the target's name. `name` is empty where only what is inside
    a folder is meant; `is_folder_there` returns None where there is nothing. Raises SyncFailure.
    """
    if is_folder:
        root = os.path.join(target, name) if name else target
        for path in (target, root):
            if is_folder_there(path) is False:
                raise SyncFailure(
                    "SyncError", f"{shown(path)} is not a folder, and the source is one", "give another name"
                )
        return root or b".", b""
    if not target or target.endswith((b"/", b"/.", b"/..")) or target in (b".", b"..") or is_folder_there(target):
        whole = target.rstrip(b"/")
        if whole and is_folder_there(whole) is False:
            raise SyncFailure("SyncError", f"{shown(target)} is not a folder", "leave out the slash to replace it")
        return target or b".", b""
    folder, name = os.path.split(target)
    return folder or b".", name


def _is_folder_here(path: bytes) -> bool | None:
    path = path or b"."
    return os.path.isdir(path) if os.path.lexists(path) else None


def _check_deletable(root: bytes) -> None:
    """Refuse --delete for a home, what a home is in, and /: `remote:$DIR`, with no DIR, names the whole home."""
    homes = {os.path.expanduser(b"~")}
    try:
        homes.add(os.fsencode(pwd.getpwuid(os.geteuid()).pw_dir))
    except KeyError:
        pass
    for home in homes:
        if (os.path.realpath(home) + b"/").startswith(root.rstrip(b"/") + b"/"):
            raise SyncFailure(
                "SyncError",
                f"--delete would delete what the source lacks in all of {shown(root)} on {os.uname().nodename}",
                "name a folder in it, or omit --delete",
            )


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Receive on the remote host, as often as the local end begins: it may watch a folder."""
    settings = parameters["settings"]
    options = unpack_options(settings["options"])

    def receive(pipe: MessageWire, start: bytes) -> None:
        path = os.path.join(start, os.path.expanduser(to_bytes(settings["path"])))
        while not pipe.at_end():
            receiver = Receiver(pipe, path, options, lambda moved, files: None)
            receiver.ask(receiver.consider())
            receiver.receive()

    serve(marker, settings["folder"], receive, makes_folder=not options.dry_run, may_lack=True)
