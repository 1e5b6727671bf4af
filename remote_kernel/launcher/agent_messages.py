"""Read what an agent tells its launcher on the Link's control stream into types: nothing else of it is believed.

`remote.agent` lists the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from remote_kernel.errors import RemoteKernelError, by_name
from remote_kernel.options import print_size
from remote_kernel.typed_json import list_of, row, text, whole


class KernelStarted(NamedTuple):
    """The kernel's process. `connection` and `settings` are for a launcher that resumes it."""

    pid: int
    host: str
    folder: str
    connection: dict[str, Any]
    settings: dict[str, Any] | None
    warning: str = ""


class KernelReady(NamedTuple):
    """Its sockets are up, so long after the start."""

    seconds: float


class KernelEnded(NamedTuple):
    """The kernel has ended: `status` is negative for a signal, `why` says who ended it.

    `output_ends` are the lengths of its whole stdout and stderr, `stderr` the end of that. `ready` where it had been.
    """

    output_ends: tuple[int, int]
    status: int
    ready: bool
    stderr: str
    why: str
    peak_bytes: int = 0
    out_of_memory: bool = False


class _Overflow(NamedTuple):
    number: int
    exact: bool
    disk: bool


class _Discarded(NamedTuple):
    number: int
    messages: int
    bytes: int


def started(message: Mapping[str, Any]) -> KernelStarted:
    """Return what `started` tells. Raises MALFORMED."""
    connection, settings = message.get("connection", {}), message.get("settings")
    if not isinstance(connection, dict) or not isinstance(settings, (dict, type(None))):
        raise TypeError("no objects")
    return row(KernelStarted, message, connection=connection, settings=settings)


def ready(message: Mapping[str, Any]) -> KernelReady:
    """Return what `ready` tells. Raises MALFORMED."""
    return row(KernelReady, message)


def ended(message: Mapping[str, Any]) -> KernelEnded:
    """Return what `ended` tells. Raises MALFORMED."""
    stdout_end, stderr_end = list_of(whole, message["output_ends"])
    found = row(KernelEnded, message, output_ends=(stdout_end, stderr_end))
    if not -64 <= found.status <= 255:
        raise ValueError("no exit status")
    return found


def failed(message: Mapping[str, Any]) -> RemoteKernelError:
    """Return the error that `failed` tells of. Raises MALFORMED."""
    return by_name(text(message["error"]), text(message["message"]), text(message["hint"]))


def loss(message: Mapping[str, Any], spool_bytes: int) -> str:
    """Return what `overflow` and `discarded` say is missing of the kernel's output, or may be. Raises MALFORMED."""
    where = f"on iopub connection {whole(message['number'])}"
    if message["event"] == "discarded":
        gone = row(_Discarded, message)
        size = gone.bytes / (1 << 20)
        return f"{gone.messages} messages ({size:.1f} MiB) of the kernel's output were discarded {where}"
    over = row(_Overflow, message)
    full = "the remote disk is full" if over.disk else f"--spool {print_size(spool_bytes)} is full"
    if not over.exact:
        return f"{full} {where}: output may be missing from now on until there is room"
    return f"{full} {where}: output is discarded until there is room, all but errors and results"
