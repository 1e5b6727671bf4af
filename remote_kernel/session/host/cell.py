"""Follow one cell through the kernel: its request, the messages that belong to it, and what became of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from remote_kernel.launcher.state_file import LauncherState
from remote_kernel.session.events import (
    Answered,
    Away,
    Back,
    Clear,
    Display,
    Done,
    Error,
    Event,
    InputWanted,
    Line,
    Queued,
    Sent,
    Started,
    Stream,
    Update,
)
from remote_kernel.session.host.kernel_sockets import Message
from remote_kernel.session.host.widgets import display_id
from remote_kernel.session.record import Record

_RESENDS = 50
_LONGEST_PAUSE_SECONDS = 0.2
# What Python makes of a SystemExit that holds no number: it is known here by its text only.
_NO_NUMBERS = {"": 0, "None": 0, "False": 0, "True": 1}

NO_INPUT = "StdinNotImplementedError"  # ipykernel's, when the request said that nobody can be asked


class Recorder(Protocol):
    """Where a cell's events go: its journal, and the notebook."""

    def append(self, event: Event, line: Line | None = None) -> None:
        """Append the next event; `line` is its line, where that is known already."""


class Cell:
    """One cell of code on its way through the kernel. Lives in the host's loop.

    It is done when both its reply and the kernel's `idle` have come, in whichever order, or when `finish` is called.
    """

    def __init__(self, queued: Queued, generation: int) -> None:
        """`queued` is what its client has asked for, `generation` the present kernel of the session."""
        self._queued, self.generation = queued, generation
        self.number, self.code, self.author, self.only = queued.cell, queued.code, queued.author, queued.only
        self.side, self.script, self.run, self.may_fail = queued.side, queued.script, queued.run, queued.may_fail
        self.request = ""  # the message id
        self.sends = 0  # to the kernel, an earlier host's among them
        self.started_at = 0.0
        self.execution_count: int | None = None
        self.allow_stdin = False
        self.answers: list[str] = []  # what input() gets before anybody is asked
        self.asks = queued.asks  # whether somebody is there to be asked
        self.wants_input = False
        self._prompt = ""  # of what it wants
        self.interrupted = False
        self.lost_because = ""  # however the kernel answers from now on
        self.missed = ""  # what to say of a part that did not get here
        self.is_remembered = False  # the kernel could remember it when it was sent
        self.way = ("shell", "")  # the channel on which its request went, and the subshell
        self.resend: Callable[[], object] | None = None  # sends the request again
        self._resends = 0
        self.is_reply_due = False  # here, and nowhere else: to no earlier host, and over no connection that broke
        self.done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._begun, self._answered = asyncio.Event(), asyncio.Event()
        self._recorders: list[Recorder] = []
        self.reply: dict[str, Any] | None = None  # the content of the execute_reply
        self._idle = False
        self._shown_error = ""  # its name
        self._is_away = False
        self._away_for = ""  # the reason

    def record(self, recorder: Recorder) -> None:
        """Add a recorder, which gets every event from now on."""
        self._recorders.append(recorder)

    def emit(self, event: Event, line: Line | None = None) -> None:
        """Pass an event to the recorders."""
        if isinstance(event, (Error, Clear)):
            self._shown_error = event.name if isinstance(event, Error) else ""
        for recorder in self._recorders:
            recorder.append(event, line)

    def replay(self, event: Event) -> None:
        """Repeat an event that an earlier host has seen."""
        if isinstance(event, Sent):
            self.sends += 1
        elif isinstance(event, Started):
            self.started_at, self.execution_count = event.at, event.execution_count
            self._begun.set()
        elif isinstance(event, (Away, Back)):
            self._is_away = isinstance(event, Away)
            self._away_for = event.reason if isinstance(event, Away) else ""
        elif isinstance(event, (InputWanted, Answered)):
            self.wants_input, self._prompt = isinstance(event, InputWanted), event.prompt
        self.emit(event)

    def update_connection(self, now: LauncherState) -> None:
        """Record that the kernel's host is connected, or away; a cell that starts while it is away says so too.

        Also when there is another reason for it: somebody has to log in first, say.
        """
        if self._is_away == now.connected or (self._is_away and self._away_for != now.reason):
            self._is_away, self._away_for = not now.connected, now.reason
            self.emit(Back(now.at) if now.connected else Away(now.at, now.reason))

    def mark_queued(self, ahead: int) -> None:
        """Record that the cell waits behind `ahead` others."""
        self.emit(self._queued._replace(at=time.time(), ahead=ahead))

    def mark_sent(self) -> None:
        """Record that the kernel gets it now."""
        self.sends += 1
        self.emit(Sent(time.time()))

    def mark_started(self, execution_count: int | None = None) -> None:
        """Record that the kernel has begun. Idempotent."""
        if not self.started_at:
            self.started_at = time.time()
            self._begun.set()
            self.execution_count = execution_count
            self.emit(Started(self.started_at, execution_count, self.generation))

    def handle_output(self, message: Message) -> None:
        """Handle a message of iopub whose parent is this cell's request."""
        content = message.content
        if message.kind == "status":
            if content.get("execution_state") == "idle":
                self._idle = True
                self._settle()
            return
        if message.kind == "execute_input":
            self.mark_started(content.get("execution_count"))
            return
        event = read_output(message)
        if event is not None and not self.done.done():
            self.mark_started()
            if self.script and isinstance(event, Error) and event.name == "SystemExit":
                return  # the reply says so, too
            self.emit(event, stream_line(message.raw) if message.kind == "stream" else None)

    def ask_input(self, prompt: str, password: bool) -> str | None:
        """Return the line that input() gets; None where there is none yet, and whoever follows the cell is asked."""
        if self.answers:
            self.emit(Answered(prompt))
            return self.answers.pop(0)
        self.wants_input, self._prompt = True, prompt
        self.emit(InputWanted(prompt, password))
        return None

    def mark_answered(self) -> None:
        """Record that the kernel gets the line that somebody was asked for."""
        if self.wants_input:
            self.wants_input = False
            self.emit(Answered(self._prompt))

    def handle_reply(self, message: Message) -> None:
        """Handle the execute_reply."""
        self.reply = message.content
        self.execution_count = self.reply.get("execution_count", self.execution_count)
        self._answered.set()
        self._settle()

    @property
    def allows_next(self) -> bool:
        """True if it has ended so that the cell of a notebook after it may run."""
        verdict = self.done.result().verdict if self.done.done() else ""
        return verdict == "ok" or (verdict == "error" and self.may_fail)

    async def is_answered(self, seconds: float) -> bool:
        """Wait that long for the kernel's reply, or the end; true if either has come."""
        return await _comes(self._answered, seconds)

    async def has_begun(self, seconds: float) -> bool:
        """Wait that long for the kernel to begin, or the end; true if either has come."""
        return await _comes(self._begun, seconds)

    def settle_without_idle(self) -> None:
        """End the cell on its reply alone: the kernel's `idle` got lost, as it does when iopub overflows.

        Only when nothing of its output can come any more, which may be long after the reply.
        """
        if self.reply is not None and not self.done.done():
            lost = "the end of its output did not come: a part of it may be missing"
            self.missed = "; ".join(filter(None, (self.missed, lost)))
            self._idle = True
            self._settle()

    @property
    def is_unanswered(self) -> bool:
        """True if the kernel is through with it and has not replied, as far as is known."""
        is_known = self.interrupted or self.is_reply_due
        return is_known and self._idle and self.reply is None and not self.done.done()

    def settle_without_reply(self) -> None:
        """End a cell without a reply, which can no longer come.

        ipykernel sends none where an interrupt finds it in its own code, shortly before the cell's or after it.
        """
        if self.is_unanswered:
            self.reply = {}
            if not self.interrupted:
                words = "the kernel ended the cell without a reply, as when another front end interrupts it"
                self.finish("interrupted", words)
            self._settle()

    def _settle(self) -> None:
        if self.reply is None or not self._idle:
            return
        status = self.reply.get("status")
        self._show_pages(self.reply)
        name = str(self.reply.get("ename", ""))
        if status == "ok":
            self.finish("ok")
        elif status == "aborted" or (status == "error" and not self.started_at and not name):
            self._aborted()
        elif name == NO_INPUT or (self.wants_input and self.interrupted):
            self.finish("input", "the cell asked for input, and there was nobody to ask; give --answer TEXT or --stdin")
        elif name == "KeyboardInterrupt" or self.interrupted:  # by another front end, or here: %%bash ends otherwise
            self.finish("interrupted", "the cell was interrupted")
        elif name == "SystemExit" and self.script:
            self.exit_script(str(self.reply.get("evalue", "")))
        else:
            self.finish("error")

    def exit_script(self, value: str) -> None:
        """End a script that has ended by a SystemExit of this text, as the Python interpreter would."""
        status = _exit_status(value)
        if status is None:
            self.emit(Stream("stderr", f"{value}\n"))
            status = 1
        if status:
            self.finish("error", f"the script ended with exit status {status}", status)
        else:
            self.finish("ok")

    def _show_pages(self, reply: dict[str, Any]) -> None:
        """Show what `?` and `%page` give, which comes with the reply: JupyterLab shows it with the cell, too."""
        for one in payloads(reply, "page") if not self.done.done() else ():
            if isinstance(one.get("data"), dict):
                self.emit(Display(one["data"], {}))

    def _aborted(self) -> None:
        """Send it again, which is safe: it has not begun. Often, for the other client may fail again meanwhile."""
        if self.resend and not self.started_at and not self.interrupted and self._resends < _RESENDS:
            self.reply, self._idle = None, False
            self._answered.clear()
            asyncio.get_running_loop().call_later(min(0.02 * self._resends, _LONGEST_PAUSE_SECONDS), self._send_again)
            self._resends += 1
        else:
            self.finish("aborted", "it never ran: the kernel dropped what waited when a cell of another client failed")

    def _send_again(self) -> None:
        if self.resend and not self.done.done():
            self.resend()

    def finish(self, verdict: str, message: str = "", exit_status: int | None = None) -> None:
        """End the cell with this verdict. Idempotent: the first one counts."""
        if self.done.done():
            return
        if self.lost_because:
            verdict, message, exit_status = "lost", self.lost_because, None
        now = time.time()
        if self._is_away and verdict != "lost":  # what ended it came through the connection
            self._is_away = False
            self.emit(Back(now))
        if verdict == "ok" and self._shown_error:  # by %run, say: the kernel does not count it as the cell's
            message = f"an error was shown ({self._shown_error}), though the cell itself ended well"
        done = Done(
            verdict,
            now,
            "; ".join(filter(None, (message, self.missed))),
            round(now - self.started_at, 6) if self.started_at else 0.0,
            self.execution_count,
            self.generation,
            exit_status,
        )
        self.emit(done)
        self.done.set_result(done)
        self._begun.set()
        self._answered.set()


async def _comes(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    return event.is_set()


def payloads(reply: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Return what an execute_reply has of this source for its front end."""
    found = reply.get("payload")
    found = found if isinstance(found, list) else []
    return [one for one in found if isinstance(one, dict) and one.get("source") == source]


def read_output(message: Message) -> Event | None:
    """Return what a message of iopub tells about its cell; None for what does not concern it."""
    kind, content = message.kind, message.content
    if kind == "stream":
        return Stream(str(content["name"]), str(content["text"]))
    if kind in ("display_data", "execute_result"):
        metadata = dict(content.get("metadata") or {})
        return Display(_data(message), metadata, display_id(content), kind == "execute_result")
    if kind == "update_display_data":
        identity = str((content.get("transient") or {}).get("display_id") or "")
        return Update(identity, _data(message), dict(content.get("metadata") or {}))
    if kind == "clear_output":
        return Clear(bool(content.get("wait")))
    if kind == "error":
        return Error(str(content["ename"]), str(content["evalue"]), tuple(map(str, content.get("traceback") or ())))
    return None


def stream_line(raw: bytes) -> Line | None:
    """Return a stream message's content as an event's line: 50 MB of text are neither encoded again nor copied."""
    if raw.startswith(b'{"') and b"\n" not in raw:
        return b'{"event": "stream", ', memoryview(raw)[1:], b"\n"
    return None


def _data(message: Message) -> dict[str, Any]:
    data = dict(message.content.get("data") or {})
    if message.buffers:  # JSON carries no bytes; nobody but a widget's front end reads them
        data["application/vnd.remote-kernel.buffers+json"] = [
            base64.b64encode(bytes(buffer)).decode() for buffer in message.buffers
        ]
    return data


def script_metadata(script: Sequence[str], record: Record) -> dict[str, Any]:
    """Return what the kernel has to know of a script, in the metadata of its cell; see Script in kernel_side.py.

    `script` is the file's path on this machine, and then sys.argv. For a kernel of this machine `__file__` is that
    path. On another the file is taken to lie below the kernel's folder as it lies here below the session's, unless
    only the same path exists there.
    """
    path, *argv = script
    below = os.path.relpath(path, record.cwd)
    if below.startswith(os.pardir):
        below = os.path.basename(path)
    return {"argv": argv, "here": path, "below": below, "is_here": not record.host and not record.is_attached}


def _exit_status(value: str) -> int | None:
    """Return the exit status that Python makes of a SystemExit with this text; None for a message, which means 1."""
    if value in _NO_NUMBERS:
        return _NO_NUMBERS[value]
    return int(value) & 0xFF if value.removeprefix("-").isdecimal() else None
