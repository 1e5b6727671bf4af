"""Speak with a session's host: lines of JSON both ways over its Unix socket, and no wait without an end.

A host answers at once whatever its kernel does, so one that does not within HANG_SECONDS was stopped, or hangs.
"""

from __future__ import annotations

import _socket  # what the kernel of the socket module is; that itself takes 7 ms more, for what is not needed here
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError, by_name
from remote_kernel.session.paths import Place

HANG_SECONDS = 20.0
REQUEST_BYTES = 64 << 20  # of a request, with the code in it
_PIECE = 1 << 18


class HostGone(RemoteKernelError):
    """The session's host ended or was killed while a client talked to it."""

    exit_status = 6


class HostHangs(RemoteKernelError):
    """The session's host does not answer: it was stopped, or hangs. The kernel does not depend on it."""

    exit_status = 6


class RequestTooLong(UsageError):
    """A request, with the code of its cell, has more than REQUEST_BYTES."""

    def __init__(self) -> None:
        super().__init__(
            f"a cell has {REQUEST_BYTES >> 20} MB at most, and this one has more",
            "bring data to the kernel's host as a file, with 'remote_kernel sync', and read it there",
        )


class Connection:
    """One connection to a host. Use it as a context manager, or call `close`."""

    def __init__(self, place: Place) -> None:
        """Connect. Raises OSError where there is no host, and HostHangs."""
        self._name = place.name
        self._socket = _socket.socket(_socket.AF_UNIX)
        self._pieces: list[bytes] = []
        self._lines: list[bytes] = []
        try:
            self._socket.settimeout(HANG_SECONDS)
            self._socket.connect(place.socket())
        except TimeoutError:
            self._socket.close()
            raise self.hangs() from None
        except OSError:
            self._socket.close()
            raise

    def send(self, fields: dict[str, Any]) -> None:
        """Send one line. Raises HostGone, HostHangs and RequestTooLong, and UsageError for half a character."""
        try:
            line = (json.dumps(fields, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise UsageError(f"the text to send has half a character, U+{half:04X}", "give valid text") from error
        if len(line) > REQUEST_BYTES:
            raise RequestTooLong
        try:
            self._socket.settimeout(HANG_SECONDS)
            self._socket.sendall(line)
        except TimeoutError:
            raise self.hangs() from None
        except OSError as error:
            raise _gone(error) from error

    def line(self, seconds: float = 0.0, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Give the next line's object. Raises what the host reports, HostGone, and HostHangs when none comes in time.

        `seconds` is for what takes a host longer than HANG_SECONDS; `check` is called whenever those have passed.
        """
        deadline = time.monotonic() + seconds
        while (raw := self.raw_line(time.monotonic() + HANG_SECONDS)) is None:
            if time.monotonic() > deadline:
                raise self.hangs()
            check()
        fields: dict[str, Any] = json.loads(raw)
        if "problem" in fields:
            raise problem_of(fields["problem"])
        return fields

    def raw_line(self, deadline: float) -> bytes | None:
        """Give the next line with its end; None when the deadline, a monotonic time, has passed. Raises HostGone."""
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
        """Give the error for a host that does not answer."""
        return HostHangs(
            f"the host of session '{self._name}' does not answer",
            f"'rkernel refresh {self._name}' replaces it; the kernel keeps running, and its cell too",
        )

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def problem_of(fields: dict[str, Any]) -> RemoteKernelError:
    """Rebuild an error that a host has reported."""
    error = by_name(str(fields["error"]), str(fields["message"]), str(fields["hint"]))
    error.exit_status = int(fields["status"])
    return error


def _gone(error: OSError | None) -> HostGone:
    why = f": {error}" if error else ""
    return HostGone(
        f"the session's host went away{why}", "the kernel keeps running, and its cell too; see 'rkernel status'"
    )
