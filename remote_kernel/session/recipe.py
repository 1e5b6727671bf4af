"""Run a notebook's cells one after the other, and write the copy with what they gave.

The copy is written when the run begins, with the outputs of the cells to come removed, and after each cell. Two tags
that nbclient knows are known here too: a cell tagged `skip-execution` is left out, and one tagged `raises-exception`
does not end the run when it fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

from remote_kernel.errors import UsageError
from remote_kernel.session.document import (
    NotebookError,
    encode_cell,
    encode_notebook,
    execution_times,
    read_notebook,
    source_of,
)
from remote_kernel.session.events import Done, Event, Started, Update
from remote_kernel.session.notebook_file import NotebookFile
from remote_kernel.session.outputs import Outputs
from remote_kernel.session.source import check_text


class Step(NamedTuple):
    """A code cell to run. `number` is its place among all cells of the notebook, text too, from 1."""

    number: int
    source: str
    may_fail: bool = False


class Wanted(NamedTuple):
    """What a notebook says of its kernel: the kernelspec's name and the language's names; nothing where it says none.

    There may be two: a kernelspec's `language` is not always what its kernel calls itself.
    """

    kernelspec: str = ""
    languages: frozenset[str] = frozenset()

    def fits(self, language: str) -> bool:
        """True if a kernel of this language can run it, as far as is known."""
        return not self.languages or not language or language.lower() in self.languages


Execute = Callable[[Step], Iterable[Event]]


class Recipe:
    """A notebook that is to be run."""

    def __init__(self, document: dict[str, Any], path: str = "") -> None:
        self.path = path
        self._document = document
        self._cells: list[dict[str, Any]] = document["cells"]

    @classmethod
    def read(cls, path: str) -> Recipe:
        """Read a notebook. Raises NotebookError where the file is none."""
        return cls(read_notebook(path), path)

    def wanted(self) -> Wanted:
        """Give what it says of the kernel that it was written with."""
        fields = [self._document["metadata"].get(key) for key in ("kernelspec", "language_info")]
        spec, info = (one if isinstance(one, dict) else {} for one in fields)
        languages = (str(text).lower() for text in (spec.get("language"), info.get("name")) if text)
        return Wanted(str(spec.get("name") or ""), frozenset(languages))

    def steps(self, first: int = 1, last: int | None = None) -> list[Step]:
        """Give what is to be run from cell `first` to cell `last`, both included.

        All cells are counted, from 1, as they stand in the notebook; code cells without code are left out. Raises
        UsageError for a range that it does not have, and for a cell with half a character.
        """
        count = len(self._cells)
        end = count if last is None else last
        if (first, last) != (1, None) and not 1 <= first <= end <= count:
            raise UsageError(f"{self.path} has no cells {first} to {end}", f"it has {count}, text cells included")
        found = []
        for number, cell in enumerate(self._cells[first - 1 : end], first):
            tags = cell["metadata"].get("tags") or ()
            source = source_of(cell)
            if cell.get("cell_type") == "code" and source.strip() and "skip-execution" not in tags:
                check_text(source, f"cell {number} of {self.path}")
                found.append(Step(number, source, "raises-exception" in tags))
        return found

    def run(
        self, steps: Iterable[Step], execute: Execute, output: str = ""
    ) -> Generator[tuple[Step, Event], None, None]:
        """Run the cells and give each event as it comes; the last of a cell is Done. Stops at the first that fails.

        `execute` runs a step's source and gives its events. `output` is where the copy goes, empty for nowhere; what is
        there is overwritten. Close the iterator to stop in the middle of a cell: what that gave so far is kept. Raises
        NotebookError where the copy cannot be written; what was written before stays.
        """
        steps = list(steps)
        file = NotebookFile(output) if output else None
        for step in steps:
            self._cells[step.number - 1] |= {"outputs": [], "execution_count": None}
            self._cells[step.number - 1]["metadata"].pop("execution", None)
        self._write(file)
        shown: dict[int, Outputs] = {}
        for step in steps:
            try:
                verdict = yield from self._run_one(step, execute, shown)
            finally:
                self._write(file)
            if verdict != "ok" and not (verdict == "error" and step.may_fail):
                return

    def _run_one(
        self, step: Step, execute: Execute, shown: dict[int, Outputs]
    ) -> Generator[tuple[Step, Event], None, str]:
        """Run a cell and return its verdict. `shown` holds the outputs of the run by cell, for later updates."""
        cell = self._cells[step.number - 1]
        outputs = shown[step.number] = Outputs()
        started = None
        verdict = "lost"
        try:
            for event in execute(step):
                if isinstance(event, Started):
                    started = event.at
                elif isinstance(event, Done):
                    verdict = event.verdict
                    cell["metadata"]["execution"] = execution_times(started, event.at)
                if isinstance(event, Update):
                    for others in shown.values():
                        others.update(event)
                else:
                    outputs.add(event)
                yield step, event
        finally:
            cell["execution_count"] = outputs.execution_count
            for number, others in shown.items():
                self._cells[number - 1]["outputs"] = others.as_list()
        return verdict

    def _write(self, file: NotebookFile | None) -> None:
        if file is None:
            return
        try:
            file.accept(file.stamp())
            while not file.replace(encode_notebook(map(encode_cell, self._cells), self._document)):
                file.accept(file.stamp())
            file.close()
        except OSError as error:
            raise NotebookError(f"cannot write {file.path}: {error.strerror}", "name another file") from error


def copy_path(path: str) -> str:
    """Give where the executed copy of a notebook goes unless told otherwise: beside it, with `_out`."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_out{extension}"
