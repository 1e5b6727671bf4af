"""Define what a session's host is asked beside running a cell, and what it answers; see protocol.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from remote_kernel.session.protocol import NotebookCell, RunningCell


class AskStatus(NamedTuple):
    """Ask what the session does. With `memory` the kernel is asked how much it uses now."""

    memory: bool = False


class SessionStatus(NamedTuple):
    """A session and its kernel.

    `state` is `idle`, `busy`, `dead`, or `unknown` where the kernel may be alive and cannot be reached. `connected` is
    None for a kernel of this machine; `away_for` says why it is not. `trouble` is why the next cell will not run,
    `log_trouble` why the notebook lacks something; both empty where all is well. `version` is the host's.
    """

    session: str
    version: str = ""
    kernelspec: str = ""
    display_name: str = ""
    language: str = ""
    host: str = ""
    folder: str = ""
    state: str = "unknown"
    connected: bool | None = None
    away_for: str = ""
    trouble: str = ""
    generation: int = 1
    memory_bytes: int = 0
    running: RunningCell | None = None
    queued: Sequence[str] = ()
    log: str = ""
    log_trouble: str = ""
    connection_file: str = ""
    since: float = 0.0
    pid: int = 0
    attached: bool = False


class Interrupt(NamedTuple):
    """Interrupt a cell, or what runs where none is named; one that waits is taken out of the queue, with `all` each."""

    cell: str = ""
    all: bool = False


class Interrupted(NamedTuple):
    """The effect of an interrupt: whether what it was for has ended, and the numbers of cells that were in the queue.

    `ended` is true for a cell that was over before, `idle` where nothing ran.
    """

    stopped: bool
    dropped: Sequence[str] = ()
    interrupted: RunningCell | None = None
    ended: bool = False
    idle: bool = False


class Restart(NamedTuple):
    """End the kernel and start the next one."""


class Restarted(NamedTuple):
    """The number of the next kernel, and the names of the earlier one's child processes that had to be killed."""

    generation: int
    killed: Sequence[str] = ()


class Close(NamedTuple):
    """End the kernel and the host."""


class Closed(NamedTuple):
    """Why the notebook lacks something, empty where it does not, and the names of child processes that were killed."""

    log_trouble: str = ""
    killed: Sequence[str] = ()


class Leave(NamedTuple):
    """End the host; the kernel lives on."""


class ListVariables(NamedTuple):
    """List the variables whose names match the pattern (`*` and `?`; empty for all)."""

    pattern: str = ""


class Variable(NamedTuple):
    """A variable of a Python kernel; what is not known without running code of the user's is None."""

    name: str
    type: str = ""
    shape: Sequence[int] | None = None
    length: int | None = None
    dtype: str | None = None
    device: str | None = None
    value: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return {name: field for name, field in self._asdict().items() if field is not None}


class Inspect(NamedTuple):
    """Ask what the kernel knows about a name: with `detail` 1 the source too."""

    name: str
    detail: int = 0


class Inspection(NamedTuple):
    """A kernel's knowledge about a name, by MIME type; as in Jupyter's inspect_reply."""

    found: bool = False
    data: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    status: str = "ok"


class Complete(NamedTuple):
    """Ask for completions of `code` at this character, by default at its end."""

    code: str
    at: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return {name: field for name, field in self._asdict().items() if field is not None}


class Completions(NamedTuple):
    """Completions of what stands between two characters; as in Jupyter's complete_reply."""

    matches: Sequence[str] = ()
    cursor_start: int = 0
    cursor_end: int = 0
    metadata: Mapping[str, Any] = {}
    status: str = "ok"


class RunNotebook(NamedTuple):
    """How the cells of a notebook are to be run: `run`, answered by RunTaken.

    The fields of Request mean the same, for all the cells. What they give goes into the notebook at `copy` too, empty
    for none. With `only_known` nothing runs, and only a run that was sent with the key before has numbers.
    """

    cells: Sequence[NotebookCell]
    copy: str = ""
    only_known: bool = False
    author: str = ""
    key: str = ""
    side: bool = False
    answers: Sequence[str] = ()
    asks: bool = False
    generation: int = 0


class RunTaken(NamedTuple):
    """The numbers of a notebook run's cells."""

    cells: Sequence[str]
    generation: int = 1


class AskCopy(NamedTuple):
    """Ask for the copy of the notebook that this cell belongs to, once what has ended of it is written."""

    cell: str


class CopyState(NamedTuple):
    """Where that copy is, and why it lacks something; both empty for a cell that goes into no copy."""

    path: str = ""
    trouble: str = ""
