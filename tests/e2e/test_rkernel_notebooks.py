"""Notebooks run by `rkernel exec`: what they ask for, which kernel they get, and the copy with what they gave."""

from __future__ import annotations

from pathlib import Path

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
