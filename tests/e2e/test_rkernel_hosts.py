"""A session's host is killed, replaced, started by many at once, or of another version; and sessions are closed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.support.frontends import other_front_end
from tests.support.kernels import wait_until
from tests.support.rkernel import Patched, Rkernel, finish, terminal
from tests.support.servers import is_alive, wait_ended

IMPATIENT = """\
from remote_kernel.session import client, host_connection, host_process
host_connection.HANG_SECONDS = client._SILENCE_SECONDS = host_process._CHECK_SECONDS = 1.0
"""
# The host is killed when so many lines are on their way to the client, and there is a file; the last line is lost.
KILLS_HOST = """\
import os, signal, time
from remote_kernel.session.host_connection import HostConnection
plain, got = HostConnection.raw_line, []
def raw_line(self, deadline):
    got.append(plain(self, deadline))
    if len(got) == {lines}:
        while not os.path.exists({path!r}): time.sleep(.01)
        os.kill({host}, signal.SIGKILL)
        self._lines.clear()
        self._socket.close()
        return plain(self, deadline)
    return got[-1]
HostConnection.raw_line = raw_line
"""


def test_host_that_is_killed_leaves_the_kernel_to_the_next_one(alone: Rkernel) -> None:
    alone.open()
    alone.exec("x = 41")
    kernel, host = alone.kernel(), alone.host()
    host.kill()
    wait_ended([host])
    assert is_alive(kernel)
    assert alone.exec("x + 1").out == "42\n"
    assert alone.kernel() == kernel
    assert alone.host() != host
    assert json.loads(alone.exec("0", "--json").out)["generation"] == 1


def test_running_cell_outlives_its_host(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    command = alone.start("exec", "-c", f"{_until(stop)}print('the end')\n'value'")
    number = alone.wait_running("begun\n")
    queued = alone.start("exec", "-c", "print('after')")
    assert wait_until(lambda: alone.status()["queued"])
    kernel, host = alone.kernel(), alone.host()
    host.kill()
    wait_ended([host])
    assert alone.status()["running"]  # by the next host, which hears the kernel
    stop.touch()
    said = finish(command)
    assert (said.status, said.out) == (0, "begun\nthe end\n'value'\n"), said
    assert "a part of its output may be missing" in said.err
    assert alone("wait", number).out == said.out
    assert alone.kernel() == kernel
    assert len(alone.hosts()) == 1
    after = finish(queued)
    assert (after.status, after.out) == (0, "after\n")


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [("done = True", 0, ""), ("1 / 0", 1, "ZeroDivisionError: division by zero")],
    ids=["well", "with an error"],
)
def test_cell_that_ended_while_there_was_no_host_ends_as_it_did(
    alone: Rkernel, tmp_path: Path, end: str, status: int, words: str
) -> None:
    alone.open()
    stop, over = tmp_path / "stop", tmp_path / "over"
    number = _detached(alone, f"{_until(stop)}open({str(over)!r}, 'w').close()\n{end}")
    alone.wait_running("begun\n")
    alone.host().kill()
    stop.touch()
    assert wait_until(over.exists)
    said = alone("wait", number, seconds=30)
    assert said.status == status
    assert words in said.err
    assert "a part of its output may be missing" in said.err
    assert json.loads(alone.exec("0", "--json").out)["execution_count"] == 3  # what was asked does not count


def test_cell_that_began_and_ended_while_there_was_no_host_ends_as_it_did(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    begun = tmp_path / "begun"
    kernel = alone.kernel()
    kernel.suspend()
    number = _detached(alone, f"n = 6 * 7\nopen({str(begun)!r}, 'w').close()")
    assert wait_until(lambda: '"sent"' in alone.place("cells", f"{number}.jsonl").read_text())
    alone.host().kill()
    assert wait_until(lambda: not alone.hosts())
    kernel.resume()
    assert wait_until(begun.exists)
    said = alone("wait", number, "--json", seconds=30)
    document = json.loads(said.out)
    assert (said.status, document["verdict"], document["execution_count"]) == (0, "ok", 2), said
    assert "a part of its output may be missing" in document["message"]


def test_end_that_a_host_has_asked_for_and_not_learned_is_told_to_the_next_one(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop, stopped = tmp_path / "stop", tmp_path / "stopped"
    wait = _until(stop)
    number = _detached(alone, f"{wait}open({str(stopped)!r}, 'w').close()")
    alone.wait_running("begun\n")
    for _ in range(2):
        alone.host().kill()
        assert wait_until(lambda: not alone.hosts())
        assert alone.status()["running"]  # by the next host, which asks
    alone.host().kill()
    stop.touch()
    assert wait_until(stopped.exists)
    assert alone("wait", number, seconds=30).status == 0


@pytest.mark.parametrize("words", [(), ("--side",)], ids=["cell", "beside others"])
def test_cell_whose_host_is_killed_before_the_kernel_gets_it_runs_once(alone: Rkernel, words: tuple[str, ...]) -> None:
    alone.open()
    alone.exec("n = 0")
    code = "n += 1\nprint('run', n)"
    request = ("--key", "once", *words)
    assert alone.exec("'seen'", *request[2:]).status == 0
    host = alone.host()
    host.kill()
    wait_ended([host])
    # What the host leaves that is killed between its note that a cell goes to the kernel, and the cell's going.
    queued, sent, *_ = map(json.loads, alone.place("cells", "3.jsonl").read_text().splitlines())
    lines = [{**queued, "cell": "4", "code": code, "key": "once"}, sent]
    alone.place("cells", "4.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said = alone("wait", "4", seconds=30)
    assert (said.status, said.out, said.err) == (0, "run 1\n", ""), said
    assert alone.exec(code, *request).out == "run 1\n"
    assert alone.exec("n").out == "1\n"
    alone.host().kill()
    assert alone("wait", "4").out == "run 1\n"
    assert alone.exec("n").out == "1\n"


def test_cell_that_ended_unseen_and_is_not_the_last_ends_as_it_did(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    number = _detached(alone, f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)")
    alone.wait_running()
    alone.host().kill()
    stop.touch()
    with other_front_end(alone.record()["connection_file"]) as client:
        client.execute("1", reply=True, timeout=30)
    said = alone("wait", number, seconds=30)
    assert said.status == 0
    assert "a part of its output may be missing" in said.err
    assert alone.exec("6 * 7").out == "42\n"


def test_answers_go_to_the_next_host(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    first = _detached(
        alone,
        f"import os, time\na = input()\nprint(a, flush=True)\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)"
        "\nprint(input())",
        *("--answer", "one", "--answer", "two"),
    )
    alone.wait_running("one\n")
    queued = alone.exec("print(input() + '!')", "--detach", "--answer", "three")
    assert queued.status == 124
    alone.host().kill()
    assert alone.status()["queued"]
    stop.touch()
    said = alone("wait", first)
    assert (said.status, said.out) == (0, "one\ntwo\n"), said
    assert alone("wait").out == "three!\n"
    kept = [path for path in alone.place("cells").iterdir() if path.suffix == ".answers"]
    assert not kept
    assert "three" not in alone("wait", "--jsonl").out.replace("three!", "")


def test_tail_shows_what_there_is_and_ends_though_the_host_is_killed_meanwhile(alone: Rkernel) -> None:
    alone.open()
    number = _detached(alone, "import time\nprint('begun', flush=True)\nfor _ in range(6000): time.sleep(.1)")
    alone.wait_running("begun\n")
    said = Patched(alone.folder, KILLS_HOST.format(lines=4, path="/", host=alone.host().pid))("tail", number)
    assert (said.status, said.out) == (124, "begun\n"), said
    assert "is still running" in said.err


def test_cell_whose_host_is_killed_before_it_says_that_it_has_got_it_runs_once(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    begun, stop = str(tmp_path / "begun"), tmp_path / "stop"
    alone.exec("n = 0")
    host = alone.host()
    forgetful = Patched(alone.folder, KILLS_HOST.format(lines=1, path=begun, host=host.pid))
    code = f"import os, time\nn += 1\nopen({begun!r}, 'w').close()\n"
    command = forgetful.start("exec", "-c", f"{code}while not os.path.exists({str(stop)!r}): time.sleep(.05)\nn")
    wait_ended([host], 60)
    assert wait_until(lambda: alone.status()["running"])
    stop.touch()
    said = finish(command)
    assert (said.status, said.out) == (0, "1\n"), said
    assert alone.exec("n").out == "1\n"


def test_question_is_answered_after_the_host_was_replaced(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    wait = f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)\n"
    code = f"print('hello ' + input('who? '))\n{wait}print('bye ' + input('and you? '))"
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(terminal(alone, "exec", "--stdin", "-c", code))
        shown.expect("who? ")
        queued = stack.enter_context(terminal(alone, "exec", "--stdin", "-c", "input('last? ') + '!'"))
        assert wait_until(lambda: alone.status()["queued"])
        assert alone("refresh").status == 0  # while somebody is typing
        shown.type("me\n")
        shown.expect("hello me")
        assert alone("refresh").status == 0  # before the next question
        stop.touch()
        shown.expect("and you? ")
        shown.type("too\n")
        shown.expect("bye too")
        assert shown.end() == 0
        queued.expect("last? ")
        queued.type("it\n")
        queued.expect("'it!'")
        assert queued.end() == 0


def test_refresh_replaces_the_host_under_a_running_cell(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    wait = _until(stop)
    command = alone.start("exec", "-c", wait + "print('the end')")
    alone.wait_running("begun\n")
    kernel, host = alone.kernel(), alone.host()
    said = alone("refresh")
    stop.touch()
    assert said.status == 0
    assert re.fullmatch(r"session work has a host of version \S+\n", said.out)
    assert wait_until(lambda: not is_alive(host))
    said = finish(command)
    assert said.status == 0
    assert said.out == "begun\nthe end\n"
    assert alone.kernel() == kernel


def test_refresh_leaves_a_cell_to_the_next_host_that_an_earlier_one_has_left_already(
    alone: Rkernel, tmp_path: Path
) -> None:
    alone.open()
    stop = tmp_path / "stop"
    wait = _until(stop)
    command = alone.start("exec", "-c", wait + "print('the end')")
    alone.wait_running("begun\n")
    for _ in range(2):
        assert alone("refresh").status == 0
    assert alone.status()["running"]
    stop.touch()
    said = finish(command)
    assert (said.status, said.out) == (0, "begun\nthe end\n"), said


def test_refresh_loses_no_cell_that_runs_beside_another(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop = tmp_path / "stop"
    wait = _until(stop)
    command = alone.start("exec", "--side", "-c", wait + "print('the end')")
    assert wait_until(lambda: "begun" in alone("tail", "2").out)
    assert alone("refresh").status == 0
    assert alone.exec("6 * 7").out == "42\n"
    stop.touch()
    said = finish(command)
    assert said.status == 0, said
    assert said.out == "begun\nthe end\n"


def test_cell_that_ran_beside_others_and_ended_unseen_ends_as_it_did(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop, over = tmp_path / "stop", tmp_path / "over"
    said = alone.exec(f"{_until(stop)}open({str(over)!r}, 'w').close()", "--side", "--detach")
    assert said.status == 124
    assert wait_until(lambda: "begun" in alone("tail", "2").out)
    alone.host().kill()
    stop.touch()
    assert wait_until(over.exists)
    said = alone("wait", "2", seconds=30)
    assert said.status == 0
    assert "a part of its output may be missing" in said.err


def test_no_cell_is_taken_while_a_restart_ends_the_kernel(alone: Rkernel, tmp_path: Path) -> None:
    alone.open()
    stop, ending = tmp_path / "stop", tmp_path / "ending"
    alone.exec(
        "import atexit, os, time\ndef wait():\n"
        f"    open({str(ending)!r}, 'w').close()\n"
        f"    while not os.path.exists({str(stop)!r}): time.sleep(.05)\n"
        "atexit.register(wait)"
    )
    restart = alone.start("restart")
    assert wait_until(ending.exists)
    said = alone.exec("1")
    second = alone("restart")
    stop.touch()
    assert (said.status, second.status) == (2, 2)
    assert "the kernel is being restarted; try again in a moment" in said.err
    assert finish(restart).status == 0
    assert alone.exec("6 * 7").out == "42\n"
    assert alone.status()["generation"] == 2


def test_restart_that_fails_is_said_by_the_commands_after_it(alone: Rkernel) -> None:
    path = alone.folder / "kernels" / "fragile" / "kernel.json"
    path.parent.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "F"}
    path.write_text(json.dumps({**spec, "language": "python"}))
    alone.open("fragile")
    path.write_text(json.dumps({**spec, "argv": ["/no/such/program"], "language": "python"}))
    assert alone("restart").status != 0
    status = alone.status()
    assert status["state"] == "dead"
    assert "did not start again" in status["trouble"]
    said = alone.exec("1")
    assert said.status == 4
    assert "'rkernel restart work' tries once more" in said.err
    path.write_text(json.dumps({**spec, "language": "python"}))
    assert alone("restart").status == 0
    assert alone.exec("6 * 7").out == "42\n"


def test_clients_that_start_a_session_at_once_make_one_host_and_one_kernel(alone: Rkernel) -> None:
    commands = [alone.start("exec", "-k", "python3", "-c", f"import os; print({i}, os.getpid())") for i in range(5)]
    said = [finish(command) for command in commands]
    assert [one.status for one in said] == [0] * 5, said
    assert [int(one.out.split()[0]) for one in said] == list(range(5))
    assert len({one.out.split()[1] for one in said}) == 1
    assert len(alone.hosts()) == 1


def test_client_of_another_version_says_what_to_do(alone: Rkernel) -> None:
    alone.open()
    alone.exec("x = 1")
    future = Patched(alone.folder, "from remote_kernel.session import events; events.VERSION = 99")
    said = future.exec("print(x)")
    assert (said.status, said.out) == (2, "")
    assert re.search(
        r"host is of remote_kernel \S+, and speaks protocol 1; 'rkernel refresh work' replaces it", said.err
    )
    assert future("ls").status == 0
    assert future("refresh").status == 0
    assert alone.exec("x").out == "1\n"
    assert future("close", "work").status == 0


def test_client_that_is_interrupted_while_a_session_starts_leaves_a_session_that_works(alone: Rkernel) -> None:
    with terminal(alone, "exec", "-k", "python3", "-c", "1") as shown:
        assert wait_until(lambda: alone.hosts())
        shown.type("\x03")
        assert shown.end() == 130
    assert alone.exec("'there'", "-k", "python3").out == "'there'\n"
    assert len(alone.hosts()) == 1


@pytest.mark.parametrize(
    ("cell", "is_host_killed"),
    [("", False), ("import time; time.sleep(60)", False), ("while True: pass", True)],
    ids=["idle", "busy", "busy, no host"],
)
def test_close_ends_everything(alone: Rkernel, cell: str, is_host_killed: bool) -> None:
    alone.open()
    command = alone.start("exec", "-c", cell) if cell else None
    if command:
        alone.wait_running()
    if is_host_killed:
        if command:
            command.kill()
            command.communicate()
        alone.host().kill()
    kernel = alone.kernel()
    begun = time.monotonic()
    said = alone("close", "work")
    assert (said.status, said.out) == (0, "closed work\n")
    assert time.monotonic() - begun < 15
    assert not is_alive(kernel)
    if command and not is_host_killed:
        ended = finish(command)
        assert ended.status == 4
        assert "the session was closed" in ended.err
    assert alone("ls").err == "rkernel: there is no session; 'rkernel exec -k KERNELSPEC ...' makes one\n"


def test_host_that_hangs_is_ended_by_close(alone: Rkernel) -> None:
    alone.open()
    host, kernel = alone.host(), alone.kernel()
    host.suspend()
    impatient = Patched(alone.folder, IMPATIENT)
    assert impatient("close", "work").status == 0
    assert not is_alive(host)
    assert not is_alive(kernel)


@pytest.mark.parametrize("words", [("exec", "-c", "1"), ("status",), ("wait",), ("vars",), ("interrupt",)])
def test_no_command_waits_for_a_host_that_hangs(shared: Rkernel, words: tuple[str, ...]) -> None:
    shared.exec("1")
    host = shared.host()
    host.suspend()
    try:
        said = Patched(shared.folder, IMPATIENT)(*words)
    finally:
        host.resume()
    assert said.status == 6
    assert re.fullmatch(r"rkernel: the host of session 'work' does not answer; 'rkernel refresh work' .+\n", said.err)


def test_host_that_hangs_is_listed(shared: Rkernel) -> None:
    host = shared.host()
    host.suspend()
    try:
        said = Patched(shared.folder, IMPATIENT)("ls")
    finally:
        host.resume()
    assert said.status == 0
    assert "unknown" in said.out
    assert "'rkernel refresh work' replaces it" in said.err


def test_refresh_replaces_a_host_that_hangs_under_a_running_cell(alone: Rkernel) -> None:
    alone.open()
    impatient = Patched(alone.folder, IMPATIENT)
    command = impatient.start("exec", "-c", "import time\nfor _ in range(600): time.sleep(.1)")
    alone.wait_running()
    kernel, host = alone.kernel(), alone.host()
    host.suspend()
    said = finish(command)
    assert said.status == 6
    assert "'rkernel refresh work' replaces it; the kernel keeps running, and its cell too" in said.err
    assert impatient("refresh").status == 0
    assert not is_alive(host)
    assert alone.kernel() == kernel
    assert alone.status()["running"]
    alone("interrupt")
    assert alone("wait").status == 130
    assert alone.exec("6 * 7").out == "42\n"


def test_dead_session_is_listed_and_closed(alone: Rkernel) -> None:
    alone.open()
    host, kernel = alone.host(), alone.kernel()
    host.kill()
    kernel.kill()
    wait_ended([host, kernel])
    (listed,) = alone.ask("ls")
    assert listed["state"] == "dead"
    assert "killed (signal 9)" in listed["trouble"]
    assert alone.exec("1").status == 4


def test_session_with_a_damaged_record_is_listed_and_closed(alone: Rkernel) -> None:
    alone.open()
    alone("close", "work")
    alone.place().mkdir(parents=True)
    alone.place("session.json").write_text("{")
    (listed,) = alone.ask("ls")
    assert listed["state"] == "unknown"
    said = alone.exec("1")
    assert said.status == 1
    assert "remove the session with 'rkernel close work'" in said.err
    assert alone("close", "work").status == 0


@pytest.mark.parametrize("record", ["{", None], ids=["damaged", "removed"])
def test_kernel_of_a_session_without_a_record_is_ended_by_close(alone: Rkernel, record: str | None) -> None:
    alone.open()
    host, kernel = alone.host(), alone.kernel()
    host.kill()
    wait_ended([host])
    alone.place("session.json").unlink()
    if record:
        alone.place("session.json").write_text(record)
    pid = alone.place("kernel.pid")
    known = pid.read_text()
    pid.unlink()  # as in a session of an older version
    said = alone("close", "work")
    assert (said.status, said.out) == (1, "")
    assert "that may live" in said.err
    assert is_alive(kernel)
    pid.write_text(known)
    assert alone("close", "work") == (0, "closed work\n", "")
    assert not is_alive(kernel)


def test_host_is_of_nobody(alone: Rkernel) -> None:
    with terminal(alone, "exec", "-k", "python3", "-c", "x = 1") as shown:
        assert shown.end() == 0
    assert alone.exec("x").out == "1\n"
    host = alone.host()
    assert host.terminal() is None
    assert alone.place().stat().st_mode & 0o777 == 0o700
    assert alone.place("kernel.json").stat().st_mode & 0o777 == 0o600
    (socket,) = [one.laddr for one in host.net_connections("unix") if one.laddr.endswith(".sock")]
    assert os.stat(socket).st_mode & 0o777 == 0o600


def _until(stop: Path) -> str:
    """Return code that says that it has begun, and waits for a file."""
    return f"import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)\n"


def _detached(rkernel: Rkernel, code: str, *words: str) -> str:
    said = rkernel.exec(code, "--detach", *words)
    found = re.search(r"cell (\d+) is running", said.err)
    assert found, said
    return found[1]
