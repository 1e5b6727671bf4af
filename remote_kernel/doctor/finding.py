"""What the doctor finds at one step."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from remote_kernel.errors import RemoteKernelError

# Every step, in the order in which a kernel's start comes to it.
STEPS = (
    *("ssh", "config", "name", "reach", "host key", "login", "shell", "init", "python", "ipykernel", "folder"),
    *("sockets", "disk", "logout", "clock", "sessions", "forward", "kernel", "cell", "vs code"),
)


NOT_REACHED = "not reached"


class State(Enum):
    """How a step is: a warning keeps no kernel from starting, and what is unknown could not be told."""

    OK = "ok"
    FAILED = "failed"
    WARNING = "warning"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One step: what was seen, what to do about it, and the seconds that it took; None is for whoever sees it end.

    `error` is the kind of a step that failed, in the tree of remote_kernel.errors.
    """

    step: str
    state: State
    text: str
    hint: str = ""
    seconds: float | None = None
    error: type[RemoteKernelError] | None = None


def failed(step: str, error: RemoteKernelError, seconds: float | None = None) -> Finding:
    """Return the finding for a step that raised this."""
    return Finding(step, State.FAILED, error.message, error.hint, seconds, type(error))


def ok(step: str, text: str, seconds: float | None = None) -> Finding:
    """Return the finding for a step that is as it should be."""
    return Finding(step, State.OK, text, "", seconds)


def warning(step: str, text: str, hint: str) -> Finding:
    """Return the finding for something that will not keep a kernel from starting."""
    return Finding(step, State.WARNING, text, hint)


def unknown(step: str, text: str, hint: str = "") -> Finding:
    """Return the finding for a step that cannot be told."""
    return Finding(step, State.UNKNOWN, text, hint)
