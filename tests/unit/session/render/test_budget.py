"""The head and the tail of a long output, and the file with all of it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_kernel.session.render.budget import Budget, OutputFile


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 100,000 bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def bounded(pieces: list[str], limit: int, file: OutputFile | None = None) -> str:
    written: list[str] = []
    budget = Budget(lambda _, text: written.append(text), limit, file)
    for piece in pieces:
        budget.write("stdout", piece)
    budget.settle()
    if file:
        file.close()
    return "".join(written)


@given(st.lists(st.text(alphabet="ab\n", max_size=30), max_size=40), st.integers(1, 60))
def test_budget_leaves_out_what_it_says_it_does(pieces: list[str], limit: int) -> None:
    whole = "".join(pieces)
    text = bounded(pieces, limit)
    if text == whole:
        return

    head, rest = text.split("... ", 1)
    note, tail = rest.split(" ...\n", 1)
    size = int(note.split(" characters")[0].replace(",", ""))
    lines = int(note.split(", ")[1].split(" lines")[0]) if " lines," in note else 0
    assert whole.endswith(tail) and len(tail) <= limit
    left_out = next(
        whole[len(start) : len(whole) - len(tail)]
        for start in (head, head.removesuffix("\n"))
        if whole.startswith(start) and len(start) + size + len(tail) == len(whole)
    )
    assert left_out.count("\n") == lines


@given(st.lists(st.text(alphabet="ab\n", max_size=30), max_size=20))
def test_output_within_the_budget_is_whole(pieces: list[str]) -> None:
    whole = "".join(pieces)

    assert bounded(pieces, max(1, len(whole))) == whole
    assert bounded(pieces, 0) == whole


def test_long_line_is_cut_where_the_budget_ends() -> None:
    text = bounded(["a" * 50_000_000], 8000)

    assert text.startswith("a" * 3000 + "\n... 49,992,000 characters left out")
    assert text.endswith(" ...\n" + "a" * 5000)


def test_file_is_there_after_the_end_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "cells/1.txt"
    text = bounded(["line\n"] * 10_000, 8000, OutputFile(str(path)))

    assert f"all of it: {path} ..." in text
    assert path.read_text() == "line\n" * 10_000
    assert os.listdir(path.parent) == [path.name]


def test_two_readers_of_one_cell_leave_a_whole_file(tmp_path: Path) -> None:
    path = str(tmp_path / "1.txt")
    first, second = OutputFile(path), OutputFile(path)
    second._partial += "2"  # as another process has
    for file in (first, second):
        file.open()
        file.record("a" * 100_000)
    second.close()
    first.record("b")
    first.close()

    assert Path(path).read_text() == "a" * 100_000 + "b"


def test_full_disk_ends_the_file_and_not_the_output(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "1.txt"
    text = bounded(["line\n"] * 50_000, 8000, OutputFile(str(path)))

    assert text.endswith("line\n")
    assert f"all of it: {path} (incomplete: File too large)" in text
    assert path.stat().st_size == 100_000


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = bounded(["line\n"] * 50_000, 8000, OutputFile(str(tmp_path / "file/1.txt")))

    assert "(not written: " in text and text.endswith("line\n")


def test_cleared_output_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "1.txt"
    file = OutputFile(str(path))
    written: list[str] = []
    budget = Budget(lambda _, text: written.append(text), 100, file)
    for turn in "ab":
        budget.clear()
        budget.write("stdout", f"{turn * 9}\n" * 100_000)
    budget.settle()
    file.close()

    assert path.read_text() == "bbbbbbbbb\n" * 100_000
    assert "a" not in written[0]


def test_cleared_output_without_a_budget_waits_only_so_long() -> None:
    written: list[str] = []
    budget = Budget(lambda _, text: written.append(text), 0)
    budget.clear()
    budget.write("stdout", "a" * 100)
    assert not written

    for _ in range(20):
        budget.write("stdout", "b" * 100_000)
    assert len("".join(written)) == 2_000_100


def test_file_whose_folder_is_gone_with_its_session_does_not_hide_the_cells_end(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    file = OutputFile(str(folder / "1.txt"))
    file.open()
    file.record("text")
    shutil.rmtree(folder)
    file.close()
    assert file.problem.startswith("gone: ")
