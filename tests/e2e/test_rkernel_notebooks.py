"""Notebooks run by `rkernel exec`: what they ask for, which kernel they get, and the copy with what they gave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat

from tests.support.rkernel import Rkernel, write_notebook


def test_answers_are_used_once_through_all_cells(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "n = input()", "m = input()", "print(n, m)")
    said = shared("exec", str(notebook), "--answer", "Ann", "--answer", "Bob")
    assert (said.status, said.out) == (0, "Ann Bob\n")
    assert "not used" not in said.err
    assert shared("exec", str(notebook), "--answer", "Ann").status == 7


def test_answers_that_nobody_asked_for_are_reported(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "n = input()", "print(n)")
    for words in ((str(notebook),), ("-c", "print(input())")):
        said = shared("exec", *words, "--answer", "Ann", "--answer", "Bob", "--answer", "Eve")
        assert (said.status, said.out) == (0, "Ann\n")
        assert "rkernel: 2 of 3 answers were not used: no input() asked for more\n" in said.err


def of_kernel(path: Path, name: str, language: str, *sources: str) -> Path:
    """Write a notebook that says which kernel it was written with."""
    document = nbformat.read(write_notebook(path, *sources), as_version=4)
    document.metadata = {"kernelspec": {"name": name, "display_name": name, "language": language}}
    nbformat.write(document, path)
    return path


def add_kernelspec(folder: Path, name: str, language: str, *argv: str) -> None:
    """Install a kernelspec that a session of this folder finds."""
    place = folder / "kernels" / name
    place.mkdir(parents=True)
    words = [*(argv or ("/bin/false",)), "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": words, "display_name": name, "language": language}))


def test_notebook_runs_in_a_kernel_of_its_own_kernelspec(alone: Rkernel, tmp_path: Path) -> None:
    add_kernelspec(tmp_path, "mine", "python", sys.executable, "-m", "ipykernel_launcher")
    notebook = of_kernel(tmp_path / "n.ipynb", "mine", "python", "print(6 * 7)")
    said = alone("exec", str(notebook))
    assert (said.status, said.out) == (0, "42\n"), said
    assert alone.record()["kernelspec"] == "mine"


def test_notebook_of_another_language_is_refused_and_nothing_is_sent(shared: Rkernel, tmp_path: Path) -> None:
    if not (shared.folder / "kernels" / "shell").exists():
        add_kernelspec(shared.folder, "shell", "sh")
    notebook = of_kernel(tmp_path / "n.ipynb", "sh", "sh", "echo hello")
    before = len(list(shared.place("cells").glob("*.jsonl")))
    for words in ((), ("-s", "new", "-k", "python3")):
        said = shared("exec", str(notebook), *words)
        assert (said.status, said.out) == (2, "")
        assert "the notebook's language is sh" in said.err
        assert "is of python; give a new session's name with -s, and -k with one of: shell" in said.err
    assert len(list(shared.place("cells").glob("*.jsonl"))) == before
    assert "new" not in {one["session"] for one in shared.ask("ls")}


def test_kernelspecs_lists_what_k_takes_and_errors_name_it(shared: Rkernel) -> None:
    listed = {one["name"]: one for one in shared.ask("kernelspecs")}
    assert listed["python3"] == {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "host": "",
    }
    assert "python3" in shared("kernelspecs").out
    for words in (("-s", "new"), ("-s", "new", "-k", "pyhton3")):
        said = shared.exec("1", *words)
        assert said.status in (2, 3)
        assert "python3" in said.err
        assert "'rkernel kernelspecs' lists them" in said.err
