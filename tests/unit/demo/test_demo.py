"""The demonstration's parts that need neither a server nor a kernel."""

from __future__ import annotations

import io
import json
import types
from pathlib import Path
from typing import Any

import nbformat
import pytest

from remote_kernel.demo import cells
from remote_kernel.demo.notebook import DemoNotebook, check_path
from remote_kernel.errors import UsageError


def draw_without_matplotlib() -> bytes:
    """Run the cell that draws with the standard library, and return its PNG."""
    drawn: list[Any] = []
    image = types.SimpleNamespace(Image=lambda data: data, display=drawn.append)
    code = cells.PLOT_WITHOUT_MATPLOTLIB.replace("from IPython.display import Image, display\n", "")
    exec(code, vars(image))
    return bytes(drawn[0])


def test_plot_without_matplotlib_is_a_picture() -> None:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(draw_without_matplotlib()))
    assert image.size == (384, 168)
    assert len(image.convert("RGB").getcolors()) == 9


def test_notebook_joins_stream_output_by_name(tmp_path: Path) -> None:
    notebook = DemoNotebook("Demo")
    notebook.add_text("# Title")
    notebook.add_code("print(1)")
    notebook.add_output("status", {"execution_state": "busy"})
    notebook.add_output("execute_input", {"execution_count": 1, "code": "print(1)"})
    for name, text in (("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n")):
        notebook.add_output("stream", {"name": name, "text": text})
    notebook.write(tmp_path / "n.ipynb")
    document = json.loads((tmp_path / "n.ipynb").read_text())
    nbformat.validate(document)
    assert ["".join(output["text"]) for output in document["cells"][1]["outputs"]] == ["a\nb\n", "c\n"]
    assert document["cells"][1]["execution_count"] == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "n.ipynb"]
    check_path(tmp_path / "n.ipynb")


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [], "metadata": {}}'])
def test_notebook_does_not_replace_another_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(UsageError, match="not from an earlier demo"):
        check_path(tmp_path / "n.ipynb")


def test_notebook_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        check_path(tmp_path / "nothing" / "n.ipynb")
