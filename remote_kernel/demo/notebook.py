"""The notebook of one run, in nbformat 4.5: written by hand, because nbformat is not among our dependencies."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError

_MARK = "remote_kernel_demo"


class Notebook:
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
        elif kind == "stream":
            if outputs and outputs[-1]["output_type"] == "stream" and outputs[-1]["name"] == content["name"]:
                outputs[-1]["text"] += content["text"]
            else:
                outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
        elif kind in ("display_data", "execute_result", "error"):
            wanted = ("data", "metadata", "execution_count", "ename", "evalue", "traceback")
            outputs.append({"output_type": kind, **{key: content[key] for key in wanted if key in content}})

    def write(self, path: Path) -> None:
        """Write the notebook as a whole or not at all. Raises RemoteKernelError."""
        document = {
            "cells": self._cells,
            "metadata": {
                "kernelspec": {"display_name": self._kernel_name, "language": "python", "name": "demo"},
                "language_info": {"name": "python", "version": sys.version.split()[0], "file_extension": ".py"},
                _MARK: {},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise RemoteKernelError(
                f"cannot write {path}: {error.strerror}", "give another place with --log"
            ) from error

    def _head(self, source: str) -> dict[str, Any]:
        return {"id": f"demo-{len(self._cells) + 1}", "metadata": {}, "source": source}


def check_path(path: Path) -> None:
    """Raise UsageError where the notebook cannot go, or where a file is that is not an earlier run's."""
    hint = "give another place with --log"
    if path.exists():
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = None
        if not isinstance(document, dict) or _MARK not in document.get("metadata", {}):
            raise UsageError(f"{path} exists and is not from an earlier demo", hint)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {path.parent} cannot be written", hint)
