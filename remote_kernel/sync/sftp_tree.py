"""See what is on a host that has SFTP and nothing else: folders, what is in them, and what rules leave out."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable

from remote_kernel.sftp.client import Sftp
from remote_kernel.sftp.packets import TO_READ, About, Job, Named, Reply
from remote_kernel.sync.blocks import new_digest
from remote_kernel.sync.plan import Disk
from remote_kernel.sync.rules import FILE as IGNORE_FILE
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import Source
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry, Listing, is_part
from remote_kernel.sync.wire import SyncFailure, shown

WINDOW = 4 << 20  # bytes of one file that are under way at a time
_FEW, _MANY = 2, 16  # requests for a folder's entries at once; each gives about a hundred
_LARGEST_RULES = 1 << 20
_LONGEST = 4096 - 256 - 1  # of a path to which any name can be added: OpenSSH's server passes over the others


def contents(sftp: Sftp, path: bytes, start: int, size: int, take: Callable[[int, bytes], None]) -> Job:
    """Read a file from `start` to `size`, and give each part of it to `take` in order. Raises OSError."""
    opened = sftp.open(path, TO_READ)
    yield opened
    handle = opened.handle()
    try:
        window: deque[tuple[int, int, Reply]] = deque()
        at, under_way = start, 0
        while at < size or window:
            while at < size and under_way < WINDOW:
                count = min(sftp.chunk, size - at)
                window.append((at, count, sftp.read(handle, at, count)))
                at, under_way = at + count, under_way + count
            offset, count, reply = window.popleft()
            yield reply
            data = reply.data()
            while len(data) < count:
                more = sftp.read(handle, offset + len(data), count - len(data))
                yield more
                if not more.data():
                    raise OSError(0, "it became shorter while it was read")
                data += more.data()
            take(offset, data)
            under_way -= count
    finally:
        sftp.close(handle)


def names(sftp: Sftp, path: bytes, found: list[Named]) -> Job:
    """List a folder into `found`, by name. Raises OSError.

    OpenSSH's server passes over what it may not look at, in silence: all of a folder that can be read and not entered.
    """
    opened = sftp.open_folder(path)
    yield opened
    handle = opened.handle()
    at_once, is_more, is_entered = _FEW, True, False
    while is_more:
        replies = [sftp.read_folder(handle) for _ in range(at_once)]
        for reply in replies:
            yield reply
            batch = reply.names()
            is_more = is_more and bool(batch)
            is_entered = is_entered or any(name.name == b"." for name in batch)
            found += (name for name in batch if name.name not in (b".", b".."))
        at_once = _MANY
    sftp.close(handle)
    if not is_entered:
        looked = sftp.look(os.path.join(path, b"."))
        yield looked
        looked.about()
    found.sort()


def digests(sftp: Sftp, folder: bytes, files: Iterable[tuple[bytes, int]]) -> dict[bytes, bytes]:
    """Read files of these sizes, and give what tells their contents from others'; none for what cannot be read."""
    found: dict[bytes, bytes] = {}

    def job(path: bytes, size: int) -> Job:
        digest = new_digest()
        try:
            yield from contents(sftp, os.path.join(folder, path), 0, size, lambda _, data: digest.update(data))
        except OSError:
            return
        found[path] = digest.digest()

    sftp.run((job(path, size) for path, size in files), _MANY)
    return found


class FarFolder(Disk):
    """What is below a folder there, read once: the folders that the source has too, and with `rules` the others."""

    def __init__(self, sftp: Sftp, root: bytes, entries: list[Entry], rules: Rules | None) -> None:
        super().__init__(root)
        self._sftp = sftp
        self._inside: dict[bytes, list[Named]] = {}
        self._abouts: dict[bytes, About] = {}
        self._targets: dict[bytes, bytes] = {}
        self._digests: dict[bytes, bytes] = {}
        self.parts: dict[bytes, int] = {}
        self._folders = {entry.path for entry in entries if entry.kind == FOLDER}
        self._rules = rules
        about = kind_of(sftp, root)
        self._is_there = about is not None and stat.S_ISDIR(about.st_mode)
        if not self._is_there:
            return
        sftp.run([self._list(b"")], sftp.handles)
        links = (entry for entry in entries if entry.kind == LINK)
        sftp.run((self._read_link(entry.path) for entry in links if entry.path in self._abouts), sftp.handles)

    def compare_contents(self, entries: list[Entry]) -> None:
        """Read the files that have the same size as the source's, for `has_digest`."""
        same = ((entry.path, entry.size) for entry in entries if entry.kind == FILE and self._has_size(entry))
        self._digests = digests(self._sftp, self._root, same)

    def is_there(self) -> bool:
        """Whether there is such a folder."""
        return self._is_there

    def look(self, path: bytes) -> About | None:
        """Say what is there; a link is itself."""
        return self._abouts.get(path)

    def link_target(self, path: bytes) -> bytes:
        """Say where a link leads."""
        return self._targets.get(path, b"")

    def has_digest(self, path: bytes, wanted: bytes) -> bool:
        """Whether a file's content is that one."""
        return self._digests.get(path) == wanted

    def inside(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Give what is in a folder. Raises OSError."""
        if path not in self._inside:
            raise OSError(errno.EACCES, "it could not be read")
        return [(named.name, stat.S_ISDIR(named.about.st_mode)) for named in self._inside[path]]

    def _has_size(self, entry: Entry) -> bool:
        about = self._abouts.get(entry.path)
        return about is not None and stat.S_ISREG(about.st_mode) and about.st_size == entry.size

    def _list(self, folder: bytes) -> Job:
        found: list[Named] = []
        try:
            yield from names(self._sftp, os.path.join(self._root, folder) if folder else self._root, found)
        except OSError:
            return
        self._inside[folder] = found
        for named in found:
            path = folder + b"/" + named.name if folder else named.name
            self._abouts[path] = named.about
            if is_part(named.name):
                self.parts[path] = named.about.st_size
            if stat.S_ISDIR(named.about.st_mode) and self._is_of_interest(path):
                self._sftp.add(self._list(path))

    def _is_of_interest(self, path: bytes) -> bool:
        return path in self._folders or (self._rules is not None and not self._rules.leave_out(path, is_folder=True))

    def _read_link(self, path: bytes) -> Job:
        reply = self._sftp.link_target(os.path.join(self._root, path))
        yield reply
        try:
            self._targets[path] = reply.name()
        except OSError:
            pass  # it is none


class FarSource:
    """Lists a file or folder there, as `find_source` does one here."""

    def __init__(self, sftp: Sftp, excludes: list[bytes], use_gitignore: bool) -> None:
        self._sftp = sftp
        self._rules = Rules(excludes, use_gitignore)
        self._inside: dict[bytes, list[Named]] = {}
        self._targets: dict[bytes, bytes] = {}
        self._listing = Listing()
        self._root = b""

    def find(self, path: bytes, host: str, *, with_digests: bool) -> Source:
        """Give what there is; `folder/`, `.` and `..` stand for what is inside. Raises SyncFailure."""
        sftp = self._sftp
        try:
            about = sftp.wait(sftp.look_through(path or b".")).about()
            whole = sftp.wait(sftp.whole_path(path or b".")).name()
        except FileNotFoundError as error:
            home = sftp.wait(sftp.whole_path(b".")).name()
            hint = "check the spelling" if path.startswith(b"/") else f"it was looked for in {shown(home)}"
            raise SyncFailure("NothingToSync", f"there is no {shown(path)} on {host}", hint) from error
        except OSError as error:
            raise SyncFailure("SyncError", f"cannot read {shown(path)}: {error.strerror}") from error
        name = os.path.basename(path)
        if stat.S_ISREG(about.st_mode):
            self._listing.entries.append(_entry(name, FILE, about))
            source = Source(os.path.dirname(path) or b".", name, False, self._listing, self._rules)
        elif stat.S_ISDIR(about.st_mode):
            self._root = whole
            self._list_all()
            is_inside = name in (b"", b".", b"..")
            mode = stat.S_IMODE(about.st_mode) & 0o777
            source = Source(whole, b"" if is_inside else name, True, self._listing, self._rules, mode)
        else:
            raise SyncFailure("SyncError", f"{shown(path)} is neither a file nor a folder")
        if with_digests:
            _add_digests(sftp, source)
        return source

    def _list_all(self) -> None:
        self._read_above()
        self._sftp.run([self._list(b"")], self._sftp.handles)
        waiting = [b""]
        while waiting:  # in the order of `list_folder`: each folder before what is in it
            folder = waiting.pop()
            inside = [(folder + b"/" + named.name if folder else named.name, named) for named in self._inside[folder]]
            for path, named in inside:
                self._put(path, named)
            waiting += [path for path, _ in reversed(inside) if path in self._inside]

    def _put(self, path: bytes, named: Named) -> None:
        mode = named.about.st_mode
        if is_part(named.name):
            return
        if self._rules.leave_out(path, stat.S_ISDIR(mode)):
            self._listing.left_out += 1
        elif stat.S_ISDIR(mode):
            self._listing.entries.append(_entry(path, FOLDER, named.about))
        elif stat.S_ISLNK(mode) and path in self._targets:
            self._listing.entries.append(_entry(path, LINK, named.about)._replace(extra=self._targets[path]))
        elif stat.S_ISREG(mode):
            self._listing.entries.append(_entry(path, FILE, named.about))
        elif not stat.S_ISLNK(mode):
            self._listing.passed_over.append(path)

    def _list(self, folder: bytes) -> Job:
        found = self._inside.setdefault(folder, [])
        where = os.path.join(self._root, folder) if folder else self._root
        try:
            yield from names(self._sftp, where, found)
        except OSError as error:
            self._listing.left.append((folder or b".", str(error.strerror)))
            return
        if len(where) > _LONGEST:
            self._listing.left.append((folder, "its path is too long for SFTP to tell all that is in it"))
        rules = next((named for named in found if named.name == IGNORE_FILE), None)
        if self._rules.use_gitignore and rules and stat.S_ISREG(rules.about.st_mode):
            text = bytearray()
            try:
                yield from self._read_rules(os.path.join(where, IGNORE_FILE), rules.about, text)
            except OSError as error:
                self._listing.left.append((os.path.join(folder, IGNORE_FILE), str(error.strerror)))
                found.clear()  # nobody knows what of it is to be left out
                return
            self._rules.add(folder, bytes(text))
        for named in found:
            path = folder + b"/" + named.name if folder else named.name
            is_folder = stat.S_ISDIR(named.about.st_mode)
            if self._rules.leave_out(path, is_folder):
                continue
            if is_folder:
                self._sftp.add(self._list(path))
            elif stat.S_ISLNK(named.about.st_mode):
                self._sftp.add(self._read_link(path))

    def _read_link(self, path: bytes) -> Job:
        reply = self._sftp.link_target(os.path.join(self._root, path))
        yield reply
        try:
            self._targets[path] = reply.name()
        except OSError as error:
            self._listing.left.append((path, str(error.strerror)))

    def _read_rules(self, path: bytes, about: About, text: bytearray) -> Job:
        size = min(about.st_size, _LARGEST_RULES)
        yield from contents(self._sftp, path, 0, size, lambda _, data: text.extend(data))

    def _read_above(self) -> None:
        """Read the .gitignore files of the folders over the root, if that is inside a git work tree."""
        if not self._rules.use_gitignore:
            return
        folders = [self._root]
        while os.path.dirname(folders[-1]) != folders[-1]:
            folders.append(os.path.dirname(folders[-1]))
        marks = [self._sftp.look(os.path.join(folder, b".git")) for folder in folders]
        files = [self._sftp.look(os.path.join(folder, IGNORE_FILE)) for folder in folders]
        abouts = [_about(self._sftp.wait(reply)) for reply in (*marks, *files)]
        top = next((number for number in range(len(folders)) if abouts[number]), 0)
        for folder, about in list(zip(folders, abouts[len(folders) :], strict=True))[1 : top + 1]:
            if about and stat.S_ISREG(about.st_mode):
                text = bytearray()
                try:
                    self._sftp.run([self._read_rules(os.path.join(folder, IGNORE_FILE), about, text)], 1)
                except OSError:
                    continue
                way = os.path.relpath(self._root, folder) + b"/"
                self._rules.add_above(way, bytes(text))


def kind_of(sftp: Sftp, path: bytes) -> About | None:
    """Say what a path leads to, through links."""
    return _about(sftp.wait(sftp.look_through(path or b".")))


def _about(reply: Reply) -> About | None:
    try:
        return reply.about()
    except OSError:
        return None


def _entry(path: bytes, kind: str, about: About) -> Entry:
    mode = stat.S_IMODE(about.st_mode) & 0o777
    size = about.st_size if kind == FILE else 0
    return Entry(path, kind, 0o777 if kind == LINK else mode, size, about.st_mtime_ns, b"", False)


def _add_digests(sftp: Sftp, source: Source) -> None:
    entries = source.listing.entries
    files = ((entry.path, entry.size) for entry in entries if entry.kind == FILE)
    found = digests(sftp, source.root, files)
    entries[:] = [entry._replace(extra=found.get(entry.path, b"")) for entry in entries]
