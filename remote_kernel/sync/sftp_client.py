"""SFTP by paramiko, over the pipes of an SSH session, with as many requests under way as the server takes.

paramiko's own calls wait for each answer: on a line of 50 ms that is four minutes for opening, closing and naming a
thousand small files. So requests go out by its `_async_request`, as those of its own files do, and each answer comes
back to a Reply. What is done with one file is a generator, a Job, that yields the replies it has to wait for; `run` has
many of them under way, in one thread. Paths are bytes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

from paramiko import SFTPAttributes, SFTPClient, SSHException, sftp
from paramiko.message import Message
from paramiko.sftp import int64

TO_READ, TO_WRITE = sftp.SFTP_FLAG_READ, sftp.SFTP_FLAG_WRITE
TO_MAKE = sftp.SFTP_FLAG_WRITE | sftp.SFTP_FLAG_CREATE | sftp.SFTP_FLAG_EXCL

_LONGEST = 1 << 20  # of a packet: servers send 256 KiB at most, and what we ask for is no longer
_MOST_READ = 512 << 10
_MOST_ASKED = 1000  # requests without an answer: a server may stop reading until its answers are read
_CHUNK = 256 << 10
_POSIX_RENAME, _LINK_TIMES = b"posix-rename@openssh.com", b"lsetstat@openssh.com"
_LIMITS, _SPACE, _EXPAND = b"limits@openssh.com", b"statvfs@openssh.com", b"expand-path@openssh.com"
_ERRNO = {
    sftp.SFTP_NO_SUCH_FILE: errno.ENOENT,
    sftp.SFTP_PERMISSION_DENIED: errno.EACCES,
    sftp.SFTP_OP_UNSUPPORTED: errno.ENOTSUP,
}
_LATEST = (1 << 32) - 1  # a time is 32 bits of seconds


class PipeBroken(Exception):
    """The server has gone, or what came is no SFTP; the argument is what came first."""


class NotSftp(PipeBroken):
    """The server, or whatever runs in its place, says something else; the argument is what that begins with."""


class FileStat(NamedTuple):
    """What the server tells of a file, under the names of `os.stat_result`; zeros, or no owner, where it does not."""

    st_mode: int = 0
    st_size: int = 0
    st_mtime_ns: int = 0
    st_uid: int | None = None


class Named(NamedTuple):
    """An entry of a folder; a link is described as itself."""

    name: bytes
    about: FileStat


class Reply:
    """The answer to one request, once it is there; then one of the methods reads it, once.

    They raise OSError for what the server refuses, and PipeBroken for an answer of another kind.
    """

    __slots__ = ("__weakref__", "_kind", "_message", "_ready", "waiter")

    def __init__(self, ready: deque[Job]) -> None:
        self._ready, self._kind = ready, 0
        self._message = Message()
        self.waiter: Job | None = None

    def _async_response(self, kind: int, message: Message, _number: int) -> None:
        """Read the answer: paramiko calls this."""
        self._kind, self._message = kind, message
        if self.waiter:
            self._ready.append(self.waiter)

    @property
    def is_there(self) -> bool:
        """True if it has come."""
        return bool(self._kind)

    def check(self) -> None:
        """Raise what the server refused, if it did."""
        if self._kind != sftp.CMD_STATUS:
            raise PipeBroken
        self._raise_status()

    def handle(self) -> bytes:
        """Return the handle of what was opened."""
        return _bytes(self._of_kind(sftp.CMD_HANDLE))

    def data(self) -> bytes:
        """Return the bytes that were read; none at the end of the file."""
        return b"" if self._is_at_end() else _bytes(self._of_kind(sftp.CMD_DATA))

    def about(self) -> FileStat:
        """Return what was asked about."""
        return _about(self._of_kind(sftp.CMD_ATTRS))

    def names(self) -> list[Named]:
        """Return some of a folder's entries; none at its end."""
        if self._is_at_end():
            return []
        message = self._of_kind(sftp.CMD_NAME)
        found = []
        for _ in range(message.get_int()):
            if not message.packet.read(1):
                raise PipeBroken  # paramiko reads zeros behind the end, without end
            message.packet.seek(-1, os.SEEK_CUR)
            name, _line = _bytes(message), _bytes(message)
            found.append(Named(name, _about(message)))
        return found

    def name(self) -> bytes:
        """Return the one path that was asked for."""
        message = self._of_kind(sftp.CMD_NAME)
        if message.get_int() != 1:
            raise PipeBroken
        return _bytes(message)

    def numbers(self, count: int) -> list[int]:
        """Return the first 64-bit numbers of an extension's answer, zeros where there are fewer."""
        message = self._of_kind(sftp.CMD_EXTENDED_REPLY)
        return [message.get_int64() for _ in range(count)]

    def _of_kind(self, kind: int) -> Message:
        if self._kind == sftp.CMD_STATUS:
            self._raise_status()
        if self._kind != kind:
            raise PipeBroken
        return self._message

    def _is_at_end(self) -> bool:
        is_status: bool = self._kind == sftp.CMD_STATUS
        return is_status and self._message.asbytes()[4:8] == struct.pack(">I", sftp.SFTP_EOF)

    def _raise_status(self) -> None:
        code = self._message.get_int()
        if code == sftp.SFTP_OK:
            return
        number = _ERRNO.get(code, errno.EIO)
        said = _bytes(self._message).decode("utf-8", "replace")
        raise OSError(number, os.strerror(number) if code in _ERRNO else said or "Failure")


Job = Generator[Reply, None, None]
"""What is done with one file: it yields each reply that it has to wait for, and goes on when that is there."""


def _request(kind: int) -> Callable[[Sftp, bytes], Reply]:
    """Return the method that asks for something with a path, or a handle."""

    def ask(self: Sftp, path: bytes) -> Reply:
        return self._ask(kind, path)

    return ask


class Sftp:
    """The client's end. Owns neither descriptor. All raise PipeBroken.

    What asks returns a Reply, which `wait`, or being yielded by a Job, makes complete. `chunk` is how many bytes a read
    or write may have, `handles` how many files may be open at once.
    """

    look = _request(sftp.CMD_LSTAT)  # at a path; a link is itself
    look_through = _request(sftp.CMD_STAT)  # at what a link leads to
    link_target = _request(sftp.CMD_READLINK)
    remove = _request(sftp.CMD_REMOVE)  # a file or link
    remove_folder = _request(sftp.CMD_RMDIR)
    open_folder = _request(sftp.CMD_OPENDIR)
    read_folder = _request(sftp.CMD_READDIR)  # some more of what the folder with this handle has
    close = _request(sftp.CMD_CLOSE)  # a handle

    def __init__(self, fd_in: int, fd_out: int) -> None:
        """Greet the server, and read what it can do. Raises NotSftp, too."""
        self._ready: deque[Job] = deque()
        self._added: deque[Job] = deque()
        self.chunk, self.handles = 32 << 10, 64  # what every server takes
        pipes = _Pipes(fd_in, fd_out)
        try:
            self._client = _Client(pipes)
            if _LIMITS in self._client.extensions:
                _, read, write, handles = self.wait(self._extended(_LIMITS)).numbers(4)
                self.chunk = min(read or self.chunk, write or self.chunk, _MOST_READ)
                self.handles = min(handles or 512, 512)
        except sftp.SFTPError as error:
            raise NotSftp(pipes.first) from error
        except (PipeBroken, SSHException, EOFError, OSError) as error:
            raise PipeBroken(pipes.first) from error

    @property
    def sets_link_times(self) -> bool:
        """True if a link can be given a time."""
        return _LINK_TIMES in self._client.extensions

    @property
    def replaces_in_one_step(self) -> bool:
        """True if a file can be given the name of another; else that one is removed first."""
        return _POSIX_RENAME in self._client.extensions

    def wait(self, reply: Reply) -> Reply:
        """Wait for a reply and return it."""
        while not reply.is_there:
            self._read()
        return reply

    def run(self, jobs: Iterable[Job], at_once: int) -> None:
        """Do all the jobs, and those that they `add`, so many at a time. What a job raises ends all."""
        waiting = iter(jobs)
        under_way: set[Job] = set()
        try:
            while True:
                while len(under_way) < at_once and (job := self._next(waiting)):
                    under_way.add(job)
                    self._continue(job, under_way)
                if not under_way:
                    return
                while not self._ready:
                    self._read()
                self._continue(self._ready.popleft(), under_way)
        finally:
            for job in under_way:
                job.close()  # now: it has files open, and locked

    def add(self, job: Job) -> None:
        """Add one more for `run` to do."""
        self._added.append(job)

    def open(self, path: bytes, flags: int, mode: int = 0o600) -> Reply:
        """Ask for a file's handle."""
        return self._ask(sftp.CMD_OPEN, path, flags, _attributes(mode=mode))

    def read(self, handle: bytes, offset: int, count: int) -> Reply:
        """Ask for bytes; fewer may come."""
        return self._ask(sftp.CMD_READ, handle, int64(offset), count)

    def write(self, handle: bytes, offset: int, data: bytes) -> Reply:
        """Write bytes there."""
        return self._ask(sftp.CMD_WRITE, handle, int64(offset), data)

    def change(
        self, path: bytes, *, size: int | None = None, mode: int | None = None, time_ns: int | None = None
    ) -> Reply:
        """Set the size, mode or time of what a path leads to."""
        return self._ask(sftp.CMD_SETSTAT, path, _attributes(size, mode, time_ns))

    def change_link(self, path: bytes, time_ns: int) -> Reply:
        """Set a link's own time, where `sets_link_times`."""
        return self._extended(_LINK_TIMES, path, _attributes(time_ns=time_ns))

    def change_open(self, handle: bytes, size: int, mode: int, time_ns: int) -> Reply:
        """Set an open file's size, mode and time."""
        return self._ask(sftp.CMD_FSETSTAT, handle, _attributes(size, mode, time_ns))

    def make_folder(self, path: bytes, mode: int) -> Reply:
        """Make a folder."""
        return self._ask(sftp.CMD_MKDIR, path, _attributes(mode=mode))

    def rename(self, path: bytes, new: bytes) -> Reply:
        """Rename a file, in place of what had that; in one step where the server can."""
        if self.replaces_in_one_step:
            return self._extended(_POSIX_RENAME, path, new)
        self.remove(new)
        return self._ask(sftp.CMD_RENAME, path, new)

    def make_link(self, path: bytes, target: bytes) -> Reply:
        """Make a link. The order is OpenSSH's, which the others took over from it, not the protocol's."""
        return self._ask(sftp.CMD_SYMLINK, target, path)

    def whole_path(self, path: bytes) -> Reply:
        """Ask for a path from the root; `~` is known to those that can expand it."""
        if path.startswith(b"~") and _EXPAND in self._client.extensions:
            return self._extended(_EXPAND, path)
        return self._ask(sftp.CMD_REALPATH, path)

    def room(self, path: bytes) -> int | None:
        """Return the bytes that are free where a path is, 0 if no file can be made, None where the server is silent."""
        if _SPACE not in self._client.extensions:
            return None
        try:
            _, unit, _, _, blocks, files, _, files_free = self.wait(self._extended(_SPACE, path)).numbers(8)
        except OSError:
            return None
        return 0 if files and not files_free else unit * blocks

    def _extended(self, name: bytes, *arguments: Any) -> Reply:
        return self._ask(sftp.CMD_EXTENDED, name, *arguments)

    def _ask(self, kind: int, *arguments: Any) -> Reply:
        reply = Reply(self._ready)
        while len(self._client._expecting) > _MOST_ASKED:
            self._read()
        try:
            self._client._async_request(reply, kind, *arguments)
        except OSError as error:
            raise PipeBroken from error
        return reply

    def _read(self) -> None:
        """Wait for one answer, and let its Reply have it."""
        try:
            self._client._read_response()
        except (SSHException, sftp.SFTPError, OSError) as error:
            raise PipeBroken from error

    def _next(self, waiting: Iterator[Job]) -> Job | None:
        return self._added.popleft() if self._added else next(waiting, None)

    def _continue(self, job: Job, under_way: set[Job]) -> None:
        """Run a job as far as it can go."""
        try:
            while (reply := next(job)).is_there:
                pass
            reply.waiter = job
        except StopIteration:
            under_way.remove(job)


class _Client(SFTPClient):  # type: ignore[misc]
    """paramiko's client, which besides notes what `extensions` the server has."""

    def _send_version(self) -> int:
        message = Message()
        message.add_int(3)
        self._send_packet(sftp.CMD_INIT, message)
        kind, body = self._read_packet()
        if kind != sftp.CMD_VERSION:
            raise sftp.SFTPError
        greeting = Message(body)
        version: int = greeting.get_int()
        words = []
        while greeting.packet.tell() < len(body):
            words.append(_bytes(greeting))
        self.extensions = frozenset(words[::2])
        return version


class _Pipes:
    """Two pipes as paramiko wants them: a socket. What is sent waits until an answer is, or for a buffer to be full.

    `first` is what came first.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in, self._out = fd_in, fd_out
        self._unsent, self._unread, self._at = bytearray(), b"", 0
        self.first = b""

    def send(self, data: bytes) -> int:
        self._unsent += data
        if len(self._unsent) > _CHUNK:
            self._flush()
        return len(data)

    def recv(self, count: int) -> bytes:
        if count > _LONGEST:
            raise sftp.SFTPError("a packet that is too long")
        if self._at == len(self._unread):
            self._flush()
            self._unread, self._at = os.read(self._in, _CHUNK), 0
            self.first = self.first or self._unread
        found = self._unread[self._at : self._at + count]
        self._at += len(found)
        return found

    def get_name(self) -> str:
        """Return what paramiko's log calls it."""
        return "pipes"

    def close(self) -> None:
        """Do nothing: the descriptors are their owner's."""

    def _flush(self) -> None:
        with memoryview(self._unsent) as view:
            sent = 0
            while sent < len(view):
                sent += os.write(self._out, view[sent:])
        self._unsent.clear()


def _attributes(size: int | None = None, mode: int | None = None, time_ns: int | None = None) -> SFTPAttributes:
    """Return what a file is to have; the protocol knows times in whole seconds."""
    found = SFTPAttributes()
    found.st_size, found.st_mode = size, mode
    if time_ns is not None:
        found.st_atime = found.st_mtime = min(max(time_ns // 10**9, 0), _LATEST)
    return found


def _about(message: Message) -> FileStat:
    flags = message.get_int()
    size = message.get_int64() if flags & SFTPAttributes.FLAG_SIZE else 0
    owner, _group = (message.get_int(), message.get_int()) if flags & SFTPAttributes.FLAG_UIDGID else (None, None)
    mode = message.get_int() if flags & SFTPAttributes.FLAG_PERMISSIONS else 0
    _, time = (message.get_int(), message.get_int()) if flags & SFTPAttributes.FLAG_AMTIME else (0, 0)
    if flags & SFTPAttributes.FLAG_EXTENDED:
        for _ in range(2 * min(message.get_int(), 100)):
            message.get_binary()
    return FileStat(mode, size, time * 10**9, owner)


def _bytes(message: Message) -> bytes:
    found: bytes = message.get_binary()
    return found
