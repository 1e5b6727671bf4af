"""Remember that a server cannot be reached, for the launchers that start meanwhile.

A restart in the front end during an outage starts a launcher that knows nothing of it. Where another one has lost its
connection to the same server, the new one tries for a while before it fails; anywhere else an error is told at once.
"""

from __future__ import annotations

import os
import time

from remote_kernel.errors import (
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    JumpHostFailed,
    RemoteKernelError,
    TransportError,
    UnknownHost,
)
from remote_kernel.files import leave_note, note_path
from remote_kernel.options import LaunchOptions

_LONGEST_SECONDS = 24 * 3600.0  # after which a note says nothing: nobody was there to remove it
_OF_AN_OUTAGE = {UnknownHost, ConnectionRefused, ConnectTimeout, JumpHostFailed, ConnectionLost, TransportError}


def begin(options: LaunchOptions) -> None:
    """Remember that the connection was lost."""
    leave_note("outage", options, "")


def end(options: LaunchOptions) -> None:
    """Forget it: the server answers. Idempotent."""
    try:
        os.unlink(note_path("outage", options))
    except OSError:
        pass


def explains(options: LaunchOptions, error: RemoteKernelError) -> bool:
    """Whether the server was out of reach lately, and this error may be due to that and pass with it."""
    try:
        age = time.time() - os.stat(note_path("outage", options)).st_mtime
    except OSError:
        return False
    return type(error) in _OF_AN_OUTAGE and age < _LONGEST_SECONDS
