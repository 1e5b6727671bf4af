"""Use a session from a program: open it, run code in its kernel, and see what comes back while it runs.

    from remote_kernel.session.client import Session

    session = Session.open("work", kernelspec="remote_cuda")
    for event in session.execute("print(6 * 7)"):
        print(event)

`rkernel` is made of this. What a call does happens in the session's host, so a program may end, or be killed, and
another one goes on: the kernel, the running cell and what it prints do not depend on it.

Imports little, for `rkernel exec`: starting a host takes more, and is imported then.
"""

from __future__ import annotations

import _socket  # what the kernel of the socket module is; that itself takes 7 ms more, for what is not needed here
import json
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from remote_kernel.errors import RemoteKernelError, by_name
from remote_kernel.session.events import VERSION, Done, Event, InputWanted, Queued, from_fields
from remote_kernel.session.place import Place

_ANSWER_SECONDS = 120.0
_PIECE = 1 << 18
_PAUSES = (0.05, 0.2, 1.0)
_T = TypeVar("_T")


class StillRunning(Exception):
    """The time is up, and the cell goes on. `cell` is its number and `next` the place to read on from."""

    def __init__(self, cell: str, next_byte: int) -> None:
        super().__init__(f"cell {cell} is still running")
        self.cell = cell
        self.next = next_byte


class NoSuchSession(RemoteKernelError):
    """No session of that name on this machine, or none that can be meant."""

    exit_status = 3


class Request(NamedTuple):
    """How a cell is to be run.

    `key` is a name for this request: sent again with the same key, it follows the first cell in place of running twice.
    `side` runs it beside the cell that is running. `answers` are what input() gets, one line each; with `asks` a client
    is there to be asked (InputWanted). `generation` makes it run in that kernel of the session only, 0 in any.
    """

    code: str
    author: str = ""
    key: str = ""
    side: bool = False
    answers: Sequence[str] = ()
    asks: bool = False
    generation: int = 0


class Running:
    """A cell that is followed: an iterator of its events, the last of them Done. Closed by itself at the end.

    `cell` is its number, known from the start; `next` the byte of its journal to read on from after the last event.
    """

    def __init__(self, connection: _Connection, next_byte: int = 0) -> None:
        try:
            fields = connection.line(None)
        except BaseException:
            connection.close()
            raise
        self.cell = str(fields["host"]["cell"])
        self.generation = int(fields["host"]["generation"])
        self.version = str(fields["host"]["version"])
        self.next = next_byte
        self._connection = connection
        self._deadline: float | None = None

    def limit(self, seconds: float | None) -> Running:
        """Let the iteration raise StillRunning when it has lasted that long from now; None for no limit."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        return self

    def __iter__(self) -> Iterator[Event]:
        """Give the events as they come. Raises StillRunning, and RemoteKernelError when the host is gone."""
        try:
            while True:
                raw = self._connection.raw_line(self._deadline)
                if raw is None:
                    raise StillRunning(self.cell, self.next)
                event = from_fields(json.loads(raw))
                self.next += len(raw)
                if event is not None:
                    yield event
                if isinstance(event, Done):
                    return
        finally:
            self._connection.close()

    def answer(self, text: str) -> None:
        """Answer an InputWanted: one line, without its end."""
        self._connection.send({"do": "answer", "text": text})

    def close(self) -> None:
        """Stop following. The cell goes on. Idempotent."""
        self._connection.close()


class Session:
    """One session, by name. Holds no connection: each call makes its own."""

    def __init__(self, name: str) -> None:
        """Name a session that exists, or may not: every call but `open` raises NoSuchSession then."""
        self.place = Place(name)
        self.name = name

    @classmethod
    def open(
        cls, name: str, *, kernelspec: str = "", connection_file: str = "", log: str | None = None, cwd: str = ""
    ) -> Session:
        """Give the session of this name, and make it if there is none. Blocks until its kernel answers.

        A new one starts the kernel of `kernelspec` (slug or display name), or uses the running kernel of
        `connection_file`. `log` is the notebook's path: None for `rkernel-NAME.ipynb` in `cwd`, empty for none.
        Raises NoSuchKernelspec, NoSuchSession where neither is given for a new one, and what a kernel's start raises.
        """
        session = cls(name)
        if not session.place.exists():
            from remote_kernel.session.opening import make_session

            make_session(session.place, kernelspec=kernelspec, connection_file=connection_file, log=log, cwd=cwd)
        session._connect().close()
        return session

    def execute(self, request: Request | str) -> Running:
        """Have a cell run, and give what follows it. The cell runs whether or not anybody reads on."""
        wanted = Request(request) if isinstance(request, str) else request
        return Running(self._ask({"do": "execute", **wanted._asdict()}))

    def follow(self, cell: str, since: int = 0) -> Running:
        """Follow a cell that was sent before, from a byte of its journal on; an ended one gives its events at once."""
        return self._patiently(lambda: Running(self._ask({"do": "follow", "cell": cell, "since": since}), since))

    def ask(self, do: str, **fields: object) -> Any:
        """Ask the host something: `status`, `interrupt`, `restart`, `variables`, `inspect`, `complete`. See host.py."""

        def once() -> Any:
            with self._ask({"do": do, **fields}) as connection:
                return connection.line(_ANSWER_SECONDS)["answer"]

        return once() if do == "restart" else self._patiently(once)

    def _patiently(self, do: Callable[[], _T]) -> _T:
        """Do what may be done twice: a host that is about to end may still be connected to."""
        for pause in _PAUSES:
            try:
                return do()
            except HostGone:
                time.sleep(pause)
        return do()

    def close(self) -> None:
        """End the session: its kernel, unless that is somebody else's, its host and its files; not its notebook."""
        from remote_kernel.session.opening import close_session

        close_session(self)

    def refresh(self) -> None:
        """Replace the host, after an update of remote_kernel say; the kernel and a running cell stay."""
        self.tell_host("leave")

    def tell_host(self, do: str, seconds: float = _ANSWER_SECONDS) -> None:
        """Have the host `close` or `leave`, if there is one, and wait until it has; none is started for it.

        Raises RemoteKernelError when it does not answer in time.
        """
        try:
            with _Connection(self.place.socket()) as connection:
                connection.send({"protocol": VERSION, "do": do})
                connection.line(seconds)
        except (OSError, HostGone):
            pass

    def _ask(self, fields: dict[str, Any]) -> _Connection:
        connection = self._connect()
        try:
            connection.send({"protocol": VERSION, **fields})
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> _Connection:
        path = self.place.socket()
        try:
            return _Connection(path)
        except OSError:
            if not self.place.exists():
                raise NoSuchSession(
                    f"there is no session '{self.name}'", "see 'rkernel ls'; 'rkernel exec' makes one"
                ) from None
            from remote_kernel.session.opening import start_host

            start_host(self.place)
            return _Connection(path)


class _Connection:
    """One connection to a host: lines of JSON both ways."""

    def __init__(self, path: str) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._pieces: list[bytes] = []
        self._lines: list[bytes] = []

    def send(self, fields: dict[str, Any]) -> None:
        """Send one line. Raises RemoteKernelError when the host is gone."""
        try:
            self._socket.settimeout(None)
            self._socket.sendall((json.dumps(fields) + "\n").encode())
        except OSError as error:
            raise _gone(error) from error

    def line(self, seconds: float | None) -> dict[str, Any]:
        """Give the next line's object. Raises what the host reports, and RemoteKernelError when it does not answer."""
        raw = self.raw_line(None if seconds is None else time.monotonic() + seconds)
        if raw is None:
            raise RemoteKernelError("the session's host does not answer", "see 'rkernel ls'")
        fields: dict[str, Any] = json.loads(raw)
        if "problem" in fields:
            raise problem_of(fields["problem"])
        return fields

    def raw_line(self, deadline: float | None) -> bytes | None:
        """Give the next line with its end; None when the deadline, a monotonic time, has passed."""
        while not self._lines:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
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

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> _Connection:
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


def _gone(error: OSError | None) -> RemoteKernelError:
    why = f": {error}" if error else ""
    return HostGone(
        f"the session's host went away{why}", "the kernel lives on, with what runs in it; see 'rkernel status'"
    )


class HostGone(RemoteKernelError):
    """The session's host ended or was killed while a client talked to it."""

    exit_status = 6


__all__ = ["HostGone", "InputWanted", "NoSuchSession", "Queued", "Request", "Running", "Session", "StillRunning"]
