"""List what is in a folder: every file, folder and symbolic link, with what makes it equal to another.

Paths are bytes, relative, with `/`: a name may hold anything but that, whatever the locale is.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from remote_kernel.sync.blocks import new_digest
from remote_kernel.sync.rules import FILE as IGNORE_FILE
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.wire import SyncFailure, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, FOLDER, LINK = "f", "d", "l"
PARTIAL_MARKS = (b".remote_kernel-", b".part")
_CHUNK = 1 << 20


class Entry(NamedTuple):
    """One thing to copy. `time` is its mtime in nanoseconds, `extra` a link's target, or a file's digest if asked for.

    `is_sparse` says that it takes less room than its size.
    """

    path: bytes
    kind: str
    mode: int
    size: int
    time: int
    extra: bytes
    is_sparse: bool


class Listing:
    """What a folder holds. `left` are paths that were not read, each with the reason; `left_out` counts what the
    rules leave out, and `passed_over` are sockets, pipes and devices.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.left: list[tuple[bytes, str]] = []
        self.passed_over: list[bytes] = []
        self.left_out = 0


def list_folder(root: bytes, rules: Rules, with_digests: bool) -> Listing:
    """List what is below a folder, as `walk` does."""
    found = Listing()
    for _ in walk(found, root, rules, with_digests):
        pass
    return found


def walk(found: Listing, root: bytes, rules: Rules, with_digests: bool) -> Iterator[None]:
    """List into `found` what is below a folder, one more at each step, each folder before what is in it.

    Reads its .gitignore files into `rules`.
    """
    rules.read_above(root)
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder) if folder else root
        try:
            with os.scandir(path) as items:
                inside = sorted(items, key=lambda item: item.name)
        except OSError as error:
            found.left.append((folder or b".", str(error.strerror)))
            continue
        try:
            rules.read(folder, path)
        except OSError as error:
            found.left.append((os.path.join(folder, IGNORE_FILE), str(error.strerror)))
            continue
        folders = []
        for item in inside:
            below = folder + b"/" + item.name if folder else item.name
            if is_partial(item.name):
                continue
            is_folder = _is_folder(item)
            if rules.leave_out(below, is_folder):
                found.left_out += 1
                continue
            # What the listing said may have become something else, a link above all: what is told goes by the entry.
            if _add(found, below, item.path, with_digests) == FOLDER:
                folders.append(below)
            yield
        waiting += reversed(folders)


def list_file(path: bytes, name: bytes, with_digests: bool) -> Listing:
    """List one file under that name; a link is followed."""
    found = Listing()
    _add(found, name, os.path.realpath(path), with_digests)
    return found


def check_start(path: bytes) -> None:
    """Raise SyncFailure for a relative path where the folder that it starts from has been removed."""
    if path.startswith(b"/"):
        return
    try:
        os.getcwdb()
    except OSError as error:
        hint = "go to one that there is, or give a path that begins with /"
        raise SyncFailure("SyncError", f"the folder that {shown(path)} is looked for in is gone", hint) from error


def is_partial(name: bytes) -> bool:
    """True if a file of this name is the partial file of another."""
    return name.startswith(PARTIAL_MARKS[0]) and name.endswith(PARTIAL_MARKS[1])


def digest(path: bytes) -> bytes:
    """Return what tells a file's content from others'. Raises OSError."""
    found = new_digest()
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while True:
            count = file.readinto(buffer)
            if not count:
                return found.digest()
            found.update(view[:count])


def describe(path: bytes, at: os.stat_result, with_digest: bool, where: bytes) -> Entry | None:
    """Return the entry of one path; None for what is neither file, folder nor link. Raises OSError."""
    mode = stat.S_IMODE(at.st_mode) & 0o777
    if stat.S_ISDIR(at.st_mode):
        return Entry(path, FOLDER, mode, 0, at.st_mtime_ns, b"", False)
    if stat.S_ISLNK(at.st_mode):
        return Entry(path, LINK, 0o777, 0, at.st_mtime_ns, os.readlink(where), False)
    if not stat.S_ISREG(at.st_mode):
        return None
    is_sparse = at.st_blocks * 512 < at.st_size
    extra = digest(where) if with_digest else b""
    return Entry(path, FILE, mode, at.st_size, at.st_mtime_ns, extra, is_sparse)


def _is_folder(item: os.DirEntry[bytes]) -> bool:
    """True if it is a folder. Some file systems have to be asked, and may refuse: `describe` then says why."""
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _add(found: Listing, path: bytes, where: bytes, with_digests: bool) -> str | None:
    """List one path; give its kind, None for what is not copied."""
    try:
        entry = describe(path, os.lstat(where), with_digests, where)
    except OSError as error:
        found.left.append((path, str(error.strerror)))
        return None
    if entry is None:
        found.passed_over.append(path)
        return None
    found.entries.append(entry)
    return entry.kind
