"""Track who is there to be asked when a cell calls input(): the clients that follow it and have said so.

When the last of them leaves, a cell that waits for a line ends as `input`. A change of hosts cuts them off, and each
comes again: at once, or when somebody has typed what the cell has asked for.

Answers that came with a cell's request are kept for the next host in a file (0600) beside the cell's journal, and not
in it: one may be a password, and clients get the journal. The file goes when the cell has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence

from remote_kernel.files import write_private
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.paths import Paths

_RETURN_SECONDS = 20.0  # for a client to find the next host: its own pauses, and a slow machine's


class InputClients:
    """The clients that answer, of all cells of one host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._there: Counter[Cell] = Counter()

    async def listen(self, cell: Cell, reader: asyncio.StreamReader) -> None:
        """Pass on one client's answers until it leaves."""
        self._there[cell] += 1
        cell.asks = cell.allow_stdin
        with contextlib.suppress(ValueError, KeyError, ConnectionError):
            while line := await reader.readline():
                text = str(json.loads(line)["text"])
                if cell.wants_input:
                    await self._engine.answer_input(cell, text)
        self._there[cell] -= 1
        await self._check_any_left(cell)

    async def wait_for_return(self, cell: Cell) -> None:
        """Wait for those to come again who followed an earlier host's cell; of one that waits for a line, for ever."""
        if not cell.wants_input:
            await asyncio.wait({cell.done}, timeout=_RETURN_SECONDS)
            await self._check_any_left(cell)

    async def _check_any_left(self, cell: Cell) -> None:
        if self._there[cell] > 0:
            return
        del self._there[cell]
        if cell.asks and not cell.done.done():
            cell.asks = False
            if cell.wants_input:
                await self._engine.refuse_input(cell)


def keep_answers(paths: Paths, cell: str, answers: Sequence[str]) -> None:
    """Write down a cell's answers. On a full disk only this host has them."""
    with contextlib.suppress(OSError):
        write_private(_path(paths, cell), json.dumps(list(answers)))


def kept_answers(paths: Paths, cell: str) -> list[str]:
    """Return a cell's answers, those that it has got too; nothing where none are kept."""
    try:
        with open(_path(paths, cell), encoding="utf-8") as file:
            return [str(text) for text in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def drop_answers(paths: Paths, cell: str) -> None:
    """Remove a cell's answers. Idempotent."""
    with contextlib.suppress(OSError):
        os.unlink(_path(paths, cell))


def _path(paths: Paths, cell: str) -> str:
    return os.path.join(paths.cells, f"{cell}.answers")
