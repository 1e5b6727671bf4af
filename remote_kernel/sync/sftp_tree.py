"""List and read what is on a host that has SFTP and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable

from remote_kernel.sync.blocks import new_digest
from remote_kernel.sync.plan import Disk
from remote_kernel.sync.rules import FILE as IGNORE_FILE
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.sender import Source
from remote_kernel.sync.sftp_client import TO_READ, FileStat, Job, Named, PipeBroken, Reply, Sftp
from remote_kernel.sync.tree import FILE, FOLDER, LINK, Entry, Listing, is_partial
from remote_kernel.sync.wire import SyncFailure, shown

WINDOW = 4 << 20  # bytes of one file that are under way at a time
_FEW, _MANY = 2, 16  # requests for a folder's entries at once; each gives about a hundred
_LARGEST_RULES = 1 << 20
_LONGEST = 4096 - 256 - 1  # of a path to which any name can be added: OpenSSH's server passes over the others


def read_file(sftp: Sftp, path: bytes, start: int, size: int, take: Callable[[int, bytes], None]) -> Job:
    """Read a file from `start` to `size`, and call `take` with each part of it in order. Raises OSError."""
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
                reply = sftp.read(handle, offset + len(data), count - len(data))
                yield reply
                more = reply.data()
                if not more:
                    raise OSError(0, "it became shorter while it was read")
                data += more
            if len(data) > count:
                raise PipeBroken
            take(offset, data)
            under_way -= count
    finally:
        sftp.close(handle)


def read_digests(sftp: Sftp, root: bytes, files: Iterable[Entry]) -> dict[bytes, bytes]:
    """Read files below a folder; return the digests of their contents by path, none for what cannot be read."""
    found: dict[bytes, bytes] = {}

    def job(path: bytes, size: int) -> Job:
        digest = new_digest()
        try:
            yield from read_file(sftp, os.path.join(root, path), 0, size, lambda _, data: digest.update(data))
        except OSError:
            return
        found[path] = digest.digest()

    sftp.run((job(entry.path, entry.size) for entry in files), _MANY)
    return found


def read_about(sftp: Sftp, path: bytes) -> FileStat | None:
    """Return what a path leads to, through links."""
    return _about(sftp.wait(sftp.look_through(path or b".")))


class RemoteTree(Disk):
    """What is below a folder there, read once. `abouts` and `parts`, which are partial files, go by path below `root`.

    `unread` are folders that could not be read, each with the reason.
    """

    def __init__(self, sftp: Sftp, root: bytes) -> None:
        super().__init__(root)
        self._sftp = sftp
        self._inside: dict[bytes, list[Named]] = {}
        self._targets: dict[bytes, bytes] = {}
        self._digests: dict[bytes, bytes] = {}
        self._is_there = False
        self.abouts: dict[bytes, FileStat] = {}
        self.parts: dict[bytes, int] = {}
        self.unread: list[tuple[bytes, str]] = []

    def read(self, is_wanted: Callable[[bytes, bool], bool], rules: Rules | None = None) -> None:
        """List the folder, the folders in it that are wanted, and the targets of the links that are.

        `is_wanted` is called with a path and whether it is a folder; with `rules`, .gitignore files are read first.
        """
        about = read_about(self._sftp, self._root)
        self._is_there = about is not None and stat.S_ISDIR(about.st_mode)
        if self._is_there:
            self._sftp.run([self._list(b"", is_wanted, rules)], self._sftp.handles)

    def read_contents(self, entries: list[Entry]) -> None:
        """Read the files that have the same size as these, for `has_digest`."""
        self._digests = read_digests(self._sftp, self._root, filter(self._has_size, entries))

    def is_there(self) -> bool:
        """True if there is such a folder."""
        return self._is_there

    def look(self, path: bytes) -> FileStat | None:
        """Return what is there; a link is itself."""
        return self.abouts.get(path)

    def link_target(self, path: bytes) -> bytes:
        """Return where a link leads."""
        return self._targets.get(path, b"")

    def has_digest(self, path: bytes, wanted: bytes) -> bool:
        """True if a file's content is that one."""
        return self._digests.get(path) == wanted

    def inside(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Return what is in a folder. Raises OSError."""
        if path not in self._inside:
            raise OSError(errno.EACCES, "it could not be read")
        return [(named.name, stat.S_ISDIR(named.about.st_mode)) for named in self._inside[path]]

    def listing(self, rules: Rules) -> Listing:
        """Return what is there as `list_folder` would: in its order, each folder before what is in it."""
        found = Listing()
        found.left += self.unread
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            folders = []
            for named in self._inside.get(folder, ()):
                path = folder + b"/" + named.name if folder else named.name
                if is_partial(named.name):
                    continue
                if rules.leave_out(path, stat.S_ISDIR(named.about.st_mode)):
                    found.left_out += 1
                else:
                    self._put(found, path, named.about)
                    folders += [path] if path in self._inside else []
            waiting += reversed(folders)
        return found

    def _put(self, found: Listing, path: bytes, about: FileStat) -> None:
        if stat.S_ISDIR(about.st_mode):
            found.entries.append(_entry(path, FOLDER, about))
        elif stat.S_ISREG(about.st_mode):
            found.entries.append(_entry(path, FILE, about))
        elif not stat.S_ISLNK(about.st_mode):
            found.passed_over.append(path)
        elif path in self._targets:
            found.entries.append(_entry(path, LINK, about)._replace(extra=self._targets[path]))

    def _has_size(self, entry: Entry) -> bool:
        about = self.abouts.get(entry.path)
        return bool(entry.kind == FILE and about and stat.S_ISREG(about.st_mode) and about.st_size == entry.size)

    def _list(self, folder: bytes, is_wanted: Callable[[bytes, bool], bool], rules: Rules | None) -> Job:
        where = os.path.join(self._root, folder) if folder else self._root
        found: list[Named] = []
        try:
            yield from _read_names(self._sftp, where, found)
        except OSError as error:
            self.unread.append((folder or b".", str(error.strerror)))
            return
        if len(where) > _LONGEST:
            self.unread.append((folder, "its path is too long for SFTP to tell all that is in it"))
        if rules:
            try:
                yield from self._read_rules(folder, where, found, rules)
            except OSError as error:  # nobody knows what of it is to be left out
                self.unread.append((os.path.join(folder, IGNORE_FILE), str(error.strerror)))
                return
        self._inside[folder] = found
        for named in found:
            path = folder + b"/" + named.name if folder else named.name
            self.abouts[path] = named.about
            if is_partial(named.name):
                self.parts[path] = named.about.st_size
            is_folder = stat.S_ISDIR(named.about.st_mode)
            if (is_folder or stat.S_ISLNK(named.about.st_mode)) and is_wanted(path, is_folder):
                self._sftp.add(self._list(path, is_wanted, rules) if is_folder else self._read_link(path))

    def _read_rules(self, folder: bytes, where: bytes, found: list[Named], rules: Rules) -> Job:
        about = next((named.about for named in found if named.name == IGNORE_FILE), None)
        if rules.use_gitignore and about and stat.S_ISREG(about.st_mode):
            text = bytearray()
            yield from _read_text(self._sftp, os.path.join(where, IGNORE_FILE), about, text)
            rules.add(folder, bytes(text))

    def _read_link(self, path: bytes) -> Job:
        reply = self._sftp.link_target(os.path.join(self._root, path))
        yield reply
        try:
            self._targets[path] = reply.name()
        except OSError as error:
            self.unread.append((path, str(error.strerror)))


def find_remote_source(sftp: Sftp, path: bytes, rules: Rules, host: str, *, with_digests: bool) -> Source:
    """Find a file or folder there, as `find_source` does one here. Raises SyncFailure."""
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
        listing = Listing()
        listing.entries.append(_entry(name, FILE, about))
        source = Source(os.path.dirname(path) or b".", name, False, listing, rules)
    elif stat.S_ISDIR(about.st_mode):
        _read_rules_above(sftp, whole, rules)
        tree = RemoteTree(sftp, whole)
        tree.read(lambda path, is_folder: not rules.leave_out(path, is_folder), rules)
        mode = stat.S_IMODE(about.st_mode) & 0o777
        source = Source(whole, b"" if name in (b"", b".", b"..") else name, True, tree.listing(rules), rules, mode)
    else:
        raise SyncFailure("SyncError", f"{shown(path)} is neither a file nor a folder")
    if with_digests:
        entries = source.listing.entries
        found = read_digests(sftp, source.root, (entry for entry in entries if entry.kind == FILE))
        entries[:] = [
            entry._replace(extra=found.get(entry.path, b"")) if entry.kind == FILE else entry for entry in entries
        ]
    return source


def _read_names(sftp: Sftp, path: bytes, found: list[Named]) -> Job:
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


def _read_text(sftp: Sftp, path: bytes, about: FileStat, text: bytearray) -> Job:
    yield from read_file(sftp, path, 0, min(about.st_size, _LARGEST_RULES), lambda _, data: text.extend(data))


def _read_rules_above(sftp: Sftp, root: bytes, rules: Rules) -> None:
    """Read the .gitignore files of the folders over the root, if that is inside a git work tree."""
    if not rules.use_gitignore:
        return
    folders = [root]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    marks = [sftp.look(os.path.join(folder, b".git")) for folder in folders]
    files = [sftp.look(os.path.join(folder, IGNORE_FILE)) for folder in folders]
    abouts = [_about(sftp.wait(reply)) for reply in (*marks, *files)]
    top = next((number for number in range(len(folders)) if abouts[number]), 0)
    for folder, about in list(zip(folders, abouts[len(folders) :], strict=True))[1 : top + 1]:
        if about and stat.S_ISREG(about.st_mode):
            text = bytearray()
            try:
                sftp.run([_read_text(sftp, os.path.join(folder, IGNORE_FILE), about, text)], 1)
            except OSError:
                continue
            rules.add_above(os.path.relpath(root, folder) + b"/", bytes(text))


def _about(reply: Reply) -> FileStat | None:
    try:
        return reply.about()
    except OSError:
        return None


def _entry(path: bytes, kind: str, about: FileStat) -> Entry:
    mode = stat.S_IMODE(about.st_mode) & 0o777
    size = about.st_size if kind == FILE else 0
    return Entry(path, kind, 0o777 if kind == LINK else mode, size, about.st_mtime_ns, b"", False)
