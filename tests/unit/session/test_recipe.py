"""Running a notebook's cells: which ones, until when, and the copy with their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from remote_kernel.errors import UsageError
from remote_kernel.session.document import NotebookError
from remote_kernel.session.events import Display, Done, Event, Started, Stream, Update
from remote_kernel.session.recipe import Recipe, Step, copy_path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A notebook: a title, `a`, `b`, nothing, `c`; all with old outputs."""
    cells = [new_markdown_cell("# title"), *map(new_code_cell, ("a", "b", " \n", "c"))]
    for cell in cells[1:]:
        cell.outputs = [new_output("stream", name="stdout", text="old")]
    found = tmp_path / "work.ipynb"
    nbformat.write(new_notebook(cells=cells), found)
    return str(found)


def execute(step: Step) -> Iterator[Event]:
    """Give what a kernel would: each cell prints its source; `bad` fails."""
    source = step.source
    yield Started(1.0, execution_count=ord(source[0]) - 96)
    yield Stream("stdout", source)
    yield Done("error" if "bad" in source else "ok", 2.0)


def texts(path: str) -> list[str]:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return ["".join(output.text for output in cell.outputs) for cell in notebook.cells[1:]]


def test_all_cells_are_counted_and_those_with_code_are_run(path: str) -> None:
    recipe = Recipe.read(path)

    assert recipe.steps() == [Step(2, "a"), Step(3, "b"), Step(5, "c")]
    assert recipe.steps(3) == [Step(3, "b"), Step(5, "c")]
    assert recipe.steps(1, 2) == [Step(2, "a")]
    assert recipe.steps(4, 4) == []


@pytest.mark.parametrize(("first", "last"), [(0, None), (6, None), (1, 6), (3, 2)])
def test_range_that_the_notebook_does_not_have_is_refused(path: str, first: int, last: int | None) -> None:
    with pytest.raises(UsageError, match="it has 5, text cells included"):
        Recipe.read(path).steps(first, last)


def test_empty_notebook_has_nothing_to_run() -> None:
    assert Recipe({"cells": []}).steps() == []


def test_copy_has_the_outputs_and_the_original_stays(path: str) -> None:
    before = Path(path).read_bytes()
    recipe = Recipe.read(path)
    events = list(recipe.run(recipe.steps(), execute, copy_path(path)))

    assert copy_path(path) == path.replace("work.ipynb", "work_out.ipynb")
    assert [event.text for _, event in events if isinstance(event, Stream)] == ["a", "b", "c"]
    assert texts(copy_path(path)) == ["a", "b", "old", "c"]
    assert nbformat.read(copy_path(path), 4).cells[2].execution_count == 2
    assert Path(path).read_bytes() == before


def test_copy_is_written_after_each_cell_and_shows_no_old_output(path: str) -> None:
    recipe = Recipe.read(path)
    seen = []
    for step, event in recipe.run(recipe.steps(3), execute, copy_path(path)):
        if isinstance(event, Started):
            seen.append((step.number, texts(copy_path(path))))

    assert seen == [(3, ["old", "", "old", ""]), (5, ["old", "b", "old", ""])]


def test_run_stops_at_the_first_cell_that_fails(path: str) -> None:
    recipe = Recipe.read(path)
    steps = [Step(2, "a"), Step(3, "bad"), Step(5, "c")]
    events = [event for _, event in recipe.run(steps, execute, copy_path(path))]

    assert isinstance(events[-1], Done) and events[-1].verdict == "error"
    assert texts(copy_path(path)) == ["a", "bad", "old", ""]


def test_tags_of_nbclient_are_known(path: str) -> None:
    notebook = nbformat.read(path, 4)
    notebook.cells[1].source = "bad"
    notebook.cells[1].metadata.tags = ["raises-exception"]
    notebook.cells[2].metadata.tags = ["skip-execution"]
    nbformat.write(notebook, path)
    recipe = Recipe.read(path)
    list(recipe.run(recipe.steps(), execute, path))

    assert texts(path) == ["bad", "old", "old", "c"]


def test_run_that_is_left_in_the_middle_keeps_what_there_is(path: str) -> None:
    recipe = Recipe.read(path)
    running = recipe.run(recipe.steps(), execute, copy_path(path))
    for _, event in running:
        if isinstance(event, Stream):
            break
    running.close()

    assert texts(copy_path(path)) == ["a", "", "old", ""]


def test_update_reaches_the_cell_that_displayed(path: str) -> None:
    def events(step: Step) -> Iterator[Event]:
        if step.source == "a":
            yield Display({"text/plain": "old"}, {}, "d")
        else:
            yield Update("d", {"text/plain": step.source}, {})
        yield Done("ok", 2.0)

    recipe = Recipe.read(path)
    list(recipe.run(recipe.steps(1, 3), events, copy_path(path)))

    assert nbformat.read(copy_path(path), 4).cells[1].outputs[0].data == {"text/plain": "b"}


@pytest.mark.parametrize("content", ["print(1)", "[]", '{"cells": []}', '{"worksheets": [], "nbformat": 3}', "\udc80"])
def test_file_that_is_no_notebook_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(NotebookError, match="cannot read"):
        Recipe.read(str(path))


def test_copy_that_cannot_be_written_is_an_error(path: str, tmp_path: Path) -> None:
    recipe = Recipe.read(path)
    with pytest.raises(NotebookError, match="No such file"):
        list(recipe.run(recipe.steps(), execute, str(tmp_path / "no" / "out.ipynb")))
