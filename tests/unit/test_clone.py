"""The scripts of a clone may be run in any order: what one of them leaves is no fault to another."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize("where", ["remote_kernel-demo.ipynb", "docs/notes/plot.ipynb"])
@pytest.mark.parametrize("check", [["format", "--check"], ["check", "--no-cache"]])
def test_checks_of_the_code_leave_out_notebooks(tmp_path: Path, check: list[str], where: str) -> None:
    shutil.copy(_PYPROJECT, tmp_path)
    (tmp_path / "module.py").write_text("x = 1\n")
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "a",
        "metadata": {},
        "outputs": [],
        "source": "import os;x=1",
    }
    notebook = tmp_path / where
    notebook.parent.mkdir(parents=True, exist_ok=True)
    notebook.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))

    checked = subprocess.run(["ruff", *check, "."], cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
