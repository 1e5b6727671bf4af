"""Files and texts given to `rkernel exec`: their encodings, and a script run as `python SCRIPT` would."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from remote_kernel.errors import UsageError
from remote_kernel.session.client import Request, Session
from tests.support.kernels import options_for, wait_until, write_kernelspec
from tests.support.rkernel import Rkernel, finish
from tests.support.servers import Server


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


def write_script(folder: Path, code: str) -> Path:
    """Write `job.py`, with a module beside it that it can import."""
    folder.mkdir(exist_ok=True)
    (folder / "sibling_of_job.py").write_text("VALUE = 'beside'\n")
    (folder / "job.py").write_text(code)
    return folder / "job.py"


ARGPARSE = """\
import argparse, os, sys, sibling_of_job
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1.0)
parser.add_argument("names", nargs="*")
def main():
    found = parser.parse_args()
    print(found.lr, found.names, sibling_of_job.VALUE, __file__, sys.argv[0])
    return int(found.lr)
if __name__ == "__main__":
    sys.exit(main())
"""


def test_script_gets_its_arguments_its_folder_and_its_file(shared: Rkernel) -> None:
    path = write_script(shared.folder / "sub", ARGPARSE)
    said = shared("exec", "--file", "sub/job.py", "--", "--lr", "0.1", "a b", "--", "c")
    assert (said.status, said.err) == (0, ""), said
    assert said.out == f"0.1 ['a b', 'c'] beside {path} sub/job.py\n"
    said = shared("exec", "sub/job.py")  # without arguments the kernel's own are not taken for them
    assert (said.status, said.out) == (1, f"1.0 [] beside {path} sub/job.py\n")
    assert said.err == "rkernel: the script ended with exit status 1\n"
    said = shared("exec", "sub/job.py", "--", "--no-such")
    assert (said.status, said.out) == (2, "")
    assert "usage: job.py" in said.err
    assert "unrecognized arguments: --no-such" in said.err
    gone = "import sys\n('__file__' in globals(), 'sub' in sys.path[0], '--lr' in sys.argv, len(sys.argv) > 2, exit)"
    assert shared.exec(gone).out.startswith(
        "(False,\n False,\n False,\n True,\n <IPython.core.autocall.ZMQExitAutocall"
    )


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit()", 0, ""),
        ("exit(3)", 3, "rkernel: the script ended with exit status 3\n"),
        ("sys.exit(-1)", 255, "rkernel: the script ended with exit status 255\n"),
        ("sys.exit('no such data')", 1, "no such data\nrkernel: the script ended with exit status 1\n"),
    ],
)
def test_script_gives_its_exit_status(shared: Rkernel, ending: str, status: int, words: str) -> None:
    path = write_script(shared.folder / "ends", f"import sys\nprint('begun')\n{ending}\nprint('never')\n")
    said = shared("exec", "--file", str(path))
    assert said == (status, "begun\n", words)
    found = json.loads(shared("wait", "--json").out)
    assert (found["verdict"], found["status"]) == ("error" if status else "ok", status)
    assert found["error"] is None


def test_script_that_raises_gives_1_and_leaves_nothing(shared: Rkernel) -> None:
    path = write_script(shared.folder / "raises", "import sys\nassert sys.argv[1:] == ['x']\n1 / 0\n")
    said = shared("exec", "--file", str(path), "--", "x")
    assert said.status == 1
    assert "ZeroDivisionError" in said.err
    assert shared.exec("import sys; sys.argv[1:2] == ['x'], '__file__' in globals()").out == "(False, False)\n"


@pytest.mark.parametrize("words", [("-c", "1"), ("-",), ("n.ipynb",), ("--side", "--file", "sub/job.py")])
def test_arguments_that_no_script_gets_are_refused(shared: Rkernel, words: tuple[str, ...]) -> None:
    write_script(shared.folder / "sub", ARGPARSE)
    before = cells(shared)
    said = shared("exec", *words, "--", "--lr", "2")
    assert said.status == 2
    assert "arguments" in said.err
    assert cells(shared) == before


def test_key_of_a_script_is_that_of_its_arguments_too(shared: Rkernel) -> None:
    write_script(shared.folder / "sub", ARGPARSE)
    words = ("exec", "--key", "of a script", "sub/job.py", "--", "--lr")
    assert shared(*words, "0.5").status == 0
    assert shared(*words, "0.5").status == 0
    said = shared(*words, "0.25")
    assert (said.status, said.out) == (2, "")
    assert "which has other code or arguments" in said.err


def test_script_and_folder_of_a_remote_kernel(
    alone: Rkernel, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    write_kernelspec(alone.folder / "kernels", "far", options_for("target", ssh_config, remote_python))
    write_script(alone.folder / "sub", "import sys\nprint(sys.argv, __file__, sys.path[0])\nsys.exit(3)\n")
    said = alone.exec("import os; os.makedirs('project', exist_ok=True)", "-k", "far", "-s", "home")
    assert re.search(r"with a kernel of far on \S+, in ~; ", said.err), said
    said = alone("exec", "-k", "far", "--cwd", "~/project", "--file", "sub/job.py", "--", "--lr", "0.1")
    there = f"{target.account.home}/project/sub"
    assert (said.status, said.out) == (3, f"['sub/job.py', '--lr', '0.1'] {there}/job.py {there}\n"), said
    assert alone.status()["folder"] == "~/project"
    assert alone.exec("import os; os.rmdir('../project')").status == 0


def test_script_that_ended_while_there_was_no_host_gives_its_exit_status(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop, over = tmp_path / "stop", tmp_path / "over"
    write_script(
        alone.folder / "sub",
        "import os, sys, time\nprint('begun', flush=True)\n"
        f"while not os.path.exists({str(stop)!r}): time.sleep(.02)\n"
        f"open({str(over)!r}, 'w').close()\nsys.exit(3)\n",
    )
    assert alone("exec", "--detach", "sub/job.py").status == 124
    alone.wait_running("begun\n")
    alone.host().kill()
    stop.touch()
    assert wait_until(over.exists)
    said = alone("wait", seconds=30)
    assert said.status == 3, said
    assert "the script ended with exit status 3" in said.err


def test_script_gets_its_arguments_where_the_kernels_folder_is_gone_and_where_it_runs_cells(shared: Rkernel) -> None:
    code = "import sys\nget_ipython().run_cell('pass')\nprint(sys.argv[1:], __file__)\n"
    path = write_script(shared.folder / "gone", code)
    leave = "import os; folder = os.getcwd(); os.mkdir('left'); os.chdir('left'); os.rmdir('../left')"
    assert shared.exec(leave).status == 0
    try:
        assert shared("exec", "--file", str(path), "--", "x") == (0, f"['x'] {path}\n", "")
        assert shared.exec("import sys; 'x' in sys.argv, '__file__' in globals()").out == "(False, False)\n"
    finally:
        assert shared.exec("os.chdir(folder)").status == 0
