"""Write what the cells of a notebook run give into the run's copy of the notebook.

The host does it, after each cell: the copy gets the whole of a cell that nobody waits for any longer. What somebody
else has written to the copy meanwhile stays, but for these cells' outputs. A file beside the first cell's journal says
which copy it is, until all of it is written: the session's next host goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from remote_kernel.files import write_private
from remote_kernel.session.events import Done, Event, Started, Update, read_done, read_journal
from remote_kernel.session.host import host_log
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.notebook.file import NotebookFile
from remote_kernel.session.notebook.nbformat import (
    NotANotebook,
    NotebookError,
    encode_cell,
    encode_notebook,
    execution_times,
    parse_notebook,
)
from remote_kernel.session.notebook.outputs import Outputs
from remote_kernel.session.paths import Paths
from remote_kernel.session.questions import CopyState

_SETTLE_SECONDS, _LOOK_SECONDS = 1.0, 0.05  # for somebody else who writes into the file to come to the end of it


class ExecutedCopy:
    """The copy at `path`. `ids` are its cells' ids by the numbers that the cells have in the session."""

    def __init__(self, path: str, ids: Mapping[str, str]) -> None:
        self.path, self.ids = path, ids
        self._outputs: dict[str, Outputs] = {}
        self._times: dict[str, dict[str, str]] = {}

    @property
    def is_complete(self) -> bool:
        """True if every cell has ended."""
        return len(self._outputs) == len(self.ids)

    def add(self, number: str, events: Iterable[Event]) -> None:
        """Add all that a cell has given; updates of what earlier cells have displayed go to those."""
        outputs = self._outputs[number] = Outputs()
        started = None
        for event in events:
            if isinstance(event, Started):
                started = event.at
            elif isinstance(event, Done) and started:
                self._times[number] = execution_times(started, event.at)
            if isinstance(event, Update):
                for each in self._outputs.values():
                    each.update(event)
            else:
                outputs.add(event)

    def forget(self) -> None:
        """Forget what was added: all of it is written."""
        self._outputs.clear()
        self._times.clear()

    def write(self) -> None:
        """Write what was added into the file. Raises NotebookError."""
        file = NotebookFile(self.path)
        deadline = time.monotonic() + _SETTLE_SECONDS
        try:
            while True:
                data, stamp = file.read()
                if stamp is None:
                    raise NotebookError(f"{self.path} is gone")
                file.accept(stamp)
                try:
                    document = parse_notebook(data)
                except NotANotebook:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_LOOK_SECONDS)
                    continue
                self._fill(document)
                if file.replace(encode_notebook(map(encode_cell, document["cells"]), document)):
                    return
        except OSError as error:
            raise NotebookError(f"cannot write {self.path}: {error.strerror}") from error
        except NotANotebook as error:
            raise NotebookError(f"cannot write into {self.path}: {error}") from error
        finally:
            file.release()

    def _fill(self, document: dict[str, Any]) -> None:
        cells = {cell["id"]: cell for cell in document["cells"]}
        for number, outputs in self._outputs.items():
            if cell := cells.get(self.ids[number]):
                cell |= {"outputs": outputs.as_list(), "execution_count": outputs.execution_count}
                if times := self._times.get(number):
                    cell["metadata"]["execution"] = times


class Copies:
    """The copies that one session's host has to write, by the numbers of their runs."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._copies: dict[str, ExecutedCopy] = {}
        self._trouble: dict[str, str] = {}
        self._last: dict[str, asyncio.Task[None]] = {}  # what was written last, or is being

    def begin(self, run: str, path: str, ids: Mapping[str, str]) -> None:
        """Remember a run's copy, which is there, with no outputs yet."""
        with contextlib.suppress(OSError):  # a full disk: the next host would not know of it
            write_private(self._path(run), json.dumps({"path": path, "cells": dict(ids)}))
        self._copies[run] = ExecutedCopy(path, ids)

    def restore(self) -> None:
        """Continue the copies of an earlier host, from what their cells have given. Called once, in the loop."""
        for name in os.listdir(self._paths.cells):
            run, _, kind = name.partition(".")
            if kind != "copy":
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(self._path(run)) as file:
                fields = json.load(file)
                self._copies[run] = ExecutedCopy(str(fields["path"]), dict(fields["cells"]))
                self._write_next(run, list(fields["cells"]))

    def watch(self, cell: Cell) -> None:
        """Write what a cell gives into its run's copy, if it has one, when the cell has ended."""
        if cell.run in self._copies:
            cell.done.add_done_callback(lambda _: self._write_next(cell.run, [cell.number]))

    async def written(self, number: str) -> CopyState:
        """Wait until what has ended of this cell's run is written, and return where, and what went wrong."""
        for run, copy in self._copies.items():
            if number in copy.ids:
                if run in self._last:
                    await asyncio.wait({self._last[run]})
                return CopyState(copy.path, self._trouble.get(run, ""))
        return CopyState()

    async def settle(self, seconds: float) -> None:
        """Wait that long at most for everything to be written."""
        if self._last:
            await asyncio.wait(set(self._last.values()), timeout=seconds)

    def _write_next(self, run: str, numbers: Iterable[str]) -> None:
        before = self._last.get(run)
        self._last[run] = asyncio.ensure_future(self._write(run, numbers, before))

    async def _write(self, run: str, numbers: Iterable[str], before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait({before})
        copy = self._copies[run]
        try:
            await asyncio.get_running_loop().run_in_executor(None, partial(self._add, copy, numbers))
            self._trouble.pop(run, None)
        except NotebookError as error:
            self._trouble[run] = error.message
            host_log.write(f"the copy of a notebook: {error.message}")
        except Exception as error:  # the top of a task
            self._trouble[run] = f"cannot write {copy.path}: unexpected {error!r}"
            host_log.write(self._trouble[run])
        if copy.is_complete and run not in self._trouble:
            copy.forget()
            with contextlib.suppress(OSError):
                os.unlink(self._path(run))

    def _add(self, copy: ExecutedCopy, numbers: Iterable[str]) -> None:
        for number in numbers:
            path = self._paths.journal(number)
            with contextlib.suppress(OSError):  # it is gone, or was never written
                if read_done(path):
                    copy.add(number, read_journal(path))
        copy.write()

    def _path(self, run: str) -> str:
        return os.path.join(self._paths.cells, f"{run}.copy")
