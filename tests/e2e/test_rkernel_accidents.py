"""What becomes of a session when something beside its kernel goes wrong: disks, process numbers, clients, tools."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.support.kernels import wait_until
from tests.support.rkernel import Rkernel, finish, terminal, write_notebook
from tests.support.servers import wait_ended

ENDLESS = "print('begun', flush=True)\nwhile True: print('x' * 1000, flush=True)"
WAITING = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


def test_process_that_has_got_a_dead_kernels_number_is_left_alone(alone: Rkernel) -> None:
    alone.open()
    alone.host().kill()
    kernel = alone.kernel()
    os.killpg(alone.record()["pid"], signal.SIGKILL)
    wait_ended([kernel])
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        alone.place("session.json").write_text(json.dumps({**alone.record(), "pid": stranger.pid}))
        assert alone.status()["state"] == "dead"
        assert alone("close", "work").status == 0
        assert stranger.poll() is None
        stranger.kill()


def test_session_whose_restart_failed_keeps_what_its_cells_gave(alone: Rkernel) -> None:
    spec = alone.folder / "kernels" / "breaks"
    spec.mkdir(parents=True)
    works = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Breaks"}
    (spec / "kernel.json").write_text(json.dumps(works))
    alone.open("breaks")
    number = alone.ask("exec", "-c", "print('kept')", "--key", "k")["cell"]
    (spec / "kernel.json").write_text(json.dumps({**works, "argv": ["/no/such/python"]}))
    assert alone("restart").status == 50
    for _ in range(2):
        assert alone("refresh").status == 0
        said = alone.exec("1")
        assert (said.status, said.out) == (4, ""), said
        assert "rkernel restart work" in said.err
        assert alone("wait", number).out == "kept\n"
        assert alone.exec("print('kept')", "--key", "k").out == "kept\n"
    (spec / "kernel.json").write_text(json.dumps(works))
    assert alone("restart").status == 0
    assert alone.exec("'works'").out == "'works'\n"


def test_session_of_a_kernel_that_is_gone_is_not_removed_by_looking_at_it(alone: Rkernel) -> None:
    alone.open()
    other = Rkernel(alone.folder, session="guest")
    assert other("attach", "-s", "guest", alone.record()["connection_file"]).status == 0
    number = other.ask("exec", "-c", "print('kept')")["cell"]
    (host,) = [one for one in other.hosts() if "guest" in one.cmdline()]
    host.kill()
    wait_ended([host])
    assert alone("close", "work").status == 0
    assert "guest" in other("ls").out
    said = other("exec", "-s", "guest", "-c", "1")
    assert (said.status, said.out) == (4, ""), said
    assert "its connection file with it" in said.err
    assert other("wait", "-s", "guest", number).out == "kept\n"
    assert other("close", "guest").status == 0


def test_client_that_is_stopped_does_not_keep_a_host_from_being_replaced(alone: Rkernel) -> None:
    alone.open()
    command = alone.start("exec", "-c", ENDLESS, "--budget", "0")
    alone.wait_running("begun")
    command.send_signal(signal.SIGSTOP)
    try:
        assert alone("refresh").status == 0
        assert alone("interrupt").status == 0
    finally:
        command.kill()
        command.wait(10)
    assert alone.exec("'here'").out == "'here'\n"


def test_tail_and_wait_show_all_of_a_cell_that_has_ended(alone: Rkernel) -> None:
    alone.open()
    code = "for i in range(60_000): print(i, 'x' * 500)"
    assert alone.exec(code).status == 0
    for words in (("tail",), ("wait", "--timeout", "0.01")):
        said = alone(*words)
        assert said.status == 0, said.err
        assert f"59999 {'x' * 500}\n" in said.out
    path = next(alone.place("cells").glob("*.txt"))
    assert path.read_text().count("\n") == 60_000


def test_file_of_a_client_that_was_killed_is_removed_by_the_next(alone: Rkernel) -> None:
    alone.open()
    command = alone.start("exec", "-c", ENDLESS)
    alone.wait_running("begun")
    assert wait_until(lambda: list(alone.place("cells").glob("*.partial")))
    command.kill()
    command.wait(10)
    assert alone("interrupt").status == 0
    assert alone("wait").status == 130
    assert list(alone.place("cells").glob("*.partial")) == []
    assert len(list(alone.place("cells").glob("*.txt"))) == 1


def test_interrupt_key_ends_the_cell_of_a_notebook_whatever_is_being_shown(alone: Rkernel) -> None:
    alone.open()
    path = write_notebook(alone.folder / "n.ipynb", ENDLESS, "'never'")
    with terminal(alone, "exec", str(path)) as shown:
        shown.expect("begun")
        shown.type("\x03")
        assert shown.end() == 130
    assert wait_until(lambda: alone.status()["state"] == "idle")
    assert "never" not in shown.seen


def test_time_limit_of_a_notebook_is_that_of_all_its_cells(alone: Rkernel) -> None:
    alone.open()
    path = write_notebook(alone.folder / "n.ipynb", *["import time; time.sleep(1); print('slept')"] * 6)
    said = alone("exec", str(path), "--timeout", "2.5")
    assert said.status == 124, said
    found = re.search(r"is still running, and cells up to 7 follow; go on with 'rkernel wait -s work (\d)-7 ", said.err)
    assert found, said
    assert "rkernel: what they give goes into " in said.err
    said = alone("exec", str(path), "--output", "other.ipynb", "--timeout", "0")
    assert said.status == 124
    assert "Traceback" not in said.err
    assert alone("interrupt", "8").status == 0
    said = alone("wait", f"{found[1]}-7")
    assert (said.status, said.out) == (0, "slept\n" * (8 - int(found[1])))
    assert f"rkernel: the executed copy is {path.with_name('n_out.ipynb')}\n" in said.err
    copy = nbformat.read(path.with_name("n_out.ipynb"), as_version=4)
    assert [cell.outputs[0].text for cell in copy.cells] == ["slept\n"] * 6


def test_key_of_a_cell_that_never_ran_can_be_sent_again_and_one_with_other_code_is_refused(alone: Rkernel) -> None:
    alone.open()
    assert alone.exec(WAITING, "--detach").status == 124
    number = json.loads(alone.exec("'mine'", "--detach", "--json", "--key", "k").out)["cell"]
    assert alone("interrupt", number).status == 0
    assert alone("interrupt").status == 0
    said = alone.exec("'mine'", "--key", "k")
    assert (said.status, said.out) == (0, "'mine'\n")
    assert alone.exec("'mine'", "--key", "k").out == "'mine'\n"
    refused = alone.exec("'other'", "--key", "k")
    assert (refused.status, refused.out) == (2, "")
    assert "has other code" in refused.err


def test_answers_may_come_from_a_file_or_stdin(shared: Rkernel, tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_text("one\ntwo\n")
    code = "from getpass import getpass\nprint(input() + getpass())"
    assert shared.exec(code, "--answer-file", str(path)).out == "onetwo\n"
    assert shared("exec", "-c", code, "--answer-file", "-", text="a\nb\n").out == "ab\n"
    said = shared("exec", "--answer-file", "-", text="1")
    assert said.status == 2
    assert "both" in said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--budget", "-5"), "not a number of characters"),
        (("--log", "a.ipynb", "--no-log"), "not allowed with"),
        (("--log", "other.ipynb"), "logs to"),
        (("-k", "work"), "has a kernel of|there is no kernelspec"),
    ],
)
def test_options_that_do_not_fit_are_refused(shared: Rkernel, words: tuple[str, ...], sentence: str) -> None:
    said = shared.exec("1", *words)
    assert said.status in (2, 3), said
    assert any(part in said.err for part in sentence.split("|")), said


def test_files_that_a_local_cell_writes_have_the_modes_of_the_user(alone: Rkernel) -> None:
    before = os.umask(0o022)
    try:
        alone.open()
        assert alone.exec("open('made', 'w').close()").status == 0
    finally:
        os.umask(before)
    assert (alone.folder / "made").stat().st_mode & 0o777 == 0o644
    assert (alone.folder / "rkernel-work.ipynb").stat().st_mode & 0o777 == 0o644
    assert alone.place("session.json").stat().st_mode & 0o777 == 0o600


def test_cell_of_a_local_kernel_does_not_write_the_state_of_its_session(alone: Rkernel) -> None:
    alone.open()
    assert alone.exec("import os; os.environ.get('REMOTE_KERNEL_STATE_FILE')").out == ""


def test_local_kernel_that_ends_with_a_launchers_status_is_not_taken_for_one(alone: Rkernel) -> None:
    alone.open()
    said = alone.exec("import os; os._exit(20)")
    assert said.status == 4
    assert "ended by itself with exit status 20" in said.err


def test_working_folder_that_is_gone_is_told_in_a_sentence(alone: Rkernel, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [*alone.command, "exec", "-k", "python3", "-s", "new", "-c", "1"]
    said = subprocess.run(
        ["/bin/sh", "-c", 'rmdir "$PWD" && "$@"', "sh", *command],
        cwd=gone,
        env=alone.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = "rkernel: the folder that this was started in is gone; change to one that is there\n"
    assert (said.returncode, said.stdout, said.stderr) == (12, "", expected)


def test_session_for_which_there_is_no_room_is_not_made(alone: Rkernel) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    said = finish(alone.start("exec", "-k", "python3", "-s", "work", "-c", "1", preexec_fn=fill))
    assert said.status == 12, said
    assert (
        said.err
        == f"rkernel: cannot use {alone.place('session.json')}: file too large; make room there, and try again\n"
    )
    assert not alone.place().exists()


def test_question_and_code_of_a_cell_cannot_steer_the_terminal(shared: Rkernel) -> None:
    code = r"import time; input('\x1b]52;c;aGk=\x07name? ')"
    with terminal(shared, "exec", "--stdin", "-c", f"'\x1b[6n'; {code}") as shown:
        shown.expect("name? ")
        assert "\x1b" not in shared("status").out
        shown.type("me\r")
        assert shown.end() == 0
    assert "\x1b]52" not in shown.seen
