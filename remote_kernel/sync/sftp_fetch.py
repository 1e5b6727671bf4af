"""Get files from a host that has SFTP and nothing else: the sending end, run here, which reads them there."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from remote_kernel.errors import NoRoom
from remote_kernel.sftp.client import Sftp
from remote_kernel.sftp.packets import Job
from remote_kernel.sync import blocks, wire
from remote_kernel.sync.folders import Folders
from remote_kernel.sync.partial_file import Part, opened_part
from remote_kernel.sync.sender import Sender, Source, Want
from remote_kernel.sync.sftp_end import SftpEnd
from remote_kernel.sync.sftp_push import LARGE_AT_ONCE, SMALL
from remote_kernel.sync.sftp_tree import WINDOW, contents
from remote_kernel.sync.tree import Entry
from remote_kernel.sync.wire import Broken, Wire, shown, to_bytes
from remote_kernel.sync.wishes import NEVER

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SftpSender(Sender):
    """Sends what a server has: puts each file in its place itself, and tells the receiving end that it is there."""

    def __init__(self, pipe: Wire, source: Source, sftp: Sftp, moved: Callable[[int, int], None]) -> None:
        super().__init__(pipe, source, moved, NEVER, names=True)
        self._sftp = sftp
        self._folders, self._single = Folders(b""), b""

    def offer(self) -> Any:
        """Tell what there is, and give the other end's plan. Raises Broken, SyncFailure."""
        plan = super().offer()
        self._folders, self._single = Folders(to_bytes(plan["root"])), to_bytes(plan["name"])
        return plan

    def deliver(self, dry_run: bool) -> Any:
        """Bring what is wanted, and give the summary. Raises PipeBroken, NoRoom, Broken."""
        wanted = [] if dry_run else self.wanted
        with self._folders:
            small = (self._bring(want) for want in wanted if self.entry(want.number).size <= SMALL)
            self._sftp.run(small, self._sftp.handles)
        self._sftp.run((self._bring(w) for w in wanted if self.entry(w.number).size > SMALL), LARGE_AT_ONCE)
        self._wire.write(wire.SENT)
        self._wire.flush()
        return self.read_summary()

    def _bring(self, want: Want) -> Job:
        entry = self.entry(want.number)
        target = self._single or entry.path
        try:
            yield from self._copy(os.path.join(self._source.root, entry.path), target, entry)
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoom(
                    f"there is no room on {os.uname().nodename} in {shown(self._folders.root)}: {error.strerror}",
                    "make room there; the same command then continues from here",
                ) from error
            self._wire.write(wire.FILE, want.number)
            self._wire.write(wire.FAILED, want.number, str(error.strerror or error).encode())
            return
        self._wire.write(wire.MOVED, want.number)

    def _copy(self, path: bytes, target: bytes, entry: Entry) -> Job:
        version = b"%d %d" % (entry.size, entry.time)
        if entry.size <= SMALL:  # written when all of it is there, so that not hundreds are open
            found: list[bytes] = []
            yield from contents(self._sftp, path, 0, entry.size, lambda _, data: found.append(data))
            part = opened_part(self._folders, target, version)
            try:
                part.write(b"".join(found), 0)
                part.finish(entry.size, entry.mode, entry.time)
            finally:
                part.close()
            self._moved(entry.size, 0)
            return
        with Folders(self._folders.root) as folders:  # its own: others are brought meanwhile
            part = opened_part(folders, target, version)
            try:
                start = _start_of(part, entry)
                self._moved(start, 0)
                yield from contents(self._sftp, path, start, entry.size, lambda at, data: self._write(part, at, data))
                part.finish(entry.size, entry.mode, entry.time)
            finally:
                part.close()

    def _write(self, part: Part, offset: int, data: bytes) -> None:
        if data.count(0) < len(data):  # SFTP does not tell holes: what is nothing but zeros becomes one
            part.write(data, offset)
        self._moved(len(data), 0)


def _start_of(part: Part, entry: Entry) -> int:
    start = min(part.size, entry.size) - 2 * WINDOW
    if start >= blocks.LEAST:
        os.ftruncate(part.fd, start)
        return start
    os.ftruncate(part.fd, 0)
    return 0


class SendingThread:
    """Runs the sending end beside the receiving one, whose `wire` it gives; for one `with` block.

    Leaving that waits for the thread, and raises what ended it.
    """

    def __init__(self, source: Source, end: SftpEnd, dry_run: bool, moved: Callable[[int, int], None]) -> None:
        self._source, self._end, self._dry_run, self._moved = source, end, dry_run, moved
        self._error: Exception | None = None

    def __enter__(self) -> SendingThread:
        """Start."""
        to_receiver, to_sender = os.pipe(), os.pipe()
        self._ours, theirs = (to_receiver[0], to_sender[1]), (to_sender[0], to_receiver[1])
        self.wire = Wire(*self._ours)
        self._thread = threading.Thread(target=self._run, args=(theirs,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error:
            self._end.stop()  # it may be in the middle of a large file
        for fd in self._ours:
            os.close(fd)
        self._thread.join()
        if self._error and (error is None or isinstance(error, Broken)):
            raise self._error

    def _run(self, pipe: tuple[int, int]) -> None:
        try:
            sender = SftpSender(Wire(*pipe), self._source, self._end.sftp, self._moved)
            sender.offer()
            sender.deliver(self._dry_run)
        except Broken:
            pass  # the receiving end has given up, and knows why
        except Exception as error:  # raised where the block ends
            self._error = error
        finally:
            for fd in pipe:
                os.close(fd)
