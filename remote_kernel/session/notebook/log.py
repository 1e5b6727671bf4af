"""Log a session to a notebook while it goes: what runs is there within a second, and a person may edit it meanwhile.

The log is a fold of the cells' events, as the journals have them. The host process adds them in its event loop; a
thread writes (see writer). The caller never waits for a disk: it holds the lock only to fold an event into a cell's
outputs. A version is written whole (see file), merged with what a person has made of the version before (see merge).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from remote_kernel.session.events import Display, Done, Event, Started, Stream, Update
from remote_kernel.session.notebook.merge import KEY, MergedNotebook
from remote_kernel.session.notebook.nbformat import execution_times, is_cell_id, iso
from remote_kernel.session.notebook.outputs import LIMIT_CHARACTERS, Outputs
from remote_kernel.session.notebook.writer import NotebookWriter

# Display ids that an update may still name. A cell that shows thousands of bars should not fill the memory for ever.
_DISPLAYS_KEPT = 10_000

# What a cell's threads may add after its end, as a part of its limit, and how many cells are remembered that have such.
_AFTER_SHARE = 10
_AFTER_KEPT = 100

# Verdicts after which the cell's outputs say what happened; the others' message is shown as an output.
_PLAIN = ("ok", "error", "interrupted")


class LogFacts(NamedTuple):
    """What the notebook says of the session.

    `kernel` is the kernelspec's name. `language_info` is that of the kernel's kernel_info_reply.
    """

    session: str
    host: str = ""
    kernel: str = ""
    display_name: str = ""
    language_info: dict[str, Any] = {"name": "python"}  # noqa: RUF012  nobody changes it


class _LoggedCell:
    """What is known of a cell."""

    def __init__(self, code: str, author: str, generation: int, at: float, outputs: Outputs) -> None:
        self.code, self.author, self.generation, self.at = code, author, generation, at
        self.outputs = outputs
        self.started: float | None = None
        self.done: Done | None = None


class NotebookLog(NotebookWriter):
    """The notebook at `path`. Use it as a context manager, or call `open` and `close`.

    `limit` is that of a cell's outputs, in characters; for `tell` see NotebookWriter.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        facts: LogFacts,
        tell: Callable[[str], None] = lambda sentence: None,
        *,
        limit: int = LIMIT_CHARACTERS,
    ) -> None:
        super().__init__(os.fspath(path), facts.session, tell)
        self._facts, self._limit = facts, limit
        # All of these are changed with the lock held.
        self._cells: dict[str, _LoggedCell] = {}  # those that run, or have ended and are not written yet
        self._touched: set[str] = set()  # cells to be written
        self._displays: dict[str, set[str]] = {}  # cells by display id
        self._late: dict[str, dict[str, Update]] = {}  # updates for cells that have ended, by cell and display id
        self._known: set[str] = set()  # every cell that was begun
        self._after: dict[str, Outputs] = {}  # what cells gave after their end

    def open(self) -> None:
        """Read what is there, as NotebookWriter does; its cells of this session may get more outputs."""
        super().open()
        self._known.update(self.found)

    def begin(
        self,
        cell_id: str,
        code: str,
        author: str = "",
        generation: int = 1,
        at: float | None = None,
        *,
        whole: str = "",
    ) -> None:
        """Add a cell that runs now, or that the kernel is about to run. `at` is Unix time in seconds.

        `author` is empty for a cell of our own, and otherwise says which other front end ran it. `whole` is where all
        of its output is, for the note that stands for what is left out of the notebook. A cell of this id that the
        notebook has already, from an earlier host process, is begun again in its place. Raises ValueError for an id
        that nbformat does not take.
        """
        if not is_cell_id(cell_id):
            raise ValueError(f"{cell_id!r} is no cell id of nbformat")
        began = time.time() if at is None else at
        with self._changed:
            self._known.add(cell_id)
            self._cells[cell_id] = _LoggedCell(code, author, generation, began, Outputs(self._limit, whole))
            self._touch_cell(cell_id, urgent=True)

    def add(self, cell_id: str, event: Event) -> None:
        """Add an event of a cell that has begun. A cell that is not known, or has ended, is left as it is."""
        with self._changed:
            cell = self._cells.get(cell_id)
            if isinstance(event, Update):
                self._update(event)
            elif cell is None or cell.done:
                return
            elif isinstance(event, Done):
                self._end(cell_id, cell, event)
            elif cell.outputs.add(event):
                if isinstance(event, Started):
                    cell.started, cell.generation = event.at, event.generation
                elif isinstance(event, Display) and event.id:
                    self._displays.setdefault(event.id, set()).add(cell_id)
                    if len(self._displays) > _DISPLAYS_KEPT:
                        del self._displays[next(iter(self._displays))]
                self._touch_cell(cell_id)

    def add_after(self, cell_id: str, event: Event) -> None:
        """Add what a thread or a task of a cell gives after the cell's end: as in JupyterLab, it stays with it.

        What belongs to no cell that has begun, as what a widget shows, is left out.
        """
        with self._changed:
            cell = self._cells.get(cell_id)
            if isinstance(event, Update):
                self._update(event)
                return
            outputs = cell.outputs if cell else self._after.get(cell_id)
            if outputs is None and cell_id in self._known:
                outputs = self._after[cell_id] = Outputs(self._limit // _AFTER_SHARE)
            if outputs and outputs.add(event):
                self._touch_cell(cell_id)

    def describe(self, facts: LogFacts) -> None:
        """Replace what the notebook says of the session, but its name."""
        with self._changed:
            self._facts = facts._replace(session=self._facts.session)
            self._touch()

    def __enter__(self) -> NotebookLog:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows is called with the lock held.

    def _touch_cell(self, cell_id: str, *, urgent: bool = False) -> None:
        self._touched.add(cell_id)
        self._touch(urgent=urgent)

    def _update(self, event: Update) -> None:
        for cell_id in self._displays.get(event.id, ()):
            cell = self._cells.get(cell_id)
            if cell is None:
                self._late.setdefault(cell_id, {})[event.id] = event
                self._touch()
            elif cell.outputs.update(event):
                self._touch_cell(cell_id)
        for cell_id, after in self._after.items():
            if after.update(event):
                self._touch_cell(cell_id)

    def _end(self, cell_id: str, cell: _LoggedCell, done: Done) -> None:
        cell.done, cell.generation = done, done.generation
        if done.execution_count is not None:
            cell.outputs.execution_count = done.execution_count
        if done.message and done.verdict not in _PLAIN:
            cell.outputs.add(Stream("stderr", f"[{done.message}]\n"))
        self._touch_cell(cell_id, urgent=True)

    def _draft(self, cell_id: str, cell: _LoggedCell) -> dict[str, Any]:
        facts, done = self._facts, cell.done
        own: dict[str, Any] = {
            "session": facts.session,
            "host": facts.host,
            "author": cell.author,
            "generation": cell.generation,
            "start": iso(cell.started or cell.at),
            "verdict": done.verdict if done else "running",
        }
        if done:
            own |= {"end": iso(done.at), "duration": done.seconds, "message": done.message}
        return {
            "id": cell_id,
            "cell_type": "code",
            "execution_count": cell.outputs.execution_count,
            "metadata": {KEY: own, "execution": execution_times(cell.started, done.at if done else None)},
            "outputs": cell.outputs.as_list(),
            "source": cell.code,
        }

    def _collect(self, notebook: MergedNotebook) -> set[str]:
        with self._changed:
            facts = self._facts
            late, self._late = self._late, {}
            touched, self._touched = self._touched, set()
            drafts = [
                (cell_id, self._draft(cell_id, cell), cell.outputs.display_ids if cell.done else None)
                for cell_id, cell in self._cells.items()
                if cell_id in touched
            ]
            after = {cell_id: self._after[cell_id].as_list() for cell_id in touched if cell_id in self._after}
            for cell_id, _, displays in drafts:
                if displays is not None:
                    del self._cells[cell_id]
            running = set(self._cells)
            settled = list(self._after)[:-_AFTER_KEPT]
            for cell_id in settled:
                del self._after[cell_id]
        for cell_id, draft, displays in drafts:
            try:
                notebook.put(cell_id, draft, displays)
            except (TypeError, ValueError, RecursionError) as error:
                draft["outputs"] = Outputs.of_text(f"[what this cell gave cannot be written to a notebook: {error}]\n")
                notebook.put(cell_id, draft, None if displays is None else {})
        for cell_id, updates in late.items():
            notebook.update(cell_id, {name: (update.data, update.metadata) for name, update in updates.items()})
        for cell_id, outputs in after.items():
            notebook.extend(cell_id, outputs)
        for cell_id in settled:
            notebook.settle(cell_id)
        notebook.describe(_metadata(facts), {"host": facts.host, "kernel": facts.kernel})
        return running


def _metadata(facts: LogFacts) -> dict[str, Any]:
    """Return what Jupyter's tools want to know of a notebook. VS Code goes by the language's name."""
    language = {"name": "python", **facts.language_info}
    name = facts.kernel or str(language["name"])
    kernelspec = {"name": name, "display_name": facts.display_name or name, "language": language["name"]}
    return {"kernelspec": kernelspec, "language_info": language}
