"""Replace a notebook's file as a whole, and notice whatever else is written to it.

A version goes to a file of its own in the same folder, to the disk, and over the name in one step: whoever reads sees
one version or the next. Others do not write so: JupyterLab's server opens the file and writes into it. So a version
may be found half-written, and one may be written into the file that has just lost its name; both are looked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from remote_kernel.process import is_alive


class Stamp(NamedTuple):
    """Identify a version of a file."""

    inode: int
    size: int
    mtime_ns: int


class NotebookFile:
    """The file at `path`, which one process at a time writes so."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._folder, self.name = os.path.split(self.path)
        self._known: Stamp | None = None  # the version that is ours, or is merged into ours
        self._replaced = -1  # the file that had the name before, which somebody may be writing into
        self._replaced_stamp: Stamp | None = None

    def stamp(self) -> Stamp | None:
        """Return the stamp of what is there now; None where nothing is. Raises OSError."""
        try:
            return _stamp(os.stat(self.path))
        except FileNotFoundError:
            return None

    def read(self) -> tuple[bytes, Stamp | None]:
        """Return what is there. Raises OSError."""
        try:
            with open(self.path, "rb") as file:
                found = _stamp(os.fstat(file.fileno()))
                return file.read(), found
        except FileNotFoundError:
            return b"", None

    def accept(self, stamp: Stamp | None) -> None:
        """Count this version as known: it is ours, or merged into ours."""
        self._known = stamp

    def foreign(self) -> tuple[bytes, Stamp] | None:
        """Return what somebody else has written since `accept` or `replace`, None for nothing. Raises OSError."""
        if self._replaced >= 0 and (found := _stamp(os.fstat(self._replaced))) != self._replaced_stamp:
            return os.pread(self._replaced, found.size, 0), found
        now = self.stamp()
        if now is None or now == self._known:
            return None
        data, found_now = self.read()
        return (data, found_now) if found_now else None

    def accept_foreign(self, stamp: Stamp) -> None:
        """Count what `foreign` returned as known, whichever file it was in."""
        if self.is_replaced(stamp):
            self._replaced_stamp = stamp
        else:
            self._known = stamp

    def is_replaced(self, stamp: Stamp) -> bool:
        """True if this version is in the file that has lost its name, and so no longer in any folder."""
        return self._replaced_stamp is not None and stamp.inode == self._replaced_stamp.inode

    def set_aside(self, data: bytes) -> str:
        """Write what is no notebook to a file beside it, and return its path. Raises OSError."""
        for number in count(1):
            path = os.path.join(self._folder, f".{self.name}.damaged-{number}")
            with (
                contextlib.suppress(FileExistsError),
                open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file,
            ):
                file.write(data)
                break
        return path

    def replace(self, pieces: Iterable[bytes]) -> bool:
        """Write a version over the name; false, with nothing changed, where another one came meanwhile.

        Raises OSError.
        """
        fresh = os.path.join(self._folder, f".{self.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part")
        mode = None
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(self.path).st_mode)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
        try:
            with os.fdopen(fd, "wb", buffering=1 << 20) as file:
                file.writelines(pieces)
                file.flush()
                if mode is not None:
                    os.fchmod(fd, mode)
                os.fsync(fd)
                return self._rename(fresh, fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)

    def _rename(self, fresh: str, fd: int) -> bool:
        """Rename a complete version, unless there is another one that is not known."""
        if self.foreign():
            return False
        old = -1
        with contextlib.suppress(FileNotFoundError):
            old = os.open(self.path, os.O_RDONLY)
        stamp = _stamp(os.fstat(old)) if old >= 0 else None
        if stamp and stamp != self._known:
            os.close(old)
            return False
        os.rename(fresh, self.path)
        self._known = _stamp(os.fstat(fd))
        self.release()
        self._replaced, self._replaced_stamp = old, stamp
        return True

    def clean(self) -> None:
        """Remove what dead writers have left."""
        pattern = re.compile(re.escape(f".{self.name}.") + r"(.+)-(\d+)-[0-9a-f]{8}\.part")
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                match = pattern.fullmatch(name)
                if match and _is_over(os.path.join(self._folder, name), match[1], int(match[2])):
                    os.unlink(os.path.join(self._folder, name))

    def release(self) -> None:
        """Close the file that was replaced last: nobody is writing into it any longer. Idempotent."""
        if self._replaced >= 0:
            os.close(self._replaced)
        self._replaced, self._replaced_stamp = -1, None


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def _is_over(path: str, host: str, pid: int) -> bool:
    """True if the process that was writing it is gone; one on another host is, after a day."""
    if host != _host():
        return time.time() - os.stat(path).st_mtime > 86400
    return not is_alive(pid)
