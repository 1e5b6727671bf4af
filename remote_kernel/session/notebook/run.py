"""Read a notebook that is to be run: its cells, the kernel it wants, and the copy in which their outputs will be.

Two tags that nbclient knows are known here too: a cell tagged `skip-execution` is left out, and one tagged
`raises-exception` does not end the run when it fails.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from remote_kernel.errors import UsageError
from remote_kernel.session.notebook.file import NotebookFile
from remote_kernel.session.notebook.nbformat import (
    NotebookError,
    encode_cell,
    encode_notebook,
    read_notebook,
    source_of,
)
from remote_kernel.session.notebook.source import check_text


class Step(NamedTuple):
    """A code cell to run. `number` is its place among all cells of the notebook, text too, from 1."""

    number: int
    source: str
    may_fail: bool = False
    id: str = ""


class WantedKernel(NamedTuple):
    """The kernel that a notebook wants: the kernelspec's name and the language's names, empty where it has none.

    There may be two: a kernelspec's `language` is not always what its kernel calls itself.
    """

    kernelspec: str = ""
    languages: frozenset[str] = frozenset()

    def fits(self, language: str) -> bool:
        """True if a kernel of this language can run it, as far as is known."""
        return not self.languages or not language or language.lower() in self.languages


class NotebookRun:
    """A notebook that is to be run."""

    def __init__(self, document: dict[str, Any], path: str = "") -> None:
        self.path = path
        self._document = document
        self._cells: list[dict[str, Any]] = document["cells"]

    @classmethod
    def read(cls, path: str) -> NotebookRun:
        """Read a notebook. Raises NotebookError where the file is none."""
        return cls(read_notebook(path), path)

    def wanted(self) -> WantedKernel:
        """Return the kernel that it was written with, as far as it says."""
        fields = [self._document["metadata"].get(key) for key in ("kernelspec", "language_info")]
        spec, info = (one if isinstance(one, dict) else {} for one in fields)
        languages = (str(text).lower() for text in (spec.get("language"), info.get("name")) if text)
        return WantedKernel(str(spec.get("name") or ""), frozenset(languages))

    def steps(self, first: int = 1, last: int | None = None) -> list[Step]:
        """Return what is to be run from cell `first` to cell `last`, both included.

        All cells are counted, from 1, as they stand in the notebook; code cells without code are left out. Raises
        UsageError for a range that it does not have, and for a cell with half a character.
        """
        count = len(self._cells)
        end = count if last is None else last
        if (first, last) != (1, None) and not 1 <= first <= end <= count:
            named = f"cell {first}" if last in (None, first) else f"cells {first} to {end}"
            raise UsageError(f"{self.path} has no {named}", f"it has cells 1 to {count}, text cells included")
        found = []
        for number, cell in enumerate(self._cells[first - 1 : end], first):
            tags = cell["metadata"].get("tags")
            tags = tags if isinstance(tags, list) else ()
            source = source_of(cell)
            if cell.get("cell_type") == "code" and source.strip() and "skip-execution" not in tags:
                check_text(source, f"cell {number} of {self.path}")
                found.append(Step(number, source, "raises-exception" in tags, cell["id"]))
        return found

    def write_copy(self, path: str, steps: Sequence[Step], *, continues: bool = False) -> None:
        """Write the copy as it is when the run begins: the cells to come have no outputs. What is there is overwritten.

        Where the run `continues` in it, the other cells keep the outputs that they have there. Raises NotebookError
        where it cannot be written, and where another file than a notebook is there.
        """
        if os.path.isfile(path) and os.path.getsize(path):
            try:
                read_notebook(path)
            except NotebookError as error:
                raise NotebookError(
                    f"{path} is there, and no notebook", "name another file with --output, or remove it"
                ) from error
        if continues:
            self._keep_outputs(path, {step.number for step in steps})
        for step in steps:
            cell = self._cells[step.number - 1]
            cell |= {"outputs": [], "execution_count": None}
            cell["metadata"].pop("execution", None)
        file = NotebookFile(path)
        try:
            file.accept(file.stamp())
            while not file.replace(encode_notebook(map(encode_cell, self._cells), self._document)):
                file.accept(file.stamp())
        except OSError as error:
            raise NotebookError(f"cannot write {path}: {error.strerror}", "name another file with --output") from error
        finally:
            file.release()

    def _keep_outputs(self, path: str, to_come: set[int]) -> None:
        """Copy the outputs that the copy has of cells that are the same there and not to come, of an earlier run."""
        try:
            found: list[dict[str, Any]] = read_notebook(path)["cells"]
        except NotebookError:  # there is none yet
            return
        by_id = {cell["id"]: cell for cell in found}
        for number, cell in enumerate(self._cells, 1):
            there = by_id.get(cell["id"]) or (found[number - 1] if len(found) == len(self._cells) else {})
            if number in to_come or cell.get("cell_type") != "code" or source_of(there) != source_of(cell):
                continue
            cell |= {key: there[key] for key in ("outputs", "execution_count") if key in there}
            if "execution" in there.get("metadata", {}):
                cell["metadata"]["execution"] = there["metadata"]["execution"]


def copy_path(path: str) -> str:
    """Return where the executed copy of a notebook goes unless told otherwise: beside it, with `_out`."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_out{extension}"
