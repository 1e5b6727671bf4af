"""Run a file's code as `python FILE ARGUMENTS` would: its arguments, its folder, and its exit status.

What a Python kernel needs for it goes there with the code, which stays as it is; kernel_side.py makes use of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from remote_kernel.session.record import Record

# What Python makes of a SystemExit that holds no number: it is known here by its text only.
_NO_NUMBERS = {"": 0, "None": 0, "False": 0, "True": 1}


def about(script: Sequence[str], record: Record) -> dict[str, Any]:
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


def exit_status(value: str) -> int | None:
    """Return the exit status that Python makes of a SystemExit with this text; None for a message, which means 1."""
    if value in _NO_NUMBERS:
        return _NO_NUMBERS[value]
    return int(value) & 0xFF if value.removeprefix("-").isdecimal() else None
