"""`rkernel` used as somebody does who has read its help, and makes the mistakes that people and agents make."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.support.frontends import other_front_end
from tests.support.kernels import options_for, wait_until, write_kernelspec
from tests.support.rkernel import Rkernel, finish, running_rkernel, terminal
from tests.support.servers import Server, is_alive

FREED = "import time\nwaiting = True\nprint('begun', flush=True)\nwhile waiting: time.sleep(.02)"


def test_first_call_says_what_it_has_made_and_where_the_notebook_is(alone: Rkernel) -> None:
    said = alone.exec("6 * 7", "-k", "python3")
    log = alone.folder / "rkernel-work.ipynb"
    assert (said.status, said.out) == (0, "42\n")
    what = f"a kernel of python3, in {alone.folder}"
    assert said.err == f"rkernel: made session 'work' with {what}; all that runs is logged to {log}\n"
    assert alone.exec("1").err == ""


def test_cell_that_waits_is_not_said_to_run(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", FREED)
    shared.wait_running("begun")
    said = shared.exec("'its turn'", "--timeout", "0.5")
    assert said.status == 124
    found = re.search(r"waits behind 1 cell\n.*cell (\d+) is still waiting for its turn; .*rkernel wait", said.err)
    assert found, said
    assert shared.exec("waiting = False", "--side").status == 0
    assert finish(running).status == 0
    assert shared("wait", found[1]).out == "'its turn'\n"


def test_wait_without_a_number_does_not_mean_a_cell_beside(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", FREED + "\n'trained'")
    shared.wait_running("begun")
    assert shared.exec("1", "--side").out == "1\n"
    assert shared("tail").status == 124
    assert shared.exec("waiting = False", "--side").status == 0
    assert shared("wait").out == "begun\n'trained'\n"
    assert finish(running).status == 0


def test_place_to_go_on_from_is_checked(shared: Rkernel) -> None:
    assert shared.exec("print('a')").status == 0
    for place in ("3", "-3", "99999999"):
        said = shared("tail", "--since", place)
        assert (said.status, said.out) == (2, "")
        assert re.fullmatch(rf"rkernel: cell \d+ has no place {place} to go on from; .+\n", said.err)


def test_interrupt_says_what_it_did(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", FREED)
    number = shared.wait_running("begun")
    queued = shared.exec("1", "--detach")
    second = str(int(number) + 1)
    assert queued.status == 124
    assert shared("interrupt", "999").status == 2
    assert shared("interrupt", second).err == f"rkernel: cell {second} was taken out of the queue\n"
    assert shared("interrupt", number).err == f"rkernel: stopped cell {number}: import time\n"
    assert finish(running).status == 130
    assert shared("interrupt", number).err == f"rkernel: cell {number} has ended already\n"


@pytest.mark.parametrize("key", ["\x04", "\x03"], ids=["ctrl-d", "ctrl-c"])
def test_question_that_is_not_answered_stops_the_cell(shared: Rkernel, key: str) -> None:
    with terminal(shared, "exec", "--stdin", "-c", "name = input('who? ')") as shown:
        shown.expect("who? ")
        # input() overlooks a signal that comes between its prompt and its read.
        assert wait_until(lambda: psutil.Process(shown.process.pid).status() == psutil.STATUS_SLEEPING, 30)
        shown.type(key)
        shown.expect("interrupting cell ")
        assert shown.end() in (7, 130)
    assert "Traceback (most recent call last):\r\n  File" not in shown.seen  # that would be of the command itself
    assert shared.exec("'usable'").out == "'usable'\n"


def test_code_in_place_of_a_file_is_explained(shared: Rkernel) -> None:
    said = shared("exec", "x = 1")
    assert said.status == 2
    assert "--code" in said.err
    said = shared("exec", "missing.ipynb")
    assert said.status == 2


def test_interrupt_key_ends_a_look_and_leaves_the_cell_alone(shared: Rkernel) -> None:
    code = "import time\nfor _ in range(400): print('x' * 50_000, flush=True)\nprint('all')\ntime.sleep(60)"
    number = json.loads(shared.exec(code, "--detach", "--json").out)["cell"]
    assert shared.wait_running("all") == number
    with terminal(shared, "tail", number) as shown:
        shown.expect("x")
        shown.type("\x03")
        assert shown.end() == 130
    assert "interrupting" not in shown.seen
    assert shared.status()["running"]["cell"] == number
    assert shared("interrupt").status == 0


def test_time_that_is_none_is_refused_before_anything_is_sent(shared: Rkernel) -> None:
    cells = list(shared.place("cells").glob("*.jsonl"))
    said = shared.exec("1", "--timeout", "10x")
    assert (said.status, said.err) == (
        2,
        "rkernel: '10x' is not a duration; write for example 90, 15m, 24h, 2d or forever\n",
    )
    assert list(shared.place("cells").glob("*.jsonl")) == cells


def test_session_is_named_with_and_without_the_option(alone: Rkernel) -> None:
    alone.open()
    for words in (("work",), ("-s", "work")):
        assert alone("status", *words).out.startswith("session work")
    assert alone("status", "work", "-s", "other").status == 2
    assert alone("restart", "-s", "work").out == "kernel 2 of session work is ready\n"
    assert alone("close", "-s", "work", "work") == (0, "closed work\n", "")


def test_dead_kernel_is_lost_for_whoever_looks(alone: Rkernel) -> None:
    alone.open()
    said = alone.exec("import os; os._exit(3)")
    assert said.status == 4
    assert "'rkernel restart work' starts a new one" in said.err
    said = alone("vars")
    assert said.status == 4
    assert said.err.count("rkernel restart") == 1


def test_cells_of_other_clients_that_fail_over_and_over_abort_nothing(shared: Rkernel) -> None:
    other = BlockingKernelClient()
    other.load_connection_file(str(shared.place("kernel.json")))
    other.start_channels()
    over = threading.Event()

    def fail() -> None:
        while not over.is_set():
            for _ in range(6):
                other.execute("import time; time.sleep(.01); 1 / 0", stop_on_error=True)
            over.wait(0.15)

    failing = threading.Thread(target=fail)
    try:
        other.wait_for_ready(timeout=60)
        failing.start()
        said = [shared.exec(f"print({i})") for i in range(25)]
        assert [(one.status, one.out) for one in said] == [(0, f"{i}\n") for i in range(25)]
    finally:
        over.set()
        failing.join(10)
        other.stop_channels()
    assert wait_until(lambda: shared.status()["state"] == "idle", 60)


def test_status_shows_the_cell_of_another_front_end(shared: Rkernel) -> None:
    other = BlockingKernelClient()
    other.load_connection_file(str(shared.place("kernel.json")))
    other.start_channels()
    try:
        other.wait_for_ready(timeout=60)
        other.execute(FREED)
        assert wait_until(lambda: shared.status()["running"], 60)
        assert shared.status()["running"]["code"] == FREED
        said = shared.exec("'mine'", "--timeout", "0.5")
        assert (said.status, "waits behind 1 cell" in said.err) == (124, True)
        assert shared.exec("waiting = False", "--side").status == 0
        assert shared("wait").out == "'mine'\n"
    finally:
        other.stop_channels()


STUBBORN = """
import atexit, pathlib, subprocess, sys
quick = subprocess.Popen(["sleep", "600"])
ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE).stdout.readline() if STUBBORN else None
atexit.register(pathlib.Path("tidied").touch)
"""


@pytest.mark.parametrize("is_stubborn", [False, True], ids=["", "stubborn"])
def test_close_waits_for_child_processes_and_no_longer(alone: Rkernel, *, is_stubborn: bool) -> None:
    alone.open()
    kernel = alone.kernel()
    assert alone.exec(STUBBORN.replace("STUBBORN", str(is_stubborn))).status == 0
    children = kernel.children()
    assert len(children) == 1 + is_stubborn
    begun = time.monotonic()
    said = alone("close", alone.session)
    took = time.monotonic() - begun
    assert (said.status, said.out) == (0, f"closed {alone.session}\n")
    assert is_stubborn or took < 4.5  # 1 s; what nobody has waited for kept ipykernel for longer than 5 s
    assert not any(map(is_alive, children))
    assert (alone.folder / "tidied").exists(), "the kernel has ended by itself"
    left = f"rkernel: killed what the kernel had started and did not end: python.* \\({children[-1].pid}\\)\n"
    assert re.fullmatch(left if is_stubborn else "", said.err)


def test_traceback_names_cells_as_the_session_does(shared: Rkernel) -> None:
    number = count = 0
    for _ in range(2):  # cells of other front ends count in the kernel only: after those above they may be the same
        if number == count:
            shared.exec("1", "--side")  # counts here only
            shared.exec("def fails():\n    1 / 0")
            failed = json.loads(shared.exec("fails()", "--json").out)
            number, count = int(failed["cell"]), failed["execution_count"]
    assert number != count
    first, second = re.findall(r"Cell In\[(\d+)\] \(cell (\d+)\), line", failed["error"]["traceback"])
    assert (first, second) == ((str(count), str(number)), (str(count - 1), str(number - 1)))
    whole = shared("wait", str(number), "--full-traceback")
    assert f"Cell In[{count}] (cell {number}), line 1" in whole.err
    assert f"Cell In[{count}] (" not in shared.exec("fails()", "--side").err


def test_names_show_within_a_budget_and_how_to_see_the_rest(shared: Rkernel) -> None:
    many = "for number in range(1500): globals()[f'many_{number:04}'] = number"
    shared.exec(f"{many}\ndef far(): 'x'\nfar.__doc__ *= 20000")
    for words, hint in ((("vars",), "'loss*'"), (("inspect", "far"), "--budget 0"), (("complete", "many_"), "more of")):
        said = shared(*words)
        assert said.status == 0 and len(said.out) < 8400
        (left_out,) = [
            line for line in said.out.splitlines() if re.match(r"\.\.\. [\d,]+ characters.* left out; ", line)
        ]
        assert hint in left_out
        assert len(shared(*words, "--budget", "0").out) >= 15000
        assert len(shared(*words, "--budget", "500").out) < 700
    assert len(shared.ask("vars", "many_*")) == 1500
    shared.exec("for number in range(1500): del globals()[f'many_{number:04}']")


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "another front end's"])
def test_what_a_task_prints_after_its_cell_has_ended_is_in_the_notebook(
    shared: Rkernel, tmp_path: Path, *, is_ours: bool
) -> None:
    go = tmp_path / "go"
    code = (
        "import asyncio, os, sys\nasync def work():\n"
        f"    while not os.path.exists({str(go)!r}): await asyncio.sleep(.05)\n"
        "    print('late')\n    print('later', file=sys.stderr)\n"
        "task = asyncio.get_running_loop().create_task(work())\nprint('begun')"
    )
    if is_ours:
        said = shared.exec(code)
        assert (said.status, said.out) == (0, "begun\n")
    else:
        with other_front_end(shared.record()["connection_file"]) as client:
            client.execute(code, reply=True, timeout=30)
        assert wait_until(lambda: not shared.status()["running"])
    go.touch()
    log = Path(shared.status()["log"])

    def outputs() -> list[tuple[str, str]]:
        cells = nbformat.read(log, 4).cells
        return [(output.name, output.text) for cell in cells if cell.source == code for output in cell.outputs]

    assert wait_until(lambda: ("stderr", "later\n") in outputs())
    assert "".join(text for name, text in outputs() if name == "stdout") == "begun\nlate\n"
    nbformat.validate(nbformat.read(log, 4))


def test_kernelspec_and_session_of_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "kernels" / "Odd.Name-1_x"
    folder.mkdir(parents=True)
    odd = tmp_path / "a folder with ' and ü"
    odd.mkdir()
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Ödd 'name' (1)", "language": "python", "env": {"ODD": "a 'b' ü"}}
    (folder / "kernel.json").write_text(json.dumps(spec))
    with running_rkernel(tmp_path, session="s-1.x_Y") as rkernel:
        said = rkernel.exec(
            "import os; print(os.environ['ODD'])", "-k", "Ödd 'name' (1)", "--log", str(odd / "ü.ipynb")
        )
        assert (said.status, said.out) == (0, "a 'b' ü\n"), said
        assert rkernel.exec("1", "-k", "odd.name-1_X").out == "1\n"
        assert wait_until(lambda: json.loads((odd / "ü.ipynb").read_text())["cells"], 30)
        assert rkernel.exec("1", "-s", "no/slash").status == 2


def test_cell_outlives_a_cut_over_paramiko(
    target: Server, ssh_config: Path, remote_python: Path, tmp_path: Path
) -> None:
    options = options_for("target", ssh_config, remote_python, transport="paramiko")
    write_kernelspec(tmp_path / "kernels", "far", options)
    code = "import time\nfor i in range(30): print('line', i, flush=True); time.sleep(.1)\n'end'"
    with running_rkernel(tmp_path, "far") as rkernel:
        command = rkernel.start("exec", "-c", code)
        rkernel.wait_running("line 3\n")
        with target.away():
            assert wait_until(lambda: rkernel.status()["connected"] is False, 30)
            said = rkernel("vars")
            assert said.status == 6, said
        said = finish(command)
        assert said.status == 0, said
        assert said.out.splitlines() == [*(f"line {i}" for i in range(30)), "'end'"]
        assert "the connection is away; the cell goes on" in said.err
        assert "the connection is back" in said.err
        assert rkernel.exec("import getpass; getpass.getuser()").out == f"'{target.user}'\n"
        assert os.path.basename(rkernel.status()["log"]) == "rkernel-work.ipynb"


def test_output_that_cannot_be_written_says_so(shared: Rkernel) -> None:
    with open("/dev/full", "w") as full:
        for words in (("exec", "-c", "print('x' * 100_000)"), ("exec", "-c", "1", "--json"), ("ls",)):
            said = finish(shared.start(*words, stdout=full))
            assert said.status == 2
            assert (
                said.err == "rkernel: cannot write the output: No space left on device; 'rkernel wait' shows it again\n"
            )
    closed = f"exec {shlex.join(shared.command)} exec -c 'print(1)' >&-"
    process = subprocess.run(
        ["sh", "-c", closed], env=shared.environment, cwd=shared.folder, timeout=60, stderr=subprocess.PIPE, text=True
    )
    assert (process.returncode, process.stderr) == (0, "")
