"""Every exit status of `rkernel exec`, `wait` and `tail`, each produced by its real cause."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.kernels import wait_until
from tests.support.memory import can_limit_memory, limited_memory
from tests.support.rkernel import Rkernel, finish, terminal, write_notebook

OUT_OF_MEMORY = re.compile(
    r"the kernel was killed \(signal 9\), probably because the system ran out of memory; it used up to [23]\d\d MB"
)
SLEEPER = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


def test_cell_that_ends_well_gives_0_with_stdout_and_stderr_apart(shared: Rkernel) -> None:
    said = shared.exec("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (said.status, said.out, said.err) == (0, "out\n42\n", "err\n")


def test_code_comes_from_stdin_and_from_a_file_as_it_is(shared: Rkernel) -> None:
    code = "print('a\\\\n$HOME `b`')"
    (shared.folder / "cell.py").write_text(code)
    assert shared("exec", text=code).out == "a\\n$HOME `b`\n"
    assert shared("exec", "cell.py").out == "a\\n$HOME `b`\n"
    assert shared("exec", "-f", "cell.py").out == "a\\n$HOME `b`\n"


def test_exception_gives_1_with_its_traceback_on_stderr(shared: Rkernel) -> None:
    said = shared.exec("1 / 0")
    assert said.status == 1
    assert said.out == ""
    assert "ZeroDivisionError: division by zero" in said.err
    assert "\x1b" not in said.err


def test_error_that_the_kernel_does_not_count_as_the_cells_is_said(shared: Rkernel, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("1 / 0")
    said = shared.exec(f"%run {path}")
    assert said.status == 0
    words = "an error was shown (ZeroDivisionError), though the cell itself ended well"
    assert said.err.endswith(f"rkernel: {words}\n")
    document = json.loads(shared.exec(f"%run {path}", "--json").out)
    assert (document["verdict"], document["message"], document["error"]["name"]) == ("ok", words, "ZeroDivisionError")
    cleared = f"%run {path}\nfrom IPython.display import clear_output\nclear_output()"
    assert shared.exec(cleared).err == ""


def test_syntax_error_gives_1(shared: Rkernel) -> None:
    said = shared.exec("def f(:\n  pass")
    assert said.status == 1
    assert "SyntaxError" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "--no-such-option"),
        ("exec", "--timeout", "soon", "-c", "1"),
        ("exec", "-f", "no/such/file.py"),
        ("exec", "--json", "--jsonl", "-c", "1"),
        ("exec", "-c", "1", "-s", "a/b"),
        ("exec",),
        ("exec", "-f", "-"),
        ("wait", "999999"),
        ("wait", "no-cell"),
        ("no-such-command",),
        ("close",),
    ],
    ids=" ".join,
)
def test_usage_error_gives_2_in_one_line(shared: Rkernel, words: tuple[str, ...]) -> None:
    said = shared(*words)
    assert said.status == 2, said
    assert re.fullmatch(r"rkernel: .+; .+\n", said.err), said.err
    assert not said.out


@pytest.mark.parametrize("command", ["status", "wait", "tail", "interrupt", "vars"])
def test_session_that_is_not_there_gives_3(shared: Rkernel, command: str) -> None:
    said = shared(command, "-s", "nobody")
    assert said.status == 3
    assert said.err == "rkernel: there is no session 'nobody'; there are: work\n"


def test_close_of_a_session_that_is_not_there_gives_3(shared: Rkernel) -> None:
    assert shared("close", "nobody").status == 3


def test_time_that_runs_out_gives_124_and_the_cell_goes_on(shared: Rkernel) -> None:
    said = shared.exec("import time\nprint('one', flush=True)\ntime.sleep(3)\nprint('two')", "--timeout", "1")
    assert (said.status, said.out) == (124, "one\n")
    found = re.search(r"cell (\d+) is still running", said.err)
    assert found and f"rkernel wait -s work {found[1]}" in said.err
    waited = shared("wait", found[1])
    assert (waited.status, waited.out) == (0, "one\ntwo\n")
    assert shared("wait", found[1]).out == "one\ntwo\n"
    assert shared("wait").out == "one\ntwo\n"


def test_detached_cell_is_looked_at_piece_by_piece(shared: Rkernel) -> None:
    said = shared.exec(
        "print('one', flush=True)\nflag = False\nimport time\nwhile not flag: time.sleep(.01)", "--detach"
    )
    assert said.status == 124
    assert not said.out
    number = re.search(r"cell (\d+) is running in the background", said.err)
    assert number
    shared.wait_running("one")
    first = shared("tail", number[1])
    assert (first.status, first.out) == (124, "one\n")
    place = re.search(r"--since (\d+)", first.err)
    assert place
    assert shared("tail", number[1], "--since", place[1]).out == ""
    assert shared.exec("flag = True\nprint('elsewhere')", "--side").out == "elsewhere\n"
    waited = shared("wait", number[1], "--since", place[1])
    assert (waited.status, waited.out) == (0, "")
    assert shared("tail", number[1]).status == 0


def test_detached_cell_that_has_ended_is_shown_when_its_key_is_sent_again(shared: Rkernel) -> None:
    wait = "import time\nwhile not free: time.sleep(.01)\nprint('one')\n1 / 0"
    assert shared.exec("free = False").status == 0
    for _ in range(2):
        said = shared.exec(wait, "--detach", "--key", "once")
        assert said.status == 124
        assert "in the background" in said.err
    assert shared.exec("free = True", "--side").status == 0
    assert shared("wait").status == 1
    again = shared.exec(wait, "--detach", "--key", "once")
    assert (again.status, again.out) == (1, "one\n"), again
    assert "ZeroDivisionError" in again.err
    assert "in the background" not in again.err
    document = json.loads(shared.exec(wait, "--detach", "--key", "once", "--json").out)
    assert (document["verdict"], document["stdout"]) == ("error", "one\n")


def test_help_that_a_cell_asks_for_is_shown(shared: Rkernel) -> None:
    said = shared.exec("print('first')\nget_ipython().run_line_magic('pinfo', 'len')")
    assert said.status == 0
    assert said.out.startswith("first\n")
    assert "Return the number of items in a container" in said.out
    assert "Return the number of items" in shared.exec("len?").out


def test_detached_cell_for_another_kernel_does_not_run(shared: Rkernel) -> None:
    said = shared.exec("1", "--detach", "--generation", "7")
    assert said.status == 4
    assert "this is kernel 1 of the session, not kernel 7" in said.err


def test_kernel_that_is_killed_gives_4_to_the_running_and_the_queued_cell(alone: Rkernel) -> None:
    alone.open()
    running = alone.start("exec", "-c", SLEEPER)
    alone.wait_running("begun")
    queued = alone.start("exec", "-c", "print('never')")
    assert wait_until(lambda: alone.status()["queued"])
    assert wait_until(lambda: alone.status()["memory_bytes"])
    alone.kernel().kill()
    first, second = finish(running), finish(queued)
    assert first.status == 4
    assert re.search(r"the kernel was killed \(signal 9\), .*it used up to \d+ MB", first.err), first.err
    assert (second.status, second.out) == (4, "")
    assert "killed (signal 9)" in second.err
    assert alone.exec("1", "--detach").status == 4
    later = alone.exec("1")
    assert later.status == 4
    assert "rkernel restart work" in later.err
    assert alone.status()["state"] == "dead"
    assert alone("restart").status == 0
    assert alone.exec("'flag' in dir()", "--json").status == 0
    assert alone.status()["generation"] == 2


@pytest.mark.skipif(not can_limit_memory(), reason="only root can make a control group here")
def test_kernel_that_runs_out_of_memory_gives_4_with_what_it_used(alone: Rkernel) -> None:
    alone.open()
    with limited_memory(alone.kernel().pid, 250_000_000):
        said = alone.exec("x = b'x' * 500_000_000")
    assert said.status == 4
    assert OUT_OF_MEMORY.search(said.err), said.err
    said = alone.exec("x")
    assert said.status == 4
    assert OUT_OF_MEMORY.search(said.err), said.err


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("exit()", "ended by itself with exit status 0"),
        ("import os; os._exit(3)", "ended by itself with exit status 3"),
        ("import os; os.abort()", "ended by signal 6"),
    ],
)
def test_kernel_that_ends_by_itself_gives_4(alone: Rkernel, code: str, words: str) -> None:
    alone.open()
    said = alone.exec(code)
    if code != "exit()":  # which the kernel answers before it goes
        assert said.status == 4
        assert words in said.err
    said = alone.exec("print('in a dying kernel')")
    assert (said.status, said.out, words in said.err) == (4, "", True), said


@pytest.mark.parametrize("is_attached", [False, True], ids=["started", "attached"])
def test_cells_behind_one_that_ends_the_kernel_do_not_run(alone: Rkernel, tmp_path: Path, *, is_attached: bool) -> None:
    alone.open()
    if is_attached:
        assert alone("attach", alone.record()["connection_file"], "-s", "other", "--no-log").status == 0
        alone = Rkernel(tmp_path, session="other")
    stop = tmp_path / "stop"
    wait = f"import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({str(stop)!r}): time.sleep(.02)\n"
    first = alone.start("exec", "-c", f"{wait}quit()")
    alone.wait_running("begun")
    later = [alone.start("exec", "-c", f"open({str(tmp_path / name)!r}, 'w')") for name in ("one", "two")]
    assert wait_until(lambda: len(alone.status()["queued"]) == 2)
    stop.touch()
    since = time.monotonic()
    assert finish(first).status == 0
    assert [finish(command).status for command in later] == [4, 4]
    assert time.monotonic() - since < 6  # ten more are for a kernel that somebody restarts
    assert not (tmp_path / "one").exists() and not (tmp_path / "two").exists()


def test_notebook_stops_where_a_cell_ends_the_kernel(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    path = write_notebook(tmp_path / "ends.ipynb", "quit()", "print('in a dying kernel')")
    said = alone("exec", str(path))
    assert (said.status, "in a dying kernel" in said.out) == (4, False), said


def test_memory_that_runs_out_is_an_exception_or_a_dead_kernel(alone: Rkernel) -> None:
    alone.open()
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\nx = bytearray(8 << 30)"
    said = alone.exec(code)
    assert said.status == 1
    assert "MemoryError" in said.err
    assert alone.exec("1").status == 0


def test_answer_for_another_generation_gives_4(alone: Rkernel) -> None:
    alone.open()
    assert alone.exec("x = 1", "--generation", "1").status == 0
    assert json.loads(alone.exec("x", "--json").out)["generation"] == 1
    assert alone("restart").out == "kernel 2 of session work is ready\n"
    said = alone.exec("print('never')", "--generation", "1")
    assert (said.status, said.out) == (4, "")
    assert "this is kernel 2 of the session, not kernel 1" in said.err
    assert json.loads(alone.exec("0", "--json", "--generation", "2").out)["generation"] == 2


def test_cell_that_another_one_had_aborted_gives_5(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", SLEEPER)
    shared.wait_running("begun")
    queued = shared.start("exec", "-c", "print('never')")
    assert wait_until(lambda: shared.status()["queued"])
    assert shared("interrupt", shared.status()["queued"][0]).status == 0
    said = finish(queued)
    assert (said.status, said.out) == (5, "")
    assert "it was taken out of the queue" in said.err
    assert running.poll() is None
    assert shared("interrupt").status == 0
    assert finish(running).status == 130


def test_input_is_refused_at_once_with_7(shared: Rkernel) -> None:
    begun = time.monotonic()
    said = shared.exec("name = input('who? ')")
    assert said.status == 7
    assert time.monotonic() - begun < 20
    assert "give --answer TEXT or --stdin" in said.err
    assert shared.exec("1").status == 0


def test_answers_go_to_input_and_the_first_one_too_many_is_refused(shared: Rkernel) -> None:
    said = shared.exec("print(input('a? ') + input('b? '))", "--answer", "x", "--answer", "yä")
    assert (said.status, said.out) == (0, "xyä\n")
    said = shared.exec("print(input())\nprint(input())", "--answer", "x")
    assert (said.status, said.out) == (7, "x\n")


def test_input_asks_in_the_terminal(shared: Rkernel) -> None:
    with terminal(shared, "exec", "--stdin", "-c", "print('hello ' + input('who? '))") as shown:
        shown.expect("who? ")
        shown.type("me\n")
        shown.expect("hello me")
        assert shown.end() == 0
    assert shared("exec", "--stdin", "-c", "input()").status == 2


def test_question_beside_other_cells_is_not_waited_for_when_its_client_is_killed(shared: Rkernel) -> None:
    with terminal(shared, "exec", "--stdin", "--side", "-c", "'got ' + input('who? ')") as shown:
        shown.expect("who? ")
    newest = max(int(path.stem) for path in shared.place("cells").glob("*.jsonl"))
    assert shared("wait", str(newest)).out == "'got '\n"  # an empty line: nothing else ends it


def test_somebody_who_only_looks_leaves_the_question_alone(shared: Rkernel) -> None:
    with terminal(shared, "exec", "--stdin", "-c", "print('hello ' + input('who? '))") as shown:
        shown.expect("who? ")
        assert shared("tail").status == 124
        assert shared("wait", "--timeout", "0.2").status == 124
        shown.type("me\n")
        shown.expect("hello me")
        assert shown.end() == 0


def test_interrupt_gives_130(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", SLEEPER)
    number = shared.wait_running("begun")
    said = shared("interrupt")
    assert (said.status, said.err) == (0, f"rkernel: stopped cell {number}: {SLEEPER.splitlines()[0]}\n")
    said = finish(running)
    assert said.status == 130
    assert said.out == "begun\n"
    assert shared("interrupt").err == "rkernel: nothing runs\n"


STOPPED = {
    "awaits": ("import asyncio\nprint('begun', flush=True)\nawait asyncio.sleep(30)", "CancelledError"),
    "a shell's": ("%%bash\necho begun\nsleep 30", "CalledProcessError"),
}


@pytest.mark.parametrize("what", STOPPED)
def test_interrupt_stops_at_once_what_ends_otherwise_than_by_keyboard_interrupt(either: Rkernel, what: str) -> None:
    code, words = STOPPED[what]
    running = either.start("exec", "-c", code)
    number = either.wait_running("begun")
    begun = time.monotonic()
    assert either("interrupt").err.startswith(f"rkernel: stopped cell {number}")
    said = finish(running)
    assert time.monotonic() - begun < 8  # and not 10 s, or 30
    assert (said.status, words in said.err) == (130, True), said
    assert either("wait", number).status == 130
    assert either.exec("6 * 7").out == "42\n"


def test_ctrl_c_interrupts_the_cell(shared: Rkernel) -> None:
    with terminal(shared, "exec", "-c", SLEEPER) as shown:
        shown.expect("begun")
        shown.type("\x03")
        shown.expect("; Ctrl-C again leaves it running")
        shown.expect("KeyboardInterrupt")
        assert shown.end() == 130
    assert not shared.status()["running"]


@pytest.mark.parametrize("is_notebook", [False, True], ids=["cell", "notebook"])
def test_second_ctrl_c_leaves_the_cell_running(shared: Rkernel, tmp_path: Path, *, is_notebook: bool) -> None:
    stubborn = """
import time
print('begun', flush=True)
for _ in range(600):
    try:
        time.sleep(.1)
        if free: break
    except KeyboardInterrupt:
        print('no', flush=True)
"""
    assert shared.exec("free = False").status == 0
    notebook = write_notebook(tmp_path / "n.ipynb", stubborn)
    with terminal(shared, "exec", *([str(notebook)] if is_notebook else ["-c", stubborn])) as shown:
        shown.expect("begun")
        shown.type("\x03")
        shown.expect("Ctrl-C again leaves it running")
        shared.wait_running("no")
        shown.type("\x03")
        assert shown.end(20) == 130
    number = shared.status()["running"]["cell"]
    time.sleep(2.5)  # in which a client that waits would have it interrupted once more
    assert shared.exec("free = True", "--side").status == 0
    said = shared("wait", number)
    assert said.status == 0
    assert said.out == "begun\nno\n"


def test_reader_that_leaves_ends_the_command_and_not_the_cell(shared: Rkernel) -> None:
    code = "import time\nfor i in range(20): print('line', i, flush=True); time.sleep(.05)"
    command = shared.start("exec", "-c", code)
    head = subprocess.run(["head", "-1"], stdin=command.stdout, capture_output=True, text=True, timeout=60)
    assert command.stdout
    command.stdout.close()
    assert command.stderr
    said = command.stderr.read()
    command.stderr.close()
    assert command.wait(60) == 141
    assert head.stdout == "line 0\n"
    assert "Traceback" not in said
    waited = shared("wait")
    assert waited.status == 0
    assert waited.out.splitlines()[-1] == "line 19"


def test_signal_ends_the_command_and_not_the_cell(shared: Rkernel) -> None:
    assert shared.exec("free = False").status == 0
    code = "import time\nprint('begun', flush=True)\nwhile not free: time.sleep(.01)\nprint('end')"
    command = shared.start("exec", "-c", code)
    shared.wait_running("begun")
    command.send_signal(signal.SIGTERM)
    finish(command)
    assert shared.exec("free = True", "--side").status == 0
    assert shared("wait").out == "begun\nend\n"


def test_start_that_fails_gives_its_own_status_and_leaves_no_session(alone: Rkernel) -> None:
    said = alone.exec("1", "-k", "no-such-kernelspec", "-s", "new")
    assert said.status == 3
    assert "there is no kernelspec 'no-such-kernelspec'" in said.err
    for name, argv in {
        "broken": [sys.executable, "-c", "import sys; sys.exit('this kernel does not start')"],
        "missing": ["/no/such/program"],
    }.items():
        folder = alone.folder / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": [*argv, "{connection_file}"], "display_name": name, "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    said = alone.exec("1", "-k", "broken", "-s", "new")
    assert said.status == 50
    assert "this kernel does not start" in said.err
    said = alone.exec("1", "-k", "missing", "-s", "new")
    assert said.status == 50
    assert "/no/such/program" in said.err
    assert alone.ask("ls") == []
    assert not alone.processes()
