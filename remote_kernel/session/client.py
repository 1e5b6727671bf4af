"""Use a session from a program: open it, run code in its kernel, and see what comes back while it runs.

    from remote_kernel import Session

    session = Session.open("work", kernelspec="remote_cuda")
    for event in session.execute("print(6 * 7)"):
        print(event)

`rkernel` is made of this. What a call does happens in the session's host, so a program may end, or be killed, and
another one goes on: the kernel, the running cell and what it prints do not depend on it.

Imports little, for `rkernel exec`: starting a host takes more, and is imported then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from remote_kernel.session.events import Answered, Done, Event, InputWanted, Queued, from_fields, read_done
from remote_kernel.session.host_connection import (
    HostConnection,
    HostGone,
    HostHangs,
    NoSuchSession,
    check_host,
)
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import (
    REQUEST_BYTES,
    Follow,
    Following,
    NotebookCell,
    Request,
    RequestTooLong,
    decode,
    request_line,
    to_line,
)

if TYPE_CHECKING:
    from remote_kernel.session.questions import (
        Completions,
        CopyState,
        Inspection,
        Interrupted,
        Restarted,
        SessionStatus,
        Variable,
    )

_WORK_SECONDS = {"restart": 180.0, "interrupt": 40.0}  # for what takes a host longer than an answer
_SILENCE_SECONDS = 15.0  # of a cell; after that it is seen to that the host is well
_PAUSES = (0.05, 0.2, 1.0)
_T = TypeVar("_T")


class StillRunning(Exception):
    """The time is up, and the cell goes on. `cell` is its number and `next` the byte to read on from."""

    def __init__(self, cell: str, next_byte: int) -> None:
        super().__init__(f"cell {cell} is still running")
        self.cell = cell
        self.next = next_byte


class Running:
    """A cell that is followed: an iterator of its events, the last of them Done. Closed by itself at the end.

    `cell` is its number, known from the start; `next` the byte of its journal to read on from after the last event.
    `has_ended` tells whether it was over when it was asked for.
    """

    def __init__(self, connection: HostConnection, session: Session, next_byte: int = 0, *, asks: bool = False) -> None:
        """Made by `Session`."""
        try:
            following = decode(Following, connection.answer())
        except BaseException:
            connection.close()
            raise
        self.cell, self.generation, self.version = following.cell, following.generation, following.version
        self.has_ended = following.ended
        self.next = next_byte
        self._size = following.end  # of the journal
        self._connection, self._session, self._asks = connection, session, asks
        self._deadline = self._end = float("inf")
        self._answer: str | None = None  # until the cell has got it

    def limit(self, seconds: float | None) -> Running:
        """Limit the iteration to that long from now, None for ever: it raises StillRunning then.

        A cell that has ended by then yields all its events, however long that takes.
        """
        self._deadline = float("inf") if seconds is None else time.monotonic() + seconds
        return self

    def so_far(self) -> Running:
        """Limit the iteration to what was there when it was made; it raises StillRunning then."""
        self._end = self._size
        return self

    def again(self) -> Running:
        """Follow the cell through the session's next host, from where this has got to and with the same limits.

        For after HostGone: the cell goes on. An answer that the cell has not got is given again. Raises NoSuchSession
        where the session was closed.
        """
        return self._session._retry(self._once_more)

    def _once_more(self) -> Running:
        running = self._session.follow(self.cell, self.next, asks=self._asks)
        running._deadline = self._deadline
        if self._answer is not None:
            running.answer(self._answer)
        return running if self._end == float("inf") else running.so_far()

    def _is_over(self) -> bool:
        try:
            return read_done(self._session.paths.journal(self.cell)) is not None
        except OSError:  # the session was closed, or the disk is full
            return False

    def __iter__(self) -> Iterator[Event]:
        """Yield the events as they come. Raises StillRunning, HostGone and HostHangs."""
        try:
            while self.next < self._end:
                raw = self._connection.raw_line(min(self._deadline, time.monotonic() + _SILENCE_SECONDS))
                if raw is None and time.monotonic() >= self._deadline:
                    if not self._is_over():
                        raise StillRunning(self.cell, self.next)
                    self._deadline = float("inf")
                    continue
                if raw is None:
                    check_host(self._session.paths)
                    continue
                event = from_fields(json.loads(raw))
                self.next += len(raw)
                if isinstance(event, Answered):
                    self._answer = None
                if event is not None:
                    yield event
                if isinstance(event, Done):
                    return
            raise StillRunning(self.cell, self.next)
        finally:
            self._connection.close()

    def answer(self, text: str) -> None:
        """Answer an InputWanted: one line, without its end."""
        self._answer = text
        self._connection.send(to_line({"do": "answer", "text": text}))

    def close(self) -> None:
        """Stop following. The cell goes on. Idempotent."""
        self._connection.close()


class Session:
    """One session, by name. Holds no connection: each call makes its own."""

    def __init__(self, name: str) -> None:
        """`name` is that of a session that exists, or may not: every call but `open` raises NoSuchSession then."""
        self.paths = Paths(name)
        self.name = name

    @classmethod
    def open(
        cls,
        name: str,
        *,
        kernelspec: str = "",
        connection_file: str = "",
        log: str | None = None,
        cwd: str = "",
        workdir: str = "",
    ) -> Session:
        """Return the session of this name, made if there is none. Blocks until its kernel answers.

        A new one starts the kernel of `kernelspec` (slug or display name), or uses the running kernel of
        `connection_file`. `log` is the notebook's path: None for `rkernel-NAME.ipynb` in `cwd`, empty for none.
        `workdir` is the kernel's folder on its host: by default `cwd` for a local one, else as its kernelspec says.
        Raises NoSuchKernelspec, NoSuchSession where neither is given for a new one, and what a kernel's start raises.
        """
        session = cls(name)
        if not session.paths.exists():
            from remote_kernel.session.host_process import make_session

            make_session(
                session.paths,
                kernelspec=kernelspec,
                connection_file=connection_file,
                log=log,
                cwd=cwd,
                workdir=workdir,
            )
        session._connect().close()
        return session

    def execute(self, request: Request | str) -> Running:
        """Run a cell, and return what follows it. The cell runs whether or not anybody reads on.

        One without a key gets one: a host may end when it has the request, and before it says so. Raises
        RequestTooLong.
        """
        wanted = Request(request) if isinstance(request, str) else request
        if len(wanted.code) > REQUEST_BYTES:  # before it is copied three times
            raise RequestTooLong
        keyed = wanted._replace(key=wanted.key or os.urandom(8).hex())
        return self._retry(lambda: Running(self._send("execute", keyed), self, asks=wanted.asks))

    def run_notebook(
        self, cells: Sequence[NotebookCell], request: Request, copy: str = "", *, only_known: bool = False
    ) -> list[str]:
        """Run the cells of a notebook, one after the other, and return their numbers; `follow` shows each.

        A cell runs only if the one before it ended well. All else is as `request` says, whose code is not used; its
        answers are for all the cells, and its key is for the run. What the cells give goes into the notebook at `copy`
        too, an absolute path: it is there already. With `only_known` nothing runs, and only a run that was sent with
        the key before has numbers.
        """
        from remote_kernel.session.questions import RunNotebook, RunTaken

        key = request.key or os.urandom(8).hex()
        _, author, _, side, answers, asks, generation, _ = request
        run = RunNotebook(cells, copy, only_known, author, key, side, answers, asks, generation)
        return list(self._ask("run", run, RunTaken).cells)

    def follow(self, cell: str, since: int = 0, *, asks: bool = False) -> Running:
        """Follow a cell that was sent before, from a byte of its journal on; an ended one gives its events at once.

        `asks` as in its request: this client is there to be asked.
        """
        wanted = Follow(cell, since, asks)
        return self._retry(lambda: Running(self._send("follow", wanted), self, since, asks=asks))

    def status(self, *, memory: bool = False) -> SessionStatus:
        """Return what the session and its kernel do. With `memory` the kernel is asked how much it uses now."""
        from remote_kernel.session.questions import AskStatus, SessionStatus

        return self._ask("status", AskStatus(memory), SessionStatus)

    def interrupt(self, cell: str = "", *, every: bool = False) -> Interrupted:
        """Interrupt a cell, or what runs where none is named. One that waits leaves the queue, with `every` all do."""
        from remote_kernel.session.questions import Interrupt, Interrupted

        return self._ask("interrupt", Interrupt(cell, every), Interrupted)

    def restart(self) -> Restarted:
        """End the kernel and start the next one; blocks until it answers. Raises what a kernel's start raises."""
        from remote_kernel.session.questions import Restart, Restarted

        return decode(Restarted, self._ask_once("restart", Restart()))

    def variables(self, pattern: str = "") -> list[Variable]:
        """List a Python kernel's variables whose names match (`*` and `?`; empty: all). Raises RemoteError."""
        from remote_kernel.session.questions import ListVariables, Variable

        found = self._retry(lambda: self._ask_once("variables", ListVariables(pattern)))
        return [decode(Variable, each) for each in found]

    def inspect(self, name: str, *, detail: int = 0) -> Inspection:
        """Return what the kernel knows about a name: with `detail` 1 the source too."""
        from remote_kernel.session.questions import Inspect, Inspection

        return self._ask("inspect", Inspect(name, detail), Inspection)

    def complete(self, code: str) -> Completions:
        """Return the kernel's completions at the end of `code`."""
        from remote_kernel.session.questions import Complete, Completions

        return self._ask("complete", Complete(code), Completions)

    def copy_of(self, cell: str) -> CopyState:
        """Return the copy of the notebook that this cell belongs to, when what has ended of it is written."""
        from remote_kernel.session.questions import AskCopy, CopyState

        return self._ask("written", AskCopy(cell), CopyState)

    def _ask(self, do: str, question: object, kind: type[_T]) -> _T:
        """Ask the host. Raises HostHangs where it does not answer, and what it reports."""
        return decode(kind, self._retry(lambda: self._ask_once(do, question)))

    def _ask_once(self, do: str, question: object) -> Any:
        with self._send(do, question) as connection:
            return connection.answer(_WORK_SECONDS.get(do, 0.0))

    def _retry(self, do: Callable[[], _T]) -> _T:
        """Call what may be called twice: a host that is about to end may still be connected to."""
        for pause in _PAUSES:
            try:
                return do()
            except HostGone:
                time.sleep(pause)
        return do()

    def close(self) -> list[str]:
        """End the session: its kernel, unless that is somebody else's, its host and its files; not its notebook.

        Returns the names of the kernel's child processes that did not end and were killed.
        """
        from remote_kernel.session.host_process import close_session

        return close_session(self.paths)

    def refresh(self) -> None:
        """Replace the host, after an update say, or where it hangs; the kernel and what runs in it stay."""
        from remote_kernel.session.host_process import end_host

        end_host(self.paths)

    def check(self, seconds: float | None = None) -> None:
        """Raise HostHangs if there is a host, and it does not answer."""
        check_host(self.paths, seconds)

    def _send(self, do: str, request: object) -> HostConnection:
        line = request_line(do, request)
        connection = self._connect()
        try:
            connection.send(line)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> HostConnection:
        try:
            return HostConnection(self.paths)
        except OSError:
            if not self.paths.exists():
                raise NoSuchSession(
                    f"there is no session '{self.name}'", "see 'rkernel ls'; 'rkernel exec' makes one"
                ) from None
            from remote_kernel.session.host_process import start_host

            start_host(self.paths)
            return HostConnection(self.paths)


__all__ = [
    "HostGone",
    "HostHangs",
    "InputWanted",
    "NoSuchSession",
    "NotebookCell",
    "Queued",
    "Request",
    "Running",
    "Session",
    "StillRunning",
]
