"""Notebooks run by `rkernel exec`: what they ask for, which kernel they get, and the copy with what they gave."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import nbformat

from tests.support.kernels import wait_until
from tests.support.rkernel import Rkernel, terminal, write_notebook


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


def outputs(copy: Path) -> list[str]:
    """Read what each cell of a copy has printed."""
    document = nbformat.read(copy, as_version=4)
    nbformat.validate(document)
    return ["".join(output.get("text", output.get("ename", "")) for output in cell.outputs) for cell in document.cells]


def until(path: Path) -> str:
    """Return a cell that runs until there is this file."""
    waiting = f"while not os.path.exists({str(path)!r}): time.sleep(.02)"
    return f"import os, time\nprint('begun', flush=True)\n{waiting}\nprint('over')"


def test_detached_notebook_is_looked_at_and_waited_for(shared: Rkernel, tmp_path: Path) -> None:
    stop, copy = tmp_path / "stop", tmp_path / "n_out.ipynb"
    notebook = write_notebook(tmp_path / "n.ipynb", "print('first')", until(stop), "print('last')")
    said = shared("exec", str(notebook), "--detach")
    assert (said.status, said.out) == (124, "")
    told = r"cell (\d+) is running in the background, and cells up to (\d+) follow; .*wait -s work (\S+) "
    found = re.search(told, said.err)
    assert found and found[3] == f"{found[1]}-{found[2]}"
    assert int(found[2]) == int(found[1]) + 2
    assert f"rkernel: what they give goes into {copy}\n" in said.err
    shared.wait_running("begun")
    looked = shared("tail")
    assert (looked.status, looked.out) == (124, "begun\n")
    assert shared("tail", found[3]).out == "first\nbegun\n"
    assert wait_until(lambda: outputs(copy) == ["first\n", "", ""])
    stop.touch()
    waited = shared("wait")
    assert (waited.status, waited.out) == (0, "first\nbegun\nover\nlast\n")
    assert f"rkernel: the executed copy is {copy}\n" in waited.err
    assert outputs(copy) == ["first\n", "begun\nover\n", "last\n"]
    assert not list(shared.place("cells").glob("*.copy"))
    document = json.loads(shared("wait", found[3], "--json").out)
    assert (document["verdict"], document["status"], document["copy"]) == ("ok", 0, str(copy))
    assert [cell["stdout"] for cell in document["cells"]] == ["first\n", "begun\nover\n", "last\n"]
    assert shared("tail").out == "last\n"


def test_notebook_with_a_key_runs_once(shared: Rkernel, tmp_path: Path) -> None:
    assert shared.exec("runs = 0").status == 0
    notebook = write_notebook(tmp_path / "n.ipynb", "runs += 1", "print(runs)")
    words = ("exec", str(notebook), "--key", "notebook-1")
    for more in ((), ("--detach",), ("--json",)):
        said = shared(*words, *more)
        assert said.status == 0
        assert said.out == "1\n" or json.loads(said.out)["cells"][1]["stdout"] == "1\n"
        assert outputs(tmp_path / "n_out.ipynb") == ["", "1\n"]
    for sources in (("runs += 1",), ("runs += 1", "print(runs)", "0"), ("runs += 1", "print(runs + 1)")):
        write_notebook(notebook, *sources)
        refused = shared(*words)
        assert refused.status == 2
        assert "which has other code" in refused.err
    assert outputs(tmp_path / "n_out.ipynb") == ["", "1\n"]


def test_notebook_ends_at_the_first_cell_that_may_not_fail(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "1 / 0", "print('goes on')", "[][1]", "print('never')")
    document = nbformat.read(notebook, as_version=4)
    document.cells[0].metadata.tags = ["raises-exception"]
    nbformat.write(document, notebook)
    said = shared("exec", str(notebook))
    assert (said.status, said.out) == (1, "goes on\n")
    copy = tmp_path / "n_out.ipynb"
    assert outputs(copy) == ["ZeroDivisionError", "goes on\n", "IndexError", ""]
    assert f"rkernel: to go on in the same copy, add --from-cell 3 --output {copy}\n" in said.err
    assert shared("tail").status == 1
    newest = max(int(path.stem) for path in shared.place("cells").glob("*.jsonl"))
    said = shared("wait", str(newest))
    assert said.status == 5
    assert f"it never ran: cell {newest - 1} of the same notebook did not end well" in said.err
    assert shared("wait").status == 1
    document.cells[2].source, document.cells[3].source = "print('mended')", "print('last')"
    nbformat.write(document, notebook)
    assert shared("exec", str(notebook), "--from-cell", "3", "--output", str(copy)).out == "mended\nlast\n"
    assert outputs(copy) == ["ZeroDivisionError", "goes on\n", "mended\n", "last\n"]


def test_interrupt_ends_a_notebook_even_if_its_cell_goes_on(shared: Rkernel, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    patient = f"try: exec({until(stop)!r})\nexcept KeyboardInterrupt: print('caught')"
    notebook = write_notebook(tmp_path / "n.ipynb", patient, "print('never')")
    assert shared("exec", str(notebook), "--detach").status == 124
    shared.wait_running("begun")
    assert shared("interrupt").status == 0
    said = shared("wait")
    assert (said.status, said.out) == (5, "begun\ncaught\n")
    assert outputs(tmp_path / "n_out.ipynb") == ["begun\ncaught\n", ""]


def test_copy_that_is_gone_is_an_error(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "n.ipynb", f"import os; os.unlink({str(tmp_path / 'n_out.ipynb')!r})", "print(1)"
    )
    said = shared("exec", str(notebook))
    assert (said.status, said.out) == (2, "1\n")
    assert "n_out.ipynb is gone" in said.err


def test_notebook_goes_on_when_its_client_and_host_are_killed(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    sources = ("print(input())", until(stop), "print(input())", "print('last')")
    notebook = write_notebook(tmp_path / "n.ipynb", *sources)
    command = alone.start("exec", str(notebook), "--answer", "Ann", "--answer", "Bob")
    alone.wait_running("begun")
    command.kill()
    command.wait(10)
    alone.host().kill()
    assert wait_until(lambda: not alone.hosts())
    assert alone.status()["running"]  # by the next host: what is printed while there is none may be missing
    stop.touch()
    said = alone("wait")
    assert (said.status, said.out) == (0, "Ann\nbegun\nover\nBob\nlast\n"), said
    assert outputs(tmp_path / "n_out.ipynb") == ["Ann\n", "begun\nover\n", "Bob\n", "last\n"]
    assert not [path for path in alone.place("cells").iterdir() if path.suffix in (".answers", ".copy")]


def test_notebook_that_is_closed_away_keeps_what_it_gave(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    notebook = write_notebook(tmp_path / "n.ipynb", until(tmp_path / "never"), "print('never')")
    assert alone("exec", str(notebook), "--detach").status == 124
    alone.wait_running("begun")
    assert alone("close", "work").status == 0
    assert outputs(tmp_path / "n_out.ipynb") == ["begun\nKeyboardInterrupt", ""]


def test_notebook_asks_in_the_terminal(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "n = input('first? ')", "print(n + input('second? '))")
    with terminal(shared, "exec", "--stdin", str(notebook)) as shown:
        for question in ("first? ", "second? "):
            shown.expect(question)
            shown.type("me\n")
        shown.expect("meme")
        assert shown.end() == 0


def test_kernelspecs_that_are_of_no_use_keep_nobody_from_the_others(shared: Rkernel) -> None:
    for name, fields in (
        ("no-env", {"argv": ["a"], "env": "abc"}),
        ("no-argv", []),
        ("no-program", {"argv": ["/gone/python"], "language": "python"}),
    ):
        place = shared.folder / "kernels" / name
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(fields))
    try:
        assert {"python3", "no-program"} <= {one["name"] for one in shared.ask("kernelspecs")}
        for name, status, words in (
            ("no-env", 2, "has an env that is no object"),
            ("no-program", 50, "rkernel: cannot start 'no-program': there is no such program: /gone/python; see"),
            ("no-such", 3, "there is no kernelspec 'no-such'"),
        ):
            said = shared.exec("1", "-s", "new", "-k", name)
            assert said.status == status, said
            assert words in said.err
        assert "new" not in {one["session"] for one in shared.ask("ls")}
    finally:
        for path in (shared.folder / "kernels").glob("no-*"):
            shutil.rmtree(path)


def test_notebook_with_odd_values_is_read_as_far_as_it_goes(shared: Rkernel, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "print(1)", "print(2)")
    document = json.loads(notebook.read_text())
    document["cells"][0]["source"], document["cells"][1]["metadata"]["tags"] = 5, 5
    notebook.write_text(json.dumps(document))
    assert shared("exec", str(notebook)).out == "2\n"
