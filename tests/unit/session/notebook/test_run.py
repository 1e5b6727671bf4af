"""A notebook that is to be run: its cells, the kernel it wants, and the copy for their outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from remote_kernel.errors import UsageError
from remote_kernel.session.notebook.nbformat import NotebookError
from remote_kernel.session.notebook.run import NotebookRun, Step, copy_path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A notebook: a title, `a`, `b`, nothing, `c`; all with old outputs."""
    cells = [new_markdown_cell("# title"), *map(new_code_cell, ("a", "b", " \n", "c"))]
    for cell in cells[1:]:
        cell.outputs = [new_output("stream", name="stdout", text="old")]
    found = tmp_path / "work.ipynb"
    nbformat.write(new_notebook(cells=cells), found)
    return str(found)


def texts(path: str) -> list[str]:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return ["".join(output.text for output in cell.outputs) for cell in notebook.cells[1:]]


def test_all_cells_are_counted_and_those_with_code_are_run(path: str) -> None:
    run = NotebookRun.read(path)
    a, b, c = run.steps()

    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    assert (a, b, c) == (Step(2, "a", id=ids[1]), Step(3, "b", id=ids[2]), Step(5, "c", id=ids[4]))
    assert run.steps(3) == [b, c]
    assert run.steps(1, 2) == [a]
    assert run.steps(4, 4) == []


@pytest.mark.parametrize(("first", "last"), [(0, None), (6, None), (1, 6), (3, 2)])
def test_range_that_the_notebook_does_not_have_is_refused(path: str, first: int, last: int | None) -> None:
    with pytest.raises(UsageError, match="it has cells 1 to 5, text cells included"):
        NotebookRun.read(path).steps(first, last)


def test_empty_notebook_has_nothing_to_run() -> None:
    assert NotebookRun({"cells": []}).steps() == []


def test_copy_has_no_outputs_of_the_cells_to_come_and_the_original_stays(path: str) -> None:
    before = Path(path).read_bytes()
    run = NotebookRun.read(path)
    run.write_copy(copy_path(path), run.steps(3))

    assert copy_path(path) == path.replace("work.ipynb", "work_out.ipynb")
    assert texts(copy_path(path)) == ["old", "", "old", ""]
    assert Path(path).read_bytes() == before


def test_run_that_goes_on_keeps_what_the_copy_has_of_the_cells_before(path: str) -> None:
    run, copy = NotebookRun.read(path), copy_path(path)
    run.write_copy(copy, run.steps(3), continues=True)
    assert texts(copy) == ["old", "", "old", ""]  # there was none

    notebook = nbformat.read(copy, 4)
    notebook.cells[1].source = "another"
    for cell in notebook.cells[1:]:
        cell.outputs = [new_output("stream", name="stdout", text="new")]
    notebook.cells[2].execution_count = 5
    nbformat.write(notebook, copy)
    run = NotebookRun.read(path)
    run.write_copy(copy, run.steps(5), continues=True)
    assert texts(copy) == ["old", "new", "new", ""]  # the first is another cell there
    assert nbformat.read(copy, 4).cells[2].execution_count == 5


def test_tags_of_nbclient_are_known(path: str) -> None:
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata.tags = ["raises-exception"]
    notebook.cells[2].metadata.tags = ["skip-execution"]
    nbformat.write(notebook, path)

    assert [(step.number, step.may_fail) for step in NotebookRun.read(path).steps()] == [(2, True), (5, False)]


@pytest.mark.parametrize(
    ("metadata", "language", "fits"),
    [
        ({}, "python", True),
        ({"kernelspec": {"name": "ir", "language": "R"}}, "python", False),
        ({"kernelspec": {"name": "ir", "language": "R"}}, "r", True),
        ({"kernelspec": {"name": "sage", "language": "sage"}, "language_info": {"name": "python"}}, "sage", True),
        ({"language_info": {"name": "python"}}, "", True),
        ({"kernelspec": "odd", "language_info": None}, "python", True),
    ],
)
def test_language_of_the_notebook_is_compared_with_a_kernel_s(
    metadata: dict[str, object], language: str, fits: bool
) -> None:
    assert NotebookRun({"cells": [], "metadata": metadata}).wanted().fits(language) is fits


@pytest.mark.parametrize("content", ["print(1)", "[]", '{"cells": []}', '{"worksheets": [], "nbformat": 3}', "\udc80"])
def test_file_that_is_no_notebook_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(NotebookError, match="cannot read"):
        NotebookRun.read(str(path))


def test_other_file_in_the_place_of_the_copy_is_left_alone(path: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n")
    run = NotebookRun.read(path)
    with pytest.raises(NotebookError, match="is there, and no notebook"):
        run.write_copy(str(tmp_path / "results.csv"), run.steps())
    assert (tmp_path / "results.csv").read_text() == "a,b\n"


def test_copy_that_cannot_be_written_is_an_error(path: str, tmp_path: Path) -> None:
    run = NotebookRun.read(path)
    with pytest.raises(NotebookError, match="No such file"):
        run.write_copy(str(tmp_path / "no" / "out.ipynb"), run.steps())
