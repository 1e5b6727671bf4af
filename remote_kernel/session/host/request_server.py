"""Answer a session's clients on its Unix socket, as protocol.py says.

Whoever sends something that is no request, or nothing, is let go of soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

from remote_kernel import __version__
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.events import VERSION
from remote_kernel.session.host import host_log
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.journal import is_line_start, release_memory
from remote_kernel.session.host.queue import CellQueue
from remote_kernel.session.host.request_handlers import RequestHandlers
from remote_kernel.session.host_lock import HostLock
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import (
    REQUEST_BYTES,
    Follow,
    Following,
    Request,
    RequestTooLong,
    decode,
    encode,
    encode_problem,
)

_REQUEST_SECONDS = 5.0  # for a client to send its request, which takes a tenth of a second for the longest
_LONG_BYTES = 1 << 20


class RequestServer:
    """The socket of one session's host; host.lock says where it is."""

    def __init__(
        self, paths: Paths, lock: HostLock, engine: Engine, queue: CellQueue, handlers: RequestHandlers
    ) -> None:
        self._paths, self._lock = paths, lock
        self._engine, self._queue, self._handlers = engine, queue, handlers
        self._tasks = host_log.Tasks()
        self._server: asyncio.AbstractServer | None = None
        self._path, self._file = "", (0, 0, 0)  # of the socket, and which file that was

    async def open(self) -> None:
        """Listen for clients, anew where the socket was removed. Raises TransportError, OSError."""
        if self._server:
            self._server.close()
        path = self._paths.new_socket()
        self._server = await asyncio.start_unix_server(self._serve, path, limit=REQUEST_BYTES)
        os.chmod(path, 0o600)
        self._path, self._file = path, _which(path)
        self.say_where()

    def say_where(self) -> None:
        """Write into host.lock where the socket is. On a full disk clients look where theirs would be."""
        try:
            self._lock.write(self._path if self._server else "")
        except OSError as error:
            host_log.write(f"cannot write {self._paths.host_lock}: {error.strerror}")

    @property
    def is_reachable(self) -> bool:
        """True if the socket is where it was made."""
        return _which(self._path) == self._file

    def close(self) -> None:
        """Accept no more clients; those that are being served are served on. Idempotent."""
        if not self._server:
            return
        self._server.close()
        self._server = None
        if self.is_reachable:
            os.unlink(self._path)
        if self._lock.is_in_place():
            self.say_where()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(_read_request(reader), _REQUEST_SECONDS)
            if line:
                fields = json.loads(line)
                if len(line) > _LONG_BYTES:
                    del line
                    release_memory()
                await self._obey(fields, reader, writer)
        except RemoteKernelError as error:
            _send(writer, problem=encode_problem(error))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _send(writer, problem=encode_problem(UsageError(f"the host does not understand the request: {error!r}")))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # a client that is stopped would never take the rest
        except Exception as error:  # the top of a task
            host_log.write(f"unexpected {error!r}")
            _send(
                writer,
                problem=encode_problem(RemoteKernelError(f"unexpected {error!r}", f"see {self._paths.host_log}")),
            )
        finally:
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

    async def _obey(self, fields: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fields.get("protocol") != VERSION and fields.get("do") not in ("close", "leave", "status"):
            raise UsageError(
                f"the session's host is of remote_kernel {__version__}, and speaks protocol {VERSION}",
                f"'rkernel refresh {self._paths.name}' replaces it; the kernel and its variables stay",
            )
        do = str(fields.get("do"))
        if do in ("execute", "follow"):
            if do == "execute":
                request = decode(Request, fields)
                wanted = Follow(self._queue.submit(request), asks=request.asks)
            else:
                wanted = decode(Follow, fields)
            await self._follow(wanted, reader, writer)
        else:
            answer = await self._handlers.answer(do, fields, lambda: not reader.at_eof())
            _send(writer, answer=encode(answer))

    async def _follow(self, wanted: Follow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a cell's events from a byte of its journal on, and take what the client answers to its questions."""
        number, since = str(wanted.cell), wanted.since
        path = self._paths.journal(number)
        journal = self._queue.journals.get(number)
        if journal is None:
            self._queue.history.check(number)
            if not os.path.exists(path):
                raise CellIsGone(f"what cell {number} gave is gone: somebody has removed {path}")
        if not is_line_start(path, since) and not (journal and journal.holds(since)):
            raise UsageError(
                f"cell {number} has no place {since} to go on from", "give the number that 'tail' has said"
            )
        generation = self._engine.kernel.record.generation
        end = journal.end if journal else os.path.getsize(path)
        ended = journal is None or journal.is_done
        _send(writer, host=encode(Following(number, generation, __version__, end, ended)))
        if journal is None:
            with open(path, "rb") as file:
                file.seek(since)
                while piece := file.read(1 << 18):
                    writer.write(piece)
                    await writer.drain()
            return
        if wanted.asks and (cell := self._queue.cells.get(number)):
            self._tasks.spawn(self._queue.input_clients.listen(cell, reader))  # until the client leaves
        async for piece in journal.follow(since):
            writer.write(piece)
            await writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one line, empty where the client has sent nothing. Raises UsageError for what cannot be a request."""
    first = await reader.read(1)
    if first not in (b"", b"{"):  # nobody knows where its end would be
        raise UsageError("the host does not understand the request: it is no JSON object")
    try:
        return first + await reader.readuntil(b"\n") if first else b""
    except asyncio.LimitOverrunError:
        raise RequestTooLong() from None


def _which(path: str) -> tuple[int, int, int]:
    """Return which file is at a path: device, number, and time, as numbers are reused; zeros for none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_dev, found.st_ino, found.st_mtime_ns


class CellIsGone(RemoteKernelError):
    """There was a cell of that number, and what it gave was removed."""


def _send(writer: asyncio.StreamWriter, **fields: object) -> None:
    writer.write((json.dumps(fields) + "\n").encode())
