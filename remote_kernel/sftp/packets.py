"""What goes over the pipe: requests as bytes, and what the server's replies say."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Generator
from typing import NamedTuple

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(1, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

TO_READ, TO_WRITE, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
_SIZE, _OWNER, _MODE, _TIMES, _MORE = 0x01, 0x02, 0x04, 0x08, 0x80000000
_OK, _EOF, _NO_SUCH_FILE, _PERMISSION_DENIED, _UNSUPPORTED = 0, 1, 2, 3, 8
_ERRNO = {_NO_SUCH_FILE: errno.ENOENT, _PERMISSION_DENIED: errno.EACCES, _UNSUPPORTED: errno.ENOTSUP}
_LATEST = (1 << 32) - 1  # a time is 32 bits of seconds

_INT = struct.Struct(">I")


class PipeBroken(Exception):
    """The server has gone; the argument is what came behind its last packet."""


class NotSftp(PipeBroken):
    """What came is no SFTP; the argument is what that begins with."""


class About(NamedTuple):
    """What the server tells of a file, under the names of `os.stat_result`; zeros, or no owner, where it does not."""

    st_mode: int = 0
    st_size: int = 0
    st_mtime_ns: int = 0
    st_uid: int | None = None


class Named(NamedTuple):
    """An entry of a folder; a link is described as itself."""

    name: bytes
    about: About


class Reply:
    """The answer to one request, once it is there; then one of the methods says what it is.

    They raise OSError for what the server refuses, and PipeBroken.
    """

    __slots__ = ("_body", "_kind", "waiter")

    def __init__(self) -> None:
        self._kind, self._body = 0, b""
        self.waiter: Job | None = None

    @property
    def is_there(self) -> bool:
        """Whether it has come."""
        return bool(self._kind)

    def come(self, kind: int, body: bytes) -> None:
        """Take what the server sent."""
        self._kind, self._body = kind, body

    def check(self) -> None:
        """Return if the server did what it was asked."""
        if self._kind != STATUS:
            raise PipeBroken
        self._raise_status()

    def handle(self) -> bytes:
        """Give the handle of what was opened."""
        return self._reader(HANDLE).string()

    def data(self) -> bytes:
        """Give the bytes that were read; none at the end of the file."""
        return b"" if self._is_at_end() else self._reader(DATA).string()

    def about(self) -> About:
        """Give what was asked about."""
        return self._reader(ATTRS).about()

    def names(self) -> list[Named]:
        """Give some of a folder's entries; none at its end."""
        if self._is_at_end():
            return []
        reader = self._reader(NAME)
        found = []
        for _ in range(reader.integer()):
            name, _line = reader.string(), reader.string()
            found.append(Named(name, reader.about()))
        return found

    def name(self) -> bytes:
        """Give the one path that was asked for."""
        reader = self._reader(NAME)
        if reader.integer() != 1:
            raise PipeBroken
        return reader.string()

    def longs(self) -> tuple[int, ...]:
        """Give the 64-bit numbers of an extension's reply."""
        body = self._reader(EXTENDED_REPLY).rest()
        return struct.unpack(f">{len(body) // 8}Q", body[: len(body) // 8 * 8])

    def _is_at_end(self) -> bool:
        return self._kind == STATUS and self._body[:4] == _INT.pack(_EOF)

    def _reader(self, kind: int) -> _Reader:
        if self._kind == STATUS:
            self._raise_status()
        if self._kind != kind:
            raise PipeBroken
        return _Reader(self._body)

    def _raise_status(self) -> None:
        reader = _Reader(self._body)
        code = reader.integer()
        if code == _OK:
            return
        number = _ERRNO.get(code, errno.EIO)
        said = reader.string() if len(self._body) > 4 else b""
        raise OSError(number, os.strerror(number) if code in _ERRNO else said.decode("utf-8", "replace") or "Failure")


Job = Generator[Reply, None, None]
"""What is done with one file: it gives each reply that it has to wait for, and goes on when that is there."""


class _Reader:
    """Takes the fields of a packet from its front."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def integer(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.integer())

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._body)

    def rest(self) -> bytes:
        return self._body[self._at :]

    def about(self) -> About:
        flags = self.integer()
        size = self.long() if flags & _SIZE else 0
        owner = None
        if flags & _OWNER:
            owner, _group = self.integer(), self.integer()
        mode = self.integer() if flags & _MODE else 0
        time = 0
        if flags & _TIMES:
            self._take(4)
            time = self.integer()
        if flags & _MORE:
            for _ in range(2 * self.integer()):
                self.string()
        return About(mode, size, time * 10**9, owner)

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._body):
            raise PipeBroken
        return self._body[start : self._at]


def packed(text: bytes) -> bytes:
    """Give a string as the protocol has it."""
    return _INT.pack(len(text)) + text


def attributes(size: int | None = None, mode: int | None = None, time_ns: int | None = None) -> bytes:
    """Give what a file is to have; the protocol knows times in whole seconds."""
    flags, body = 0, b""
    if size is not None:
        flags, body = flags | _SIZE, size.to_bytes(8, "big")
    if mode is not None:
        flags, body = flags | _MODE, body + _INT.pack(mode)
    if time_ns is not None:
        seconds = _INT.pack(min(max(time_ns // 10**9, 0), _LATEST))
        flags, body = flags | _TIMES, body + seconds + seconds
    return _INT.pack(flags) + body


def extensions(body: bytes) -> frozenset[bytes]:
    """Give what the server's greeting says that it can do besides. Raises PipeBroken."""
    reader = _Reader(body)
    if reader.integer() != 3:
        raise PipeBroken
    words = []
    while not reader.is_at_end:
        words.append(reader.string())
    return frozenset(words[::2])
