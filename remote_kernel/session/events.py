"""Define what happens to a cell, in the words that the host, its clients and the notebook log share.

A cell's life is a list of events: Queued, Sent, Started, then what it gives in the order in which it came, then one
Done, after which nothing follows. The host writes each as one line of JSON to the cell's journal and to whoever
follows the cell; a client that comes later reads the same lines from the journal. One message of the kernel is one
event.

Imports little: `rkernel exec` reads these in a process of some ten milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Union

VERSION = 1  # of these lines, and of what a host and its clients say to each other

# What became of a cell, and the exit status of the command that waited for it.
VERDICTS = {
    "ok": 0,
    "error": 1,  # an exception
    "lost": 4,  # the kernel died, was restarted, or is not the one that was asked for: its state is gone
    "aborted": 5,  # it never ran: another client's cell failed, or it was taken out of the queue
    "away": 6,  # the connection is away; the cell goes on
    "input": 7,  # it asked for input, and there was nobody to ask
    "running": 124,  # nobody waits for it any longer; the cell goes on
    "interrupted": 130,
}


class Queued(NamedTuple):
    """The host has taken the cell; `ahead` others run first. `at` is Unix time in seconds, here as everywhere.

    `author` is who sent it, and `key` what keeps a repeated request from running it twice, empty for none. `side` is
    true for one that runs beside the others. `only` is the only kernel of the session that it may run in, 0 for any.
    `asks` is true where a client is there to be asked for what input() gets. `script` is the path on this machine of a
    file that is run as a script, and its sys.argv; empty for other code. `run` is the number of the first cell of the
    notebook run that this one belongs to, empty for none: their numbers follow each other, and a cell runs only if the
    one before it ended well, or failed and `may_fail`.
    """

    cell: str
    at: float
    ahead: int = 0
    code: str = ""
    author: str = ""
    key: str = ""
    side: bool = False
    only: int = 0
    asks: bool = False
    script: tuple[str, ...] = ()
    run: str = ""
    may_fail: bool = False


class Sent(NamedTuple):
    """The cell goes to the kernel: from here on it is sent again only where the kernel says that it never began."""

    at: float


class Started(NamedTuple):
    """The kernel has begun. `execution_count` is a notebook's `[n]`; `generation` counts the session's kernels."""

    at: float
    execution_count: int | None = None
    generation: int = 1


class Stream(NamedTuple):
    """Text on `stdout` or `stderr`, as it came: with control sequences, and in pieces that end anywhere."""

    name: str
    text: str


class Display(NamedTuple):
    """Something shown: `data` by MIME type, as in Jupyter's messages.

    `result` is true for the value of the cell's last expression; `id` is the display id, empty where it has none.
    """

    data: dict[str, Any]
    metadata: dict[str, Any]
    id: str = ""
    result: bool = False


class Update(NamedTuple):
    """New data for every output shown before with this display id, also by other cells."""

    id: str
    data: dict[str, Any]
    metadata: dict[str, Any]


class Clear(NamedTuple):
    """Remove what the cell has shown so far: at once, or with `wait` when the next output comes."""

    wait: bool = False


class Error(NamedTuple):
    """An exception: its class, its text, and the traceback as the kernel wrote it, with colours."""

    name: str
    value: str
    traceback: tuple[str, ...] = ()


class InputWanted(NamedTuple):
    """The cell waits for a line of text; `password` is true where it should not be shown."""

    prompt: str
    password: bool = False


class Answered(NamedTuple):
    """The cell has asked for a line of text, and got it: from a client, or the next of those that came with it."""

    prompt: str


class Away(NamedTuple):
    """The connection to the kernel's host is lost; the cell goes on there."""

    at: float
    reason: str = ""


class Back(NamedTuple):
    """The connection is there again."""

    at: float


class Done(NamedTuple):
    """The end. `verdict` is a key of VERDICTS, and never `away` or `running` in a journal.

    `message` is a sentence for people, empty where there is nothing to add; `seconds` is how long the cell ran.
    `exit_status` is what a script has given to sys.exit, None where it has not.
    """

    verdict: str
    at: float
    message: str = ""
    seconds: float = 0.0
    execution_count: int | None = None
    generation: int = 1
    exit_status: int | None = None

    @property
    def status(self) -> int:
        """The exit status of a command that waited for the cell."""
        if self.exit_status is not None:
            return self.exit_status
        return VERDICTS.get(self.verdict, 1)


Event = Union[Queued, Sent, Started, Stream, Display, Update, Clear, Error, InputWanted, Answered, Away, Back, Done]  # noqa: UP007  at run time

Line = Sequence[Union[bytes, memoryview]]  # noqa: UP007  an event's line of JSON, in parts


_KINDS: dict[str, Any] = {
    "queued": Queued,
    "sent": Sent,
    "started": Started,
    "stream": Stream,
    "display": Display,
    "update": Update,
    "clear": Clear,
    "error": Error,
    "input": InputWanted,
    "answered": Answered,
    "away": Away,
    "back": Back,
    "done": Done,
}
_MISSING = object()
_TAIL_BYTES = 1 << 16
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_line(event: Event) -> bytes:
    """Return the event as one line of JSON, its line end included: `{"event": "stream", "name": ...}`."""
    return (json.dumps(to_fields(event)) + "\n").encode()


def to_fields(event: Event) -> dict[str, Any]:
    """Return the object that the event's line holds."""
    return {"event": _NAMES[type(event)], **event._asdict()}


def from_fields(fields: dict[str, Any]) -> Event | None:
    """Return the event that a line's object holds; None for one that a newer version may know.

    Fields that are unknown here are left out, so that a host may say more than its client understands. Raises
    ValueError where a field is missing.
    """
    kind = _KINDS.get(str(fields.get("event")))
    if kind is None:
        return None
    known = {
        name: tuple(value) if isinstance(value, list) else value
        for name in kind._fields
        if (value := fields.get(name, _MISSING)) is not _MISSING
    }
    try:
        event: Event = kind(**known)
    except TypeError as error:
        raise ValueError(f"a line of {fields['event']} lacks a field: {error}") from error
    return event


def read_journal(path: str) -> Iterator[Event]:
    """Yield the events that a journal has; a half line at its end is left out. Raises OSError."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    event = from_fields(json.loads(line))
                    if event:
                        yield event


def read_done(path: str) -> Done | None:
    """Return the Done in which a journal ends, read without the rest; None for one that goes on. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    event = from_fields(json.loads(last)) if last.startswith(b'{"event": "done"') and last.endswith(b"}") else None
    return event if isinstance(event, Done) else None
