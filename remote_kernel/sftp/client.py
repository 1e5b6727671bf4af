"""Ask an SFTP server for many things at once, and go on with each when its answer is there.

One thread: whoever waits for an answer writes what waits to be written and takes in what comes, so that neither end can
be stuck with a full pipe. What is to be done with a file is a generator, a Job, and `run` has many of them under way.
"""

from __future__ import annotations

import os
import select
import struct
from collections import deque
from collections.abc import Iterable, Iterator

from remote_kernel.sftp import packets
from remote_kernel.sftp.packets import Job, NotSftp, PipeBroken, Reply, attributes, packed

_HEAD = struct.Struct(">IBI")
_LONGEST = 1 << 20  # of a packet; servers send 256 KiB at most, and what we ask for is no longer
_MOST_READ = 512 << 10
_WAITING = 1 << 20  # bytes that wait to be written before more is asked
_CHUNK = 1 << 20
_POSIX_RENAME, _LINK_TIMES = b"posix-rename@openssh.com", b"lsetstat@openssh.com"
_LIMITS, _SPACE, _EXPAND = b"limits@openssh.com", b"statvfs@openssh.com", b"expand-path@openssh.com"


class Sftp:
    """The client's end. Owns neither descriptor. Call `begin` first.

    What asks gives a Reply, which `wait`, or being given out by a Job, makes complete. All raise PipeBroken.

    `chunk` is how many bytes a read or write may have, `handles` how many files may be open at once.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in, self._out = fd_in, fd_out
        for fd in (fd_in, fd_out):
            os.set_blocking(fd, False)
        self._unread, self._unwritten = bytearray(), bytearray()
        self._number = 0
        self._is_broken = False
        self._asked: dict[int, Reply] = {}
        self._ready: deque[Job] = deque()
        self._added: deque[Job] = deque()
        self._extensions: frozenset[bytes] = frozenset()
        self.chunk, self.handles = 32 << 10, 64  # what every server takes

    def begin(self) -> None:
        """Greet, and hear what the server can do."""
        self._unwritten += struct.pack(">IBI", 5, packets.INIT, 3)
        while (found := self._packet()) is None:
            self._exchange()
        kind, body = found
        if kind != packets.VERSION:
            raise PipeBroken
        self._extensions = packets.extensions(body)
        if _LIMITS in self._extensions:
            _, read, write, handles = self.wait(self._extended(_LIMITS)).longs()[:4]
            self.chunk = min(read or self.chunk, write or self.chunk, _MOST_READ)
            self.handles = min(handles or 512, 512)

    @property
    def sets_link_times(self) -> bool:
        """Whether a link can be given a time."""
        return _LINK_TIMES in self._extensions

    @property
    def replaces_in_one_step(self) -> bool:
        """Whether a file can be given the name of another; else that one is removed first."""
        return _POSIX_RENAME in self._extensions

    def wait(self, reply: Reply) -> Reply:
        """Wait for a reply and give it."""
        while not reply.is_there:
            self._pump()
        return reply

    def run(self, jobs: Iterable[Job], at_once: int) -> None:
        """Do all the jobs, and those that they `add`, so many at a time. What a job raises ends all."""
        waiting = iter(jobs)
        under_way: set[Job] = set()
        try:
            while True:
                while len(under_way) < at_once and (job := self._next(waiting)):
                    under_way.add(job)
                    self._go_on(job, under_way)
                if not under_way:
                    return
                while not self._ready:
                    self._pump()
                self._go_on(self._ready.popleft(), under_way)
        finally:
            for job in under_way:
                job.close()  # now: it has files open, and locked

    def add(self, job: Job) -> None:
        """Have `run` do one more."""
        self._added.append(job)

    def open(self, path: bytes, flags: int, mode: int = 0o600) -> Reply:
        """Ask for a file's handle."""
        return self._ask(packets.OPEN, packed(path) + struct.pack(">I", flags) + attributes(mode=mode))

    def close(self, handle: bytes) -> Reply:
        """Give a handle back."""
        return self._ask(packets.CLOSE, packed(handle))

    def read(self, handle: bytes, offset: int, count: int) -> Reply:
        """Ask for bytes; fewer may come."""
        return self._ask(packets.READ, packed(handle) + struct.pack(">QI", offset, count))

    def write(self, handle: bytes, offset: int, data: bytes) -> Reply:
        """Write bytes there."""
        return self._ask(packets.WRITE, packed(handle) + struct.pack(">QI", offset, len(data)), data)

    def look(self, path: bytes) -> Reply:
        """Ask about a path; a link is itself."""
        return self._ask(packets.LSTAT, packed(path))

    def look_through(self, path: bytes) -> Reply:
        """Ask about a path; a link is what it leads to."""
        return self._ask(packets.STAT, packed(path))

    def change(
        self, path: bytes, *, size: int | None = None, mode: int | None = None, time_ns: int | None = None
    ) -> Reply:
        """Set the size, mode or time of what a path leads to."""
        return self._ask(packets.SETSTAT, packed(path) + attributes(size, mode, time_ns))

    def change_link(self, path: bytes, time_ns: int) -> Reply:
        """Set a link's own time, where `sets_link_times`."""
        return self._extended(_LINK_TIMES, packed(path) + attributes(None, None, time_ns))

    def change_open(self, handle: bytes, size: int, mode: int, time_ns: int) -> Reply:
        """Set an open file's size, mode and time."""
        return self._ask(packets.FSETSTAT, packed(handle) + attributes(size, mode, time_ns))

    def open_folder(self, path: bytes) -> Reply:
        """Ask for a folder's handle."""
        return self._ask(packets.OPENDIR, packed(path))

    def read_folder(self, handle: bytes) -> Reply:
        """Ask for some more of its entries."""
        return self._ask(packets.READDIR, packed(handle))

    def make_folder(self, path: bytes, mode: int) -> Reply:
        """Make a folder."""
        return self._ask(packets.MKDIR, packed(path) + attributes(mode=mode))

    def remove_folder(self, path: bytes) -> Reply:
        """Remove an empty folder."""
        return self._ask(packets.RMDIR, packed(path))

    def remove(self, path: bytes) -> Reply:
        """Remove a file or link."""
        return self._ask(packets.REMOVE, packed(path))

    def rename(self, path: bytes, new: bytes) -> Reply:
        """Give a file another name, in place of what had that; in one step where the server can."""
        if self.replaces_in_one_step:
            return self._extended(_POSIX_RENAME, packed(path) + packed(new))
        self.remove(new)
        return self._ask(packets.RENAME, packed(path) + packed(new))

    def link_target(self, path: bytes) -> Reply:
        """Ask where a link leads."""
        return self._ask(packets.READLINK, packed(path))

    def make_link(self, path: bytes, target: bytes) -> Reply:
        """Make a link. The order is OpenSSH's, which the others took over from it, not the protocol's."""
        return self._ask(packets.SYMLINK, packed(target) + packed(path))

    def whole_path(self, path: bytes) -> Reply:
        """Ask for a path from the root; `~` is known to those that can expand it."""
        if path.startswith(b"~") and _EXPAND in self._extensions:
            return self._extended(_EXPAND, packed(path))
        return self._ask(packets.REALPATH, packed(path))

    def room(self, path: bytes) -> int | None:
        """Give the bytes that are free where a path is, 0 if no file can be made, None if the server does not tell."""
        if _SPACE not in self._extensions:
            return None
        try:
            numbers = self.wait(self._extended(_SPACE, packed(path))).longs()
        except OSError:
            return None
        _, unit, _, _, blocks, files, _, files_free = numbers[:8]
        return 0 if files and not files_free else unit * blocks

    def _extended(self, name: bytes, body: bytes = b"") -> Reply:
        return self._ask(packets.EXTENDED, packed(name) + body)

    def _ask(self, kind: int, body: bytes, more: bytes = b"") -> Reply:
        while len(self._unwritten) > _WAITING and not self._is_broken:
            self._pump()
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._unwritten += _HEAD.pack(len(body) + len(more) + 5, kind, self._number) + body
        self._unwritten += more
        reply = self._asked[self._number] = Reply()
        return reply

    def _next(self, waiting: Iterator[Job]) -> Job | None:
        return self._added.popleft() if self._added else next(waiting, None)

    def _go_on(self, job: Job, under_way: set[Job]) -> None:
        """Let a job go on as far as it can."""
        try:
            while (reply := next(job)).is_there:
                pass
            reply.waiter = job
        except StopIteration:
            under_way.remove(job)

    def _pump(self) -> None:
        """Wait until bytes have gone or come, and hand out the replies that are whole."""
        self._exchange()
        while found := self._packet():
            kind, body = found
            reply = self._asked.pop(int.from_bytes(body[:4], "big"), None)
            if reply is None:
                raise PipeBroken
            reply.come(kind, body[4:])
            if reply.waiter:
                self._ready.append(reply.waiter)
                reply.waiter = None

    def _exchange(self) -> None:
        readable, writable, _ = select.select([self._in], [self._out] if self._unwritten else [], [])
        try:
            if writable:
                del self._unwritten[: os.write(self._out, self._unwritten)]
            if readable:
                data = os.read(self._in, _CHUNK)
                if not data:
                    self._is_broken = True
                    raise PipeBroken(bytes(self._unread))
                self._unread += data
        except OSError as error:
            self._is_broken = True
            raise PipeBroken from error

    def _packet(self) -> tuple[int, bytes] | None:
        """Take a packet from what has come, if one is whole."""
        if len(self._unread) < 5:
            return None
        length = int.from_bytes(self._unread[:4], "big")
        if not 0 < length <= _LONGEST:
            raise NotSftp(bytes(self._unread))
        if len(self._unread) < 4 + length:
            return None
        kind, body = self._unread[4], bytes(self._unread[5 : 4 + length])
        del self._unread[: 4 + length]
        return kind, body
