"""Put files on a host that has SFTP and nothing else: what the receiver does elsewhere is done from here."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial

from remote_kernel.errors import NoRoom, SyncError
from remote_kernel.sync import blocks
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.plan import Plan, below, compare, find_extra, is_same_time
from remote_kernel.sync.receiver import find_target
from remote_kernel.sync.sender import Source
from remote_kernel.sync.sftp_client import TO_MAKE, TO_WRITE, Job, Reply, Sftp
from remote_kernel.sync.sftp_tree import WINDOW, RemoteTree, read_about
from remote_kernel.sync.tree import FILE, FOLDER, LINK, PARTIAL_MARKS, Entry
from remote_kernel.sync.wire import shown

SMALL = 128 << 10  # files up to this size go hundreds at a time, larger ones a few
LARGE_AT_ONCE = 4
_LEAST_ROOM = 4096  # bytes, for a folder or link
_MARK_LENGTH = len(PARTIAL_MARKS[0]) + 16


class SftpReceiver:
    """One run. `moved` is called with bytes and files that have been dealt with.

    `consider` first, then `receive`; what was done is in the fields then. Both raise PipeBroken and RemoteKernelError.
    """

    def __init__(
        self, sftp: Sftp, host: str, source: Source, options: SyncOptions, moved: Callable[[int, int], None]
    ) -> None:
        self._sftp, self._host, self._source, self._options, self._moved = sftp, host, source, options, moved
        self.entries = source.listing.entries
        self.root = b""
        self.plan = Plan()
        self.failed: list[tuple[bytes, str]] = list(source.listing.left)
        self.files = self.bytes = self.deleted = 0
        self.left_as_they_are = 0  # of those to be touched: there is no such mode there
        self._run = os.urandom(8).hex().encode()  # what this run writes has a name of its own
        self._left: dict[bytes, list[tuple[bytes, int]]] = {}  # partial files, with their sizes, of each file

    def consider(self, target: bytes) -> None:
        """Find where it goes and what is to be done."""
        source, options = self._source, self._options
        root, name = find_target(target, source.name, source.is_folder, self._is_folder_there)
        self.root = root
        if name:
            self.entries = [entry._replace(path=name) for entry in self.entries]
        of_all = source.rules if options.delete and source.is_folder else None
        known = {entry.path for entry in self.entries if entry.kind in (FOLDER, LINK)}
        self._there = RemoteTree(self._sftp, self.root)
        self._there.read(
            lambda path, is_folder: (
                path in known or (is_folder and of_all is not None and not of_all.leave_out(path, is_folder=True))
            )
        )
        for path, size in self._there.parts.items():
            self._left.setdefault(path[: path.rindex(PARTIAL_MARKS[0]) + _MARK_LENGTH], []).append((path, size))
        if options.checksum:
            self._there.read_contents(self.entries)
        if of_all:
            self._check_deletable()
        self.plan = compare(self._there, self.entries, options.delete, options.checksum)
        if of_all:
            self.plan.to_delete = find_extra(self._there, self.entries, self.plan.obstructing, of_all)
        if not self._sftp.sets_link_times:
            links = [number for number in self.plan.touched if self.entries[number].kind != FILE]
            self.plan.touched = [number for number in self.plan.touched if number not in links]
            self.plan.unchanged += len(links)
        if self.failed and self.plan.to_delete:
            self.plan.to_delete = []
            self.failed.append((b"", "nothing was deleted, because not all of the source could be read"))
        self.failed += self.plan.failed

    def receive(self) -> None:
        """Put everything in place."""
        if self._options.dry_run:
            self.files, self.deleted = len(self.plan.wanted), len(self.plan.to_delete)
            self.bytes = sum(self.entries[number].size for number in self.plan.wanted)
            return
        self._make_root()
        self._make_way()
        wanted = [self.entries[number] for number in self.plan.wanted]
        small = (self._send(entry) for entry in wanted if entry.size <= SMALL)
        self._sftp.run(small, self._sftp.handles)
        self._sftp.run((self._send(entry) for entry in wanted if entry.size > SMALL), LARGE_AT_ONCE)
        self._delete()
        self._finish_folders()

    def _is_folder_there(self, path: bytes) -> bool | None:
        about = read_about(self._sftp, path.rstrip(b"/") or path)
        return stat.S_ISDIR(about.st_mode) if about else None

    def _check_deletable(self) -> None:
        """Refuse --delete for the home, what that is in, and /, as `receiver` does."""
        try:
            root = self._sftp.wait(self._sftp.whole_path(self.root)).name()
        except OSError:
            return  # there is nothing to delete
        home = self._sftp.wait(self._sftp.whole_path(b".")).name()
        if (home + b"/").startswith(root.rstrip(b"/") + b"/"):
            raise SyncError(
                f"--delete would delete what the source lacks in all of {shown(root)} on {self._host}",
                "name a folder in it, or omit --delete",
            )

    def _make_root(self) -> None:
        """Make the folder that all goes into, if there is none: as open to others as the one that is copied."""
        mode = self._source.mode | 0o700 if self._source.is_folder else None
        try:
            make_folders(self._sftp, self.root, mode)
        except OSError as error:
            raise SyncError(f"cannot make the folder {shown(self.root)}: {error.strerror}") from error

    def _make_way(self) -> None:
        """Remove what is in the way, make folders and links, and mend modes and times. The server keeps the order."""
        steps: list[tuple[bytes, list[Reply]]] = []
        for path in self.plan.obstructing:
            about = self._there.look(path)
            inside = below(self._there, path, self._source.rules)[0] if about and stat.S_ISDIR(about.st_mode) else []
            steps.append((path, [self._remove(item) for item in (*inside, path)]))
        folders = [self.entries[number] for number in self.plan.folders]
        made = [(entry, self._sftp.make_folder(self._at(entry.path), entry.mode | 0o700)) for entry in folders]
        for number in self.plan.links:
            steps.append((self.entries[number].path, self._link(self.entries[number])))
        for number in self.plan.touched:
            entry = self.entries[number]
            path = self._at(entry.path)
            if entry.kind != FILE:
                steps.append((entry.path, [self._sftp.change_link(path, entry.time)]))
        for entry, reply in made:
            try:
                self._sftp.wait(reply).check()
            except OSError as error:
                if not self._is_folder(entry.path):  # else another sync was quicker
                    self._fail(entry.path, error, _LEAST_ROOM)
        self._settle(steps)
        self._mend_files()

    def _mend_files(self) -> None:
        """Set the modes and times of files that need no more than that."""
        files = [entry for number in self.plan.touched if (entry := self.entries[number]).kind == FILE]
        for entry, has_mode, error in self._set_marks((entry, entry.mode) for entry in files):
            if error:
                self._fail(entry.path, error, _LEAST_ROOM)
            elif not has_mode:
                about = self._there.look(entry.path)
                self.left_as_they_are += about is not None and is_same_time(entry.time, about.st_mtime_ns)

    def _set_marks(self, wanted: Iterable[tuple[Entry, int]]) -> list[tuple[Entry, bool, OSError | None]]:
        """Set modes and times, many at once; return of each whether it has its mode, and why not where it is an error.

        Both are the owner's right: where the time may be set and the mode not, the file system has no such mode.
        """
        done: list[tuple[Entry, bool, OSError | None]] = []

        def job(entry: Entry, mode: int) -> Job:
            try:
                has_mode = yield from _change(self._sftp, self._at(entry.path), mode, entry.time)
                done.append((entry, has_mode, None))
            except OSError as error:
                done.append((entry, False, error))

        self._sftp.run((job(entry, mode) for entry, mode in wanted), self._sftp.handles)
        return done

    def _is_folder(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(self._sftp.wait(self._sftp.look(self._at(path))).about().st_mode)
        except OSError:
            return False

    def _settle(self, steps: Iterable[tuple[bytes, list[Reply]]]) -> int:
        """Wait for what was asked for each path, note what failed, and count what did not."""
        done = 0
        for path, replies in steps:
            try:
                for reply in replies:
                    self._sftp.wait(reply).check()
                done += 1
            except OSError as error:
                self._fail(path, error, _LEAST_ROOM)
        return done

    def _link(self, entry: Entry) -> list[Reply]:
        path = self._at(entry.path)
        new = _mark_of(path) + b"-" + self._run + PARTIAL_MARKS[1]
        for left, _ in self._left.pop(_mark_of(entry.path), ()):
            self._sftp.remove(self._at(left))
        found = [self._sftp.make_link(new, entry.extra)]
        if self._sftp.sets_link_times:
            found.append(self._sftp.change_link(new, entry.time))
        return [*found, self._sftp.rename(new, path)]

    def _send(self, entry: Entry) -> Job:
        """Send one file: beside its final name, which it gets when the server has said that every byte is written."""
        target = self._at(entry.path)
        version = partial_version_path(target, b"%d %d" % (entry.size, entry.time))
        part = version + b"-" + self._run + PARTIAL_MARKS[1]
        source = self._source
        path = os.path.join(source.root, entry.path if source.is_folder else source.listing.entries[0].path)
        try:
            start = yield from self._take_over(entry, version, part)
            flags = TO_WRITE if start else TO_MAKE
            opened = self._sftp.open(part, flags)
            yield opened
            try:
                handle = opened.handle()
            except PermissionError:
                if not self._unlock(os.path.dirname(entry.path)):
                    raise
                opened = self._sftp.open(part, flags)
                yield opened
                handle = opened.handle()
            try:
                yield from self._send_content(
                    path if source.is_folder else os.path.realpath(path), part, handle, start, entry
                )
            except OSError:
                self._sftp.close(handle)
                raise
            yield from self._put_in_place(part, target)
        except OSError as error:
            self._fail(entry.path, error, max(self._sftp.chunk, min(entry.size, 1 << 20)))
            return
        self.files += 1
        self.bytes += entry.size
        self._moved(0, 1)

    def _put_in_place(self, part: bytes, target: bytes) -> Job:
        try:
            if not self._sftp.replaces_in_one_step:
                looked = self._sftp.look(part)  # before the old file is removed
                yield looked
                looked.about()
            renamed = self._sftp.rename(part, target)
            yield renamed
            renamed.check()
        except FileNotFoundError as error:
            raise OSError(0, "what had come of it was taken away: another sync of it may be under way") from error

    def _take_over(self, entry: Entry, version: bytes, part: bytes) -> Generator[Reply, None, int]:
        """Rename what is left of an earlier transfer of this version to this one's name; return where to go on.

        A server has no locks. Whoever should still be writing there finds the name gone, and can only write the bytes
        that belong there: so what it wrote is never cut off. What is of no use is removed.
        """
        found = 0
        for path, size in self._left.pop(_mark_of(entry.path), ()):
            start = min(size, entry.size) - 2 * WINDOW  # a server may have written the last, and not what was before
            if found or start < blocks.LEAST or not self._at(path).startswith(version):
                self._sftp.remove(self._at(path))
                continue
            if (yield from self._claim(self._at(path), part, size)):
                found = start
            else:
                self._sftp.remove(part)
        return found

    def _claim(self, left: bytes, part: bytes, size: int) -> Generator[Reply, None, bool]:
        """Rename what is left to `part`; true where it is as good as one that is made now, and of that size at least.

        In a shared folder anybody can put something of that name: a link, or a file that they read and change later.
        """
        opened = self._sftp.open(part, TO_MAKE)
        yield opened
        closed, made = self._sftp.close(opened.handle()), self._sftp.look(part)
        renamed, taken = self._sftp.rename(left, part), self._sftp.look(part)
        yield from (closed, made, renamed, taken)
        try:
            renamed.check()
            ours, found = made.about(), taken.about()
        except OSError:
            return False  # another sync was quicker
        is_as_made = (found.st_mode, found.st_uid) == (ours.st_mode, ours.st_uid)
        return is_as_made and stat.S_ISREG(found.st_mode) and found.st_size >= size

    def _send_content(self, path: bytes, part: bytes, handle: bytes, start: int, entry: Entry) -> Job:
        window: deque[tuple[int, Reply]] = deque()
        under_way = 0
        self._moved(start, 0)
        for offset, data in _read(path, start, entry, self._sftp.chunk):
            window.append((len(data), self._sftp.write(handle, offset, data)))
            under_way += len(data)
            while under_way > WINDOW:
                count, reply = window.popleft()
                yield reply
                reply.check()
                under_way -= count
                self._moved(count, 0)
        changed = self._sftp.change_open(handle, entry.size, entry.mode, entry.time)
        closed = self._sftp.close(handle)
        for count, reply in window:
            yield reply
            reply.check()
            self._moved(count, 0)
        yield changed
        try:
            changed.check()
        except PermissionError:  # as in `_change`
            changed = self._sftp.change(part, size=entry.size, time_ns=entry.time)
            yield changed
            changed.check()
        yield closed
        closed.check()

    def _unlock(self, folder: bytes) -> bool:
        """Make a write-protected folder writable; it gets its own mode at the end."""
        about = self._there.look(folder)
        if about is None or about.st_mode & 0o700 == 0o700:
            return False
        reply = self._sftp.change(self._at(folder), mode=stat.S_IMODE(about.st_mode) | 0o700)
        try:
            self._sftp.wait(reply).check()
        except OSError:
            return False
        return True

    def _fail(self, path: bytes, error: OSError, needed: int) -> None:
        """Note a failure. That a disk is full, which lacks the bytes `needed`, is told as a failure like any other."""
        if error.errno == errno.EIO:
            room = self._sftp.room(self.root)
            if room is not None and room < needed:
                raise NoRoom(
                    f"there is no room on {self._host} in {shown(self.root)}",
                    "make room there; the same command then continues from here",
                ) from error
        self.failed.append((path, str(error.strerror or error)))

    def _delete(self) -> None:
        """Delete what the source lacks, unless something went wrong: then it may still be needed."""
        if self.failed and self.plan.to_delete:
            self.failed.append((b"", "nothing was deleted, because not everything could be copied"))
            return
        self.deleted = self._settle([(path, [self._remove(path)]) for path in self.plan.to_delete])

    def _remove(self, path: bytes) -> Reply:
        about = self._there.look(path)
        is_folder = about is not None and stat.S_ISDIR(about.st_mode)
        return (self._sftp.remove_folder if is_folder else self._sftp.remove)(self._at(path))

    def _finish_folders(self) -> None:
        """Set the modes and times of folders, the innermost first; the root itself keeps its own."""
        folders = [entry for entry in reversed(self.entries) if entry.kind == FOLDER]
        looks = [self._sftp.look(self._at(entry.path)) for entry in folders]
        wanted: list[tuple[Entry, int]] = []
        for entry, look in zip(folders, looks, strict=True):
            try:
                about = self._sftp.wait(look).about()
            except OSError:
                continue  # it could not be made, which has been told
            mode = entry.mode | (stat.S_IMODE(about.st_mode) & 0o7000)
            if not stat.S_ISDIR(about.st_mode):
                continue
            if stat.S_IMODE(about.st_mode) != mode or not is_same_time(entry.time, about.st_mtime_ns):
                wanted.append((entry, mode))
        for entry, _, error in self._set_marks(wanted):
            # A folder of somebody else's that is shared with us takes files, but no mode or time from us.
            if error and (self._there.look(entry.path) is None or not isinstance(error, PermissionError)):
                self.failed.append((entry.path, str(error.strerror)))

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self.root, path)


def make_folders(sftp: Sftp, path: bytes, mode: int | None = None) -> None:
    """Make a folder there, of that mode, and those that it is in, where there are none. Raises OSError."""
    about = read_about(sftp, path)
    if about and stat.S_ISDIR(about.st_mode):
        return
    parent = os.path.dirname(path.rstrip(b"/"))
    if parent and parent != path:
        make_folders(sftp, parent)
    sftp.wait(sftp.make_folder(path.rstrip(b"/"), 0o777 if mode is None else mode)).check()
    about = read_about(sftp, path) if mode is not None else None
    if mode is not None and about:
        mode |= stat.S_IMODE(about.st_mode) & 0o7000
        try:
            sftp.wait(sftp.change(path, mode=mode)).check()  # a umask may have cut it
        except PermissionError:
            pass  # it is ours, so that the file system has no such mode


def _change(sftp: Sftp, path: bytes, mode: int, time: int) -> Generator[Reply, None, bool]:
    """Set a mode and time, or the time alone where there is no such mode: False then. Raises OSError."""
    both = sftp.change(path, mode=mode, time_ns=time)
    yield both
    try:
        both.check()
    except PermissionError:
        time_alone = sftp.change(path, time_ns=time)
        yield time_alone
        time_alone.check()
        return False
    return True


def partial_version_path(target: bytes, version: bytes) -> bytes:
    """Return what the paths of the partial files of that version of a file begin with: a server tells no digests."""
    return _mark_of(target) + b"-v" + blocks.new_digest(version, 8).hexdigest().encode()


def _mark_of(target: bytes) -> bytes:
    """Return what the paths of all partial files of a file begin with."""
    folder, name = os.path.split(target)
    return os.path.join(folder, PARTIAL_MARKS[0] + blocks.new_digest(name, 8).hexdigest().encode())


def _read(path: bytes, start: int, entry: Entry, chunk: int) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a file, without what is nothing but zeros if it is sparse. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0) as file:
        read = partial(os.pread, file.fileno())
        while start < entry.size:
            data = read(min(chunk, entry.size - start), start)
            if not data:
                raise OSError(0, "it became shorter while it was read")
            if not entry.is_sparse or data.count(0) < len(data):
                yield start, data
                start += len(data)
            else:
                start = _after_hole(file.fileno(), start + len(data), entry.size)


def _after_hole(fd: int, start: int, end: int) -> int:
    """Return where data goes on, as far as the system can tell."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        return end if error.errno == errno.ENXIO else start
