"""The notebook of one run: its cells, and the outputs that they gave."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.notebook.file import NotebookFile
from remote_kernel.session.notebook.nbformat import NotebookError, encode_cell, encode_notebook, read_notebook

_MARK = "remote_kernel_demo"
_ELSEWHERE = "give another place with --log"


class DemoNotebook:
    """Cells and their outputs, added in order; `write` may be called at any time."""

    def __init__(self, kernel_name: str) -> None:
        self._kernel_name = kernel_name
        self._cells: list[dict[str, Any]] = []

    def add_text(self, text: str) -> None:
        """Add a markdown cell."""
        self._cells.append({"cell_type": "markdown", **self._head(text)})

    def add_code(self, code: str) -> None:
        """Add a code cell; outputs that come from now on are its."""
        self._cells.append({"cell_type": "code", "execution_count": None, "outputs": [], **self._head(code)})

    def add_output(self, kind: str, content: dict[str, Any]) -> None:
        """Add an iopub message's content to the last code cell; kinds that are no outputs are left out."""
        outputs = self._cells[-1]["outputs"]
        if kind == "execute_input":
            self._cells[-1]["execution_count"] = content["execution_count"]
        elif kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
        elif kind in ("stream", "display_data", "execute_result", "error"):
            wanted = ("name", "text", "data", "metadata", "execution_count", "ename", "evalue", "traceback")
            outputs.append({"output_type": kind, **{key: content[key] for key in wanted if key in content}})

    def write(self, path: Path) -> None:
        """Write the notebook as a whole or not at all. Raises RemoteKernelError."""
        metadata = {
            "kernelspec": {"display_name": self._kernel_name, "language": "python", "name": "demo"},
            "language_info": {"name": "python", "version": sys.version.split()[0], "file_extension": ".py"},
            _MARK: {},
        }
        fields = {"metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        file = NotebookFile(str(path))
        try:
            file.accept(file.stamp())
            file.replace(encode_notebook(map(encode_cell, self._cells), fields))
        except OSError as error:
            raise RemoteKernelError(f"cannot write {path}: {error.strerror}", _ELSEWHERE) from error
        finally:
            file.release()

    def _head(self, source: str) -> dict[str, Any]:
        return {"id": f"demo-{len(self._cells) + 1}", "metadata": {}, "source": source}


def check_path(path: Path) -> None:
    """Raise UsageError where the notebook cannot go, or where a file is that is not an earlier run's."""
    if path.exists():
        try:
            is_ours = _MARK in read_notebook(str(path))["metadata"]
        except NotebookError:
            is_ours = False
        if not is_ours:
            raise UsageError(f"{path} exists and is not from an earlier demo", _ELSEWHERE)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", _ELSEWHERE)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {path.parent} cannot be written", _ELSEWHERE)
