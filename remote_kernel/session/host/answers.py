"""Keep what input() is to get in a cell where the session's next host finds it, and no client: it may be a password.

A file (0600) beside the cell's journal, which clients get; it goes when the cell has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from remote_kernel.files import write_private
from remote_kernel.session.paths import Place


def keep_answers(place: Place, cell: str, answers: Sequence[str]) -> None:
    """Write a cell's answers down. On a full disk only this host has them."""
    with contextlib.suppress(OSError):
        write_private(_path(place, cell), json.dumps(list(answers)))


def kept_answers(place: Place, cell: str) -> list[str]:
    """Give a cell's answers, those that it has got too; nothing where none are kept."""
    try:
        with open(_path(place, cell), encoding="utf-8") as file:
            return [str(text) for text in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def drop_answers(place: Place, cell: str) -> None:
    """Remove a cell's answers. Idempotent."""
    with contextlib.suppress(OSError):
        os.unlink(_path(place, cell))


def _path(place: Place, cell: str) -> str:
    return os.path.join(place.cells, f"{cell}.answers")
