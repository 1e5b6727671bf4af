"""Files and texts given to `rkernel exec`: their encodings, and a script run as `python SCRIPT` would."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from remote_kernel.errors import UsageError
from remote_kernel.session.client import Request, Session
from tests.support.rkernel import Rkernel, finish


def cells(rkernel: Rkernel) -> int:
    return len(list(rkernel.place("cells").glob("*.jsonl")))


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbfprint('\xc3\xa9')\r\n", b"# -*- coding: latin-1 -*-\nprint('\xe9')\n"],
    ids=["byte order mark", "latin-1"],
)
def test_file_is_decoded_as_python_does(shared: Rkernel, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    said = shared("exec", "--file", str(path))
    assert (said.status, said.out) == (0, "é\n"), said


def test_what_is_no_text_is_refused_and_nothing_is_sent(shared: Rkernel, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"x = '\xff'\n")
    before = cells(shared)
    code = os.fsdecode(b"x = '\xff'")
    with path.open("rb") as stdin:
        piped = shared.start("exec", stdin=stdin)
    for said in (
        shared("exec", "--file", str(path)),
        shared("exec", "--code", code),
        shared("exec", "--code", "input()", "--answer", code),
        shared("exec", "--code", "input()", "--answer-file", str(path)),
        shared("inspect", code),
        finish(piped),
    ):
        assert said.status == 2, said
        assert "UTF-8" in said.err or "half a character" in said.err
    assert cells(shared) == before


def test_half_a_character_in_a_notebook_is_refused_before_its_first_cell(shared: Rkernel, tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print('first')"), new_code_cell("'HALF'")]), path)
    path.write_text(path.read_text().replace("HALF", "\\ud800"))
    said = shared("exec", str(path))
    assert (said.status, said.out) == (2, "")
    assert "cell 2 of" in said.err


def test_program_cannot_send_half_a_character(shared: Rkernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(shared.runtime))
    session, before = Session("work"), cells(shared)
    for request in (Request("'\udcff'"), Request("input()", answers=["\udcff"])):
        with pytest.raises(UsageError, match="half a character"):
            session.execute(request)
    assert cells(shared) == before
    running = session.execute(Request("input()", asks=True))
    with pytest.raises(UsageError, match="half a character"):
        running.answer("\udcff")
    running.close()
    assert shared("wait", running.cell).status == 7


def test_folder_of_the_kernel_is_said_and_can_be_chosen(alone: Rkernel, tmp_path: Path) -> None:
    chosen = tmp_path / "data"
    chosen.mkdir()
    said = alone.exec("import os; os.getcwd()", "-k", "python3", "--cwd", "data")
    assert said.out == f"'{chosen}'\n"
    assert f"with a kernel of python3, in {chosen}; " in said.err
    assert alone.status()["folder"] == str(chosen)
    assert f"\nfolder    {chosen}, in which the kernel was started\n" in alone("status").out
    assert alone("restart").status == 0
    assert alone.exec("import os; os.getcwd()", "--cwd", "data").out == f"'{chosen}'\n"
    said = alone.exec("1", "--cwd", "/")
    assert said.status == 2
    assert f"was started in {chosen}; leave out --cwd" in said.err
    assert alone.exec("1", "-s", "new", "-k", "python3", "--cwd", "missing").status == 2
