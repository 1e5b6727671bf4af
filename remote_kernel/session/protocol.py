"""Define what a session's host and its clients say to each other: lines of JSON on the host's Unix socket.

A client sends one request, `{"protocol": 1, "do": ..., ...}`, and gets lines back:

    execute, follow       {"host": {...}}, then the cell's events (events.py) up to Done
    everything else       {"answer": ...}
    what cannot be done   {"problem": {"error": class, "message": ..., "hint": ..., "status": ...}}

While a cell waits for input, `{"do": "answer", "text": ...}` answers, on a connection that follows it with
`"asks": true`. Here are the requests that run cells; those that ask for something else are in questions.py.

A host of before talks to a client of now, and the other way round: fields are only ever added, each with a default.

Imports little, for `rkernel exec`: hence no dataclasses, which take longer to load than all of this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from remote_kernel.errors import RemoteKernelError, UsageError, by_name
from remote_kernel.session.events import VERSION

REQUEST_BYTES = 64 << 20  # of a request, with the code in it
_T = TypeVar("_T")


class RequestTooLong(UsageError):
    """A request, with the code of its cell, has more than REQUEST_BYTES."""

    def __init__(self) -> None:
        super().__init__(
            f"a cell has {REQUEST_BYTES >> 20} MB at most, and this one has more",
            "bring data to the kernel's host as a file, with 'remote_kernel sync', and read it there",
        )


class Request(NamedTuple):
    """How a cell is to be run: `execute`.

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


class RunningCell(NamedTuple):
    """A cell that runs: the begin of its code, who sent it, and since when it runs (Unix time, 0.0: not yet)."""

    cell: str
    code: str = ""
    author: str = ""
    since: float = 0.0


class Follow(NamedTuple):
    """Send a cell's events from the byte `since` of its journal on: `follow`. With `asks` this client can be asked."""

    cell: str
    since: int = 0
    asks: bool = False


class Following(NamedTuple):
    """The answer that precedes a cell's events; `version` is the host's, `end` the size of the cell's journal in bytes.

    `ended` is true where the cell was over when the request came.
    """

    cell: str
    generation: int
    version: str
    end: int = 0
    ended: bool = False


# What the objects within these fields are.
_NESTED = {"cells": NotebookCell, "running": RunningCell, "interrupted": RunningCell}


def encode(value: Any) -> Any:
    """Return a request or an answer as JSON has it; one that has `to_json` says so itself."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "_asdict"):
        return {name: encode(field) for name, field in value._asdict().items()}
    return [encode(each) for each in value] if isinstance(value, (list, tuple)) else value


def decode(kind: type[_T], fields: Mapping[str, Any]) -> _T:
    """Return the request or the answer that JSON holds. Fields that are unknown here are left out.

    Raises ValueError, TypeError or AttributeError where it makes no sense.
    """
    named: Any = kind
    given: dict[str, Any] = {}
    for name in named._fields:
        if (value := fields.get(name)) is not None:
            default, nested = named._field_defaults.get(name), _NESTED.get(name)
            if isinstance(value, list):
                value = tuple(decode(nested, each) if nested and isinstance(each, dict) else each for each in value)
            elif nested and isinstance(value, dict):
                value = decode(nested, value)
            given[name] = value if default is None else type(default)(value)
    made: _T = named(**given)
    return made


def request_line(do: str, request: Any = None) -> bytes:
    """Return a request as one line. Raises RequestTooLong, and UsageError for half a character."""
    return to_line({"protocol": VERSION, "do": do, **(encode(request) if request else {})})


def to_line(fields: Mapping[str, Any]) -> bytes:
    """Return what a client sends as one line. Raises RequestTooLong, and UsageError for half a character."""
    try:
        line = (json.dumps(fields, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise UsageError(f"the text to send has half a character, U+{half:04X}", "give valid text") from error
    if len(line) > REQUEST_BYTES:
        raise RequestTooLong
    return line


def encode_problem(error: RemoteKernelError) -> dict[str, object]:
    """Return what tells a client of an error."""
    return {
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "status": error.exit_status,
    }


def decode_problem(fields: Mapping[str, Any]) -> RemoteKernelError:
    """Return the error that a host has reported."""
    error = by_name(str(fields["error"]), str(fields["message"]), str(fields["hint"]))
    error.exit_status = int(fields["status"])
    return error
