"""A program uses sessions through the Python interface, as its docstrings and docs/agents.md say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.client import (
    InputWanted,
    NoSuchSession,
    NotebookCell,
    Request,
    Running,
    Session,
    StillRunning,
)
from remote_kernel.session.events import Display, Done, Error, Event, Queued, Started, Stream
from remote_kernel.session.questions import Variable
from tests.support.rkernel import Rkernel, running_rkernel

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"


@pytest.fixture
def rkernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rkernel]:
    """Yield `rkernel` whose sessions are this process's too; what is left of them ends with the test."""
    with running_rkernel(tmp_path) as command:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(command.runtime))
        monkeypatch.chdir(tmp_path)
        yield command


def done(events: list[Event]) -> Done:
    """Return the last event, which is Done."""
    last = events[-1]
    assert isinstance(last, Done)
    return last


def printed(events: list[Event]) -> str:
    """Return all text of the streams."""
    return "".join(event.text for event in events if isinstance(event, Stream))


def test_session_runs_cells_and_is_shared_with_the_command(rkernel: Rkernel, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(NoSuchSession):
        Session("work").status()
    with pytest.raises(NoSuchSession):
        Session.open("work")
    session = Session.open("work", kernelspec="python3", log="mine.ipynb")
    assert Session.open("work").status().pid == session.status().pid

    events = list(session.execute("x = 6\nprint(x)\nx * 7"))
    kinds = [type(event) for event in events if isinstance(event, (Queued, Started, Stream, Display, Done))]
    assert kinds == [Queued, Started, Stream, Display, Done]
    assert printed(events) == "6\n"
    (shown,) = [event for event in events if isinstance(event, Display)]
    assert (shown.data["text/plain"], shown.result) == ("42", True)
    assert (done(events).verdict, done(events).status, done(events).generation) == ("ok", 0, 1)
    failed = list(session.execute("1 / 0"))
    (error,) = [event for event in failed if isinstance(event, Error)]
    assert (error.name, done(failed).status) == ("ZeroDivisionError", 1)

    assert rkernel.exec("x").out == "6\n"
    assert Variable("x", "int", value="6") in session.variables("x")
    assert "x" in session.complete("x").matches
    assert session.inspect("print").found
    assert session.restart() == (2, ())
    assert done(list(session.execute(Request("x", generation=1)))).verdict == "lost"
    assert [cell.source for cell in nbformat.read(tmp_path / "mine.ipynb", as_version=4).cells][-1] == "x"
    session.close()
    assert not set(psutil.Process().children()) - before
    assert (tmp_path / "mine.ipynb").exists()
    with pytest.raises(NoSuchSession):
        session.close()


def test_cell_is_followed_from_where_it_was_left(rkernel: Rkernel) -> None:
    session = Session.open("work", kernelspec="python3", log="")
    code = "import time\nprint('begun', flush=True)\nwhile waiting: time.sleep(.02)\nprint('end')"
    assert done(list(session.execute("waiting = True"))).verdict == "ok"
    request = Request(code, key="once", author="a program")
    running = session.execute(request)
    seen: list[Event] = []
    with pytest.raises(StillRunning) as still:
        seen.extend(running.limit(1.0))
    assert printed(seen) == "begun\n"
    assert (still.value.cell, still.value.next) == (running.cell, running.next)

    again = session.execute(request)  # the key: it is not run a second time
    assert again.cell == running.cell
    again.close()
    with pytest.raises(UsageError, match="no place"):
        session.follow(running.cell, running.next - 1)
    assert done(list(session.execute(Request("waiting = False", side=True)))).verdict == "ok"
    rest = list(session.follow(still.value.cell, still.value.next))
    assert printed(rest) == "end\n"
    assert printed(list(session.follow(running.cell))) == "begun\nend\n"
    session.close()


def test_questions_are_answered_by_the_program(rkernel: Rkernel) -> None:
    session = Session.open("work", kernelspec="python3", log="")
    assert printed(list(session.execute(Request("print(input())", answers=["yes"])))) == "yes\n"

    def talk(running: Running) -> Iterator[Event]:
        for event in running:
            if isinstance(event, InputWanted):
                running.answer(f"for {event.prompt}")
            yield event

    assert printed(list(talk(session.execute(Request("print(input('a? '))", asks=True))))) == "for a? \n"
    assert done(list(session.execute("input()"))).verdict == "input"
    session.close()


def test_program_runs_the_cells_of_a_notebook(rkernel: Rkernel) -> None:
    session = Session.open("work", kernelspec="python3", log="")
    sources = ("x = input()", "1 / 0", "print(x, input())", "[][1]", "print('never')")
    cells = [NotebookCell(f"c{place}", code, may_fail="0" in code) for place, code in enumerate(sources)]
    numbers = session.run_notebook(cells, Request("", key="mine", answers=["a", "b"]))
    assert session.run_notebook(cells, Request("", key="mine")) == numbers
    ends = [list(session.follow(number)) for number in numbers]
    assert [done(events).verdict for events in ends] == ["ok", "error", "ok", "error", "aborted"]
    assert printed(ends[2]) == "a b\n"
    session.close()


def test_start_that_fails_raises_what_kept_it(rkernel: Rkernel) -> None:
    with pytest.raises(RemoteKernelError, match="no kernelspec 'nope'"):
        Session.open("work", kernelspec="nope")
    assert rkernel.ask("ls") == []


def test_example_of_the_page_works(rkernel: Rkernel, tmp_path: Path) -> None:
    (source,) = re.findall(r"^## From Python$.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    folder = tmp_path / "kernels" / "remote_cuda"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Remote CUDA", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))

    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env={**os.environ, "JUPYTER_PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert (ran.returncode, ran.stderr) == (0, ""), ran
    assert ran.stdout == "epoch 0\nepoch 1\nepoch 2\n0.125\nok\n"
