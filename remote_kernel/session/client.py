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

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.connection import (
    HANG_SECONDS,
    REQUEST_BYTES,
    Connection,
    HostGone,
    HostHangs,
    RequestTooLong,
)
from remote_kernel.session.ending import read_done
from remote_kernel.session.events import VERSION, Answered, Done, Event, InputWanted, Queued, from_fields
from remote_kernel.session.paths import Place

# For how long a host may be at what takes it longer than an answer: a kernel's start, its end, three interrupts.
_WORK_SECONDS = {"restart": 180.0, "close": 40.0, "leave": 20.0, "interrupt": 40.0}
_SILENCE_SECONDS = 15.0  # of a cell; after that it is seen to that the host is well
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
    is there to be asked (InputWanted). `generation` makes it run in that kernel of the session only, 0 in any. `script`
    makes a Python kernel run it as a script: the path of its file on this machine, then its sys.argv.
    """

    code: str
    author: str = ""
    key: str = ""
    side: bool = False
    answers: Sequence[str] = ()
    asks: bool = False
    generation: int = 0
    script: Sequence[str] = ()


class NotebookCell(NamedTuple):
    """A cell of a notebook to be run; `id` is nbformat's. One that `may_fail` does not end the run when it does."""

    id: str
    code: str
    may_fail: bool = False


class Running:
    """A cell that is followed: an iterator of its events, the last of them Done. Closed by itself at the end.

    `cell` is its number, known from the start; `next` the byte of its journal to read on from after the last event.
    `has_ended` tells whether it was over when it was asked for.
    """

    def __init__(self, connection: Connection, session: Session, next_byte: int = 0, *, asks: bool = False) -> None:
        """Made by `Session`."""
        try:
            fields = connection.line()
        except BaseException:
            connection.close()
            raise
        self.cell = str(fields["host"]["cell"])
        self.generation = int(fields["host"]["generation"])
        self.version = str(fields["host"]["version"])
        self.has_ended = bool(fields["host"].get("ended"))
        self.next = next_byte
        self._size = int(fields["host"].get("end", 0))  # of the journal
        self._connection, self._session, self._asks = connection, session, asks
        self._deadline = self._end = float("inf")
        self._answer: str | None = None  # until the cell has got it

    def limit(self, seconds: float | None) -> Running:
        """Let the iteration raise StillRunning when it has lasted that long from now; None for no limit.

        A cell that has ended by then gives all its events, however long that takes.
        """
        self._deadline = float("inf") if seconds is None else time.monotonic() + seconds
        return self

    def so_far(self) -> Running:
        """Let the iteration give what was there when it was made, however long that takes, and raise StillRunning."""
        self._end = self._size
        return self

    def again(self) -> Running:
        """Follow the cell through the session's next host, from where this has got to and with the same limits.

        For after HostGone: the cell goes on. An answer that the cell has not got is given again. Raises NoSuchSession
        where the session was closed.
        """
        return self._session._patiently(self._once_more)

    def _once_more(self) -> Running:
        running = self._session.follow(self.cell, self.next, asks=self._asks)
        running._deadline = self._deadline
        if self._answer is not None:
            running.answer(self._answer)
        return running if self._end == float("inf") else running.so_far()

    def _is_over(self) -> bool:
        try:
            return read_done(self._session.place.journal(self.cell)) is not None
        except OSError:  # the session was closed, or the disk is full
            return False

    def __iter__(self) -> Iterator[Event]:
        """Give the events as they come. Raises StillRunning, HostGone and HostHangs."""
        try:
            while self.next < self._end:
                raw = self._connection.raw_line(min(self._deadline, time.monotonic() + _SILENCE_SECONDS))
                if raw is None and time.monotonic() >= self._deadline:
                    if not self._is_over():
                        raise StillRunning(self.cell, self.next)
                    self._deadline = float("inf")
                    continue
                if raw is None:
                    self._session.check()
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
        cls,
        name: str,
        *,
        kernelspec: str = "",
        connection_file: str = "",
        log: str | None = None,
        cwd: str = "",
        workdir: str = "",
    ) -> Session:
        """Give the session of this name, and make it if there is none. Blocks until its kernel answers.

        A new one starts the kernel of `kernelspec` (slug or display name), or uses the running kernel of
        `connection_file`. `log` is the notebook's path: None for `rkernel-NAME.ipynb` in `cwd`, empty for none.
        `workdir` is the kernel's folder on its host: by default `cwd` for a local one, else as its kernelspec says.
        Raises NoSuchKernelspec, NoSuchSession where neither is given for a new one, and what a kernel's start raises.
        """
        session = cls(name)
        if not session.place.exists():
            from remote_kernel.session.opening import make_session

            make_session(
                session.place,
                kernelspec=kernelspec,
                connection_file=connection_file,
                log=log,
                cwd=cwd,
                workdir=workdir,
            )
        session._connect().close()
        return session

    def execute(self, request: Request | str) -> Running:
        """Have a cell run, and give what follows it. The cell runs whether or not anybody reads on.

        One without a key gets one: a host may end when it has the request, and before it says so. Raises
        RequestTooLong.
        """
        wanted = Request(request) if isinstance(request, str) else request
        if len(wanted.code) > REQUEST_BYTES:  # before it is copied three times
            raise RequestTooLong
        fields = {"do": "execute", **wanted._asdict(), "key": wanted.key or os.urandom(8).hex()}
        return self._patiently(lambda: Running(self._ask(fields), self, asks=wanted.asks))

    def run_notebook(
        self, cells: Sequence[NotebookCell], request: Request, copy: str = "", *, only_known: bool = False
    ) -> list[str]:
        """Have the cells of a notebook run, one after the other, and give their numbers; `follow` shows each.

        A cell runs only if the one before it ended well. All else is as `request` says, whose code is not used; its
        answers are for all the cells, and its key is for the run. What the cells give goes into the notebook at `copy`
        too, an absolute path: it is there already. With `only_known` nothing runs, and only a run that was sent with
        the key before has numbers.
        """
        about = {name: value for name, value in request._asdict().items() if name not in ("code", "script", "key")}
        key = request.key or os.urandom(8).hex()
        fields = {**about, "key": key, "cells": [cell._asdict() for cell in cells], "copy": copy}
        return [str(number) for number in self.ask("run", **fields, only_known=only_known)["cells"]]

    def follow(self, cell: str, since: int = 0, *, asks: bool = False) -> Running:
        """Follow a cell that was sent before, from a byte of its journal on; an ended one gives its events at once.

        `asks` as in its request: this client is there to be asked.
        """
        request = {"do": "follow", "cell": cell, "since": since, "asks": asks}
        return self._patiently(lambda: Running(self._ask(request), self, since, asks=asks))

    def ask(self, do: str, **fields: object) -> Any:
        """Ask the host something: `status`, `interrupt`, `restart`, `variables`, `inspect`, `complete`. See host.py.

        Raises HostHangs where it does not answer, and what it reports.
        """

        def once() -> Any:
            with self._ask({"do": do, **fields}) as connection:
                return connection.line(_WORK_SECONDS.get(do, 0.0), self.check)["answer"]

        return once() if do == "restart" else self._patiently(once)

    def _patiently(self, do: Callable[[], _T]) -> _T:
        """Do what may be done twice: a host that is about to end may still be connected to."""
        for pause in _PAUSES:
            try:
                return do()
            except HostGone:
                time.sleep(pause)
        return do()

    def close(self) -> list[str]:
        """End the session: its kernel, unless that is somebody else's, its host and its files; not its notebook.

        Gives the names of the kernel's child processes that did not end and were killed.
        """
        from remote_kernel.session.opening import close_session

        return close_session(self)

    def refresh(self) -> None:
        """Replace the host, after an update say, or where it hangs; the kernel and what runs in it stay."""
        from remote_kernel.session.opening import end_host

        end_host(self)

    def check(self, seconds: float | None = None) -> None:
        """See to it that the host is well, if there is one. Raises HostHangs."""
        try:
            with Connection(self.place) as connection:
                connection.send({"protocol": VERSION, "do": "status"})
                if connection.raw_line(time.monotonic() + (seconds or HANG_SECONDS)) is None:
                    raise connection.hangs()
        except (OSError, HostGone):
            pass

    def tell_host(self, do: str) -> dict[str, Any]:
        """Have the host `close` or `leave`, if there is one, and wait until it has; none is started for it.

        Gives its answer, empty where there is no host. Raises HostHangs when it does not answer.
        """
        try:
            with Connection(self.place) as connection:
                connection.send({"protocol": VERSION, "do": do})
                answer: dict[str, Any] = connection.line(_WORK_SECONDS[do], self.check)["answer"]
                return answer
        except (OSError, HostGone):
            return {}

    def _ask(self, fields: dict[str, Any]) -> Connection:
        connection = self._connect()
        try:
            connection.send({"protocol": VERSION, **fields})
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> Connection:
        try:
            return Connection(self.place)
        except OSError:
            if not self.place.exists():
                raise NoSuchSession(
                    f"there is no session '{self.name}'", "see 'rkernel ls'; 'rkernel exec' makes one"
                ) from None
            from remote_kernel.session.opening import start_host

            start_host(self.place)
            return Connection(self.place)


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
