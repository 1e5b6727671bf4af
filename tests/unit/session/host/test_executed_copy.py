"""The copy of a notebook that is run: what the cells give is put into it, over what is there."""

from __future__ import annotations

import threading
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from remote_kernel.session.events import Display, Done, Event, Started, Stream, Update
from remote_kernel.session.host.executed_copy import ExecutedCopy
from remote_kernel.session.notebook.nbformat import NotebookError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy as it is when the run begins: a title, and the code cells `a` and `b`."""
    cells = [new_markdown_cell("# title"), new_code_cell("a", id="a"), new_code_cell("b", id="b")]
    found = tmp_path / "out.ipynb"
    nbformat.write(new_notebook(cells=cells), found)
    return found


def gave(*events: Event) -> list[Event]:
    return [Started(1.0, execution_count=7), *events, Done("ok", 2.0)]


def test_what_cells_give_is_put_into_the_copy(path: Path) -> None:
    copy = ExecutedCopy(str(path), {"4": "a", "5": "b"})
    copy.add("4", gave(Stream("stdout", "one"), Stream("stdout", " line\n")))
    copy.write()
    assert not copy.is_complete
    copy.add("5", gave())
    assert copy.is_complete
    copy.write()

    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert [output.text for output in notebook.cells[1].outputs] == ["one line\n"]
    assert notebook.cells[1].execution_count == 7
    assert notebook.cells[1].metadata.execution["iopub.execute_input"] == "1970-01-01T00:00:01.000000Z"
    assert notebook.cells[2].outputs == []


def test_update_reaches_the_cell_that_displayed(path: Path) -> None:
    copy = ExecutedCopy(str(path), {"1": "a", "2": "b"})
    copy.add("1", gave(Display({"text/plain": "0%"}, {}, "bar")))
    copy.add("2", gave(Update("bar", {"text/plain": "100%"}, {})))
    copy.write()

    assert nbformat.read(path, 4).cells[1].outputs[0].data == {"text/plain": "100%"}


def test_what_somebody_has_changed_meanwhile_stays(path: Path) -> None:
    copy = ExecutedCopy(str(path), {"1": "a", "2": "b"})
    copy.add("1", gave(Stream("stdout", "mine")))
    notebook = nbformat.read(path, 4)
    notebook.cells = [new_markdown_cell("a note"), notebook.cells[1]]
    notebook.cells[1].source = "a  # changed"
    nbformat.write(notebook, path)
    copy.add("2", gave(Stream("stdout", "of a cell that is gone")))
    copy.write()

    after = nbformat.read(path, 4)
    assert [cell.source for cell in after.cells] == ["a note", "a  # changed"]
    assert after.cells[1].outputs[0].text == "mine"


def test_copy_that_somebody_is_writing_is_waited_for(path: Path) -> None:
    copy = ExecutedCopy(str(path), {"1": "a"})
    copy.add("1", gave(Stream("stdout", "mine")))
    whole = path.read_text()
    path.write_text(whole[:50])
    later = threading.Timer(0.2, path.write_text, [whole])
    later.start()
    copy.write()
    later.join()
    assert nbformat.read(path, 4).cells[1].outputs[0].text == "mine"


@pytest.mark.parametrize(("content", "words"), [(None, "is gone"), ("{", "cannot write into .*not JSON")])
def test_copy_that_is_none_any_longer_is_an_error(path: Path, content: str | None, words: str) -> None:
    copy = ExecutedCopy(str(path), {"1": "a"})
    copy.add("1", gave())
    path.unlink()
    if content:
        path.write_text(content)
    with pytest.raises(NotebookError, match=words):
        copy.write()
