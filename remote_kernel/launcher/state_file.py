"""Write whether a kernel's host is connected into a file of one line, for whoever started the launcher.

A front end sees a slow network, never a broken one, and that is right for people. A program that answers for what
became of a cell wants to know: it names a file in REMOTE_KERNEL_STATE_FILE, and finds in it, as JSON, since when the
connection is there or away, and why. It finds there too which kernel that is, for as long as it is not known to have
ended: should the launcher be killed, another one, with SUCCEEDS in its environment, goes on with it.
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

from remote_kernel.files import write_private

VARIABLE = "REMOTE_KERNEL_STATE_FILE"
SUCCEEDS = "REMOTE_KERNEL_SUCCEEDS"  # the `kernel` of the killed launcher's file


class LauncherState(NamedTuple):
    """What a launcher tells: whether the host is connected, since when (Unix time, seconds), and if not, why.

    `kernel` is its id and that of the launcher's Link, with a space between; empty once it has ended. Then: how much
    memory it held at most, and whether its system has killed for want of it. `is_whole` is true where a launcher that
    took the place of a killed one has got all that the kernel published meanwhile.
    """

    connected: bool
    at: float = 0.0
    reason: str = ""
    peak_bytes: int = 0
    out_of_memory: bool = False
    kernel: str = ""
    is_whole: bool = False


def write_state(state: LauncherState) -> None:
    """Write the file, whole or not at all, if somebody has asked for it; an `at` of 0.0 stands for now.

    Nothing that goes wrong stops a kernel.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    try:
        write_private(path, json.dumps(state._replace(at=state.at or time.time())._asdict()))
    except OSError:
        pass


def read_state(path: str) -> LauncherState | None:
    """Read the file; None where there is none, as with a kernel on this machine."""
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        return LauncherState(**{name: fields[name] for name in LauncherState._fields if name in fields})
    except (OSError, ValueError, TypeError, KeyError):
        return None
