"""The demonstration's parts that need neither a server nor a kernel."""

from __future__ import annotations

import io
import json
import re
import struct
import types
import zlib
from pathlib import Path
from typing import Any

import nbformat
import pytest

from remote_kernel.cli.demo import SERVERS as NAMES
from remote_kernel.cli.picture import blocks, decode, size
from remote_kernel.demo import cells
from remote_kernel.demo.notebook import Notebook, check_path
from remote_kernel.demo.ssh_server import SERVERS
from remote_kernel.errors import UsageError


def draw_without_matplotlib() -> bytes:
    """Run the cell that draws with the standard library, and give its PNG."""
    drawn: list[Any] = []
    image = types.SimpleNamespace(Image=lambda data: data, display=drawn.append)
    code = cells.PLOT_WITHOUT_MATPLOTLIB.replace("from IPython.display import Image, display\n", "")
    exec(code, vars(image))
    return bytes(drawn[0])


def test_command_names_the_servers() -> None:
    assert NAMES == SERVERS


def test_plot_without_matplotlib_is_a_picture() -> None:
    png = draw_without_matplotlib()
    pixels = decode(png)
    assert size(png) == (len(pixels[0]), len(pixels))
    assert len({colour for row in pixels for colour in row}) == 9


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_decode_reads_what_pillow_writes(mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    source = image.effect_noise((23, 17), 80).convert("RGB")
    source.putpixel((3, 4), (1, 2, 3))
    file = io.BytesIO()
    source.convert(mode).save(file, "PNG")
    expected = source.convert(mode).convert("RGB")
    assert decode(file.getvalue()) == [[expected.getpixel((x, y)) for x in range(23)] for y in range(17)]


def test_blocks_fit_the_terminal() -> None:
    lines = blocks(draw_without_matplotlib(), 40, true_colour=False)
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert set(plain) == {"▀" * 40}
    assert len(plain) == 9


def test_blocks_leave_out_a_kind_that_cannot_be_read() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack("!IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    assert blocks(b"\x89PNG\r\n\x1a\n" + head, 40, true_colour=True) == []


def test_notebook_joins_stream_output_by_name(tmp_path: Path) -> None:
    notebook = Notebook("Demo")
    notebook.add_text("# Title")
    notebook.add_code("print(1)")
    notebook.add_output("status", {"execution_state": "busy"})
    notebook.add_output("execute_input", {"execution_count": 1, "code": "print(1)"})
    for name, text in (("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n")):
        notebook.add_output("stream", {"name": name, "text": text})
    notebook.write(tmp_path / "n.ipynb")
    document = json.loads((tmp_path / "n.ipynb").read_text())
    nbformat.validate(document)
    assert [output["text"] for output in document["cells"][1]["outputs"]] == ["a\nb\n", "c\n"]
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
