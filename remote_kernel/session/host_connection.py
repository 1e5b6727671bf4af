"""Talk to a session's host: lines of JSON both ways over its Unix socket, and no wait without an end.

A host answers at once whatever its kernel does, so one that does not within HANG_SECONDS was stopped, or hangs.
"""

from __future__ import annotations

import _socket  # what the kernel of the socket module is; that itself takes 7 ms more, for what is not needed here
import json
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import decode_problem, request_line

HANG_SECONDS = 20.0
_PIECE = 1 << 18


class HostGone(RemoteKernelError):
    """The session's host ended or was killed while a client talked to it."""

    exit_status = 6


class HostHangs(RemoteKernelError):
    """The session's host does not answer: it was stopped, or hangs. The kernel does not depend on it."""

    exit_status = 6


class NoSuchSession(RemoteKernelError):
    """No session of that name on this machine, or none that can be meant."""

    exit_status = 3


class HostConnection:
    """One connection to a host. Use it as a context manager, or call `close`."""

    def __init__(self, paths: Paths) -> None:
        """Connect. Raises OSError where there is no host, and HostHangs."""
        self._paths = paths
        self._socket = _socket.socket(_socket.AF_UNIX)
        self._pieces: list[bytes] = []
        self._lines: list[bytes] = []
        try:
            self._socket.settimeout(HANG_SECONDS)
            self._socket.connect(paths.socket())
        except TimeoutError:
            self._socket.close()
            raise self.hangs() from None
        except OSError:
            self._socket.close()
            raise

    def send(self, line: bytes) -> None:
        """Send one line. Raises HostGone, HostHangs."""
        try:
            self._socket.settimeout(HANG_SECONDS)
            self._socket.sendall(line)
        except TimeoutError:
            raise self.hangs() from None
        except OSError as error:
            raise _gone(error) from error

    def answer(self, seconds: float = 0.0) -> Any:
        """Return what the next line answers. Raises what the host reports, HostGone, and HostHangs if none comes.

        `seconds` is for what takes a host longer than HANG_SECONDS: whenever those have passed, it has to answer else.
        """
        deadline = time.monotonic() + seconds
        while (raw := self.raw_line(time.monotonic() + HANG_SECONDS)) is None:
            if time.monotonic() > deadline:
                raise self.hangs()
            check_host(self._paths)
        fields = json.loads(raw)
        if "problem" in fields:
            raise decode_problem(fields["problem"])
        return fields["host"] if "host" in fields else fields["answer"]

    def raw_line(self, deadline: float) -> bytes | None:
        """Return the next line with its end; None when the deadline, a monotonic time, has passed. Raises HostGone."""
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._socket.settimeout(left)
                piece = self._socket.recv(_PIECE)
            except TimeoutError:
                return None
            except OSError as error:
                raise _gone(error) from error
            if not piece:
                raise _gone(None)
            end = piece.find(b"\n") + 1
            self._pieces.append(piece[:end] if end else piece)
            if end:  # a long line is put together once, whatever follows it
                first = b"".join(self._pieces)
                *others, rest = piece[end:].split(b"\n")
                self._lines = [*(line + b"\n" for line in reversed(others)), first]
                self._pieces = [rest] if rest else []
        return self._lines.pop()

    def hangs(self) -> HostHangs:
        """Return the error for a host that does not answer."""
        return HostHangs(
            f"the host of session '{self._paths.name}' does not answer",
            f"'rkernel refresh {self._paths.name}' replaces it; the kernel keeps running, and its cell too",
        )

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    def __enter__(self) -> HostConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_host(paths: Paths, seconds: float | None = None) -> None:
    """Raise HostHangs if there is a host, and it does not answer within so long."""
    with suppress(OSError, HostGone), HostConnection(paths) as connection:
        connection.send(request_line("status"))
        if connection.raw_line(time.monotonic() + (seconds or HANG_SECONDS)) is None:
            raise connection.hangs()


def _gone(error: OSError | None) -> HostGone:
    why = f": {error}" if error else ""
    return HostGone(
        f"the session's host went away{why}", "the kernel keeps running, and its cell too; see 'rkernel status'"
    )
