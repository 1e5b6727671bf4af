"""Several clients use one session at once: nobody gets another's output, aborts it, or runs its cell twice."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.frontends import other_front_end
from tests.support.kernels import wait_until
from tests.support.rkernel import Rkernel, finish

BUSY = {
    "sleeps": "import time\nwaiting = True\nprint('begun', flush=True)\nwhile waiting: time.sleep(.05)",
    "computes": "waiting = True\nprint('begun', flush=True)\nwhile waiting: pass",
}


def test_clients_at_once_get_their_own_output_whole(shared: Rkernel) -> None:
    code = """\
import time
for i in range(40): print('client {0} line', i, flush=i % 10 == 0)
order.append({0})
{1}
"""
    assert shared.exec("order = []").status == 0
    clients = [shared.start("exec", "-c", code.format(i, "1 / 0" if i % 3 == 1 else f"'end {i}'")) for i in range(8)]
    for i, client in enumerate(clients):
        said = finish(client)
        lines = [f"client {i} line {line}" for line in range(40)]
        if i % 3 == 1:  # it fails, and nobody else is aborted
            assert (said.status, said.out.splitlines()) == (1, lines)
            assert "ZeroDivisionError" in said.err
        else:
            assert (said.status, said.out.splitlines()) == (0, [*lines, f"'end {i}'"])
    assert sorted(json.loads(shared.exec("import json; print(json.dumps(order))").out)) == list(range(8))


def test_cells_run_in_the_order_in_which_they_came(shared: Rkernel) -> None:
    assert shared.exec("order = []").status == 0
    for i in range(6):
        assert shared.exec(f"import time; time.sleep(.1); order.append({i})", "--detach").status == 124
    assert shared.exec("order").out == "[0, 1, 2, 3, 4, 5]\n"


def test_interrupt_stops_one_of_many(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", BUSY["sleeps"])
    shared.wait_running("begun")
    queued = []
    for i in range(3):
        queued.append(shared.start("exec", "-c", f"print({i})"))
        assert wait_until(lambda: len(shared.status()["queued"]) == len(queued))
    assert shared("interrupt", shared.status()["queued"][1]).status == 0
    assert finish(queued[1]).status == 5
    assert running.poll() is None
    assert shared("interrupt").status == 0
    assert finish(running).status == 130
    assert [(said.status, said.out) for said in map(finish, (queued[0], queued[2]))] == [(0, "0\n"), (0, "2\n")]


def test_interrupt_all_stops_what_runs_and_what_waits(shared: Rkernel) -> None:
    running = shared.start("exec", "-c", BUSY["sleeps"])
    shared.wait_running("begun")
    queued = [shared.start("exec", "-c", f"print({i})") for i in range(2)]
    assert wait_until(lambda: len(shared.status()["queued"]) == 2)
    assert shared("interrupt", "--all").status == 0
    assert [finish(one).status for one in (running, *queued)] == [130, 5, 5]
    assert shared.exec("'free'").out == "'free'\n"


def test_cell_that_another_front_end_s_failure_aborts_runs_all_the_same(shared: Rkernel) -> None:
    with other_front_end(shared.record()["connection_file"]) as client:
        for _ in range(2):  # with stop_on_error, as every front end sends its cells
            client.execute("import time; print('theirs', flush=True); time.sleep(1); 1 / 0")
        assert wait_until(lambda: (shared.status()["running"] or {}).get("author") not in (None, "rkernel"))
        commands = [shared.start("exec", "-c", f"print('mine', {i})") for i in range(3)]
        assert [finish(command)[:2] for command in commands] == [(0, f"mine {i}\n") for i in range(3)]


def test_key_runs_once_however_often_it_is_sent(shared: Rkernel) -> None:
    assert shared.exec("runs = 0").status == 0
    code = "import time; time.sleep(.5); runs += 1; print('run', runs)"
    clients = [shared.start("exec", "--key", "once", "-c", code) for _ in range(3)]
    assert [finish(client)[:2] for client in clients] == [(0, "run 1\n")] * 3
    assert shared.exec(code, "--key", "once").out == "run 1\n"
    assert shared.exec("runs").out == "1\n"


@pytest.mark.parametrize("how", BUSY)
def test_kernel_is_looked_into_while_a_cell_runs(either: Rkernel, how: str) -> None:
    assert either.exec("class Model:\n  'A model.'\n  weight = 3\nmodel, number = Model(), 41").status == 0
    has_subshells = either.exec("import ipykernel; ipykernel.version_info[0] > 6").out == "True\n"
    command = either.start("exec", "-c", BUSY[how])
    number = either.wait_running("begun")
    try:
        begun = time.monotonic()
        said = either.exec("print(number + 1)\nnumber", "--side")
        assert said.status == 0
        if "no subshells" in said.err:  # ipykernel 6 shows it as the running cell's
            assert (said.out, has_subshells) == ("", False)
        else:
            assert (said.out, has_subshells) == ("42\n41\n", True)
        listed = {one["name"]: one for one in either.ask("vars")}
        assert listed["number"]["value"] == "41"
        assert [one["name"] for one in either.ask("vars", "numb*")] == ["number"]
        assert "A model." in either("inspect", "Model").out
        assert either("complete", "model.wei").out.strip().endswith("weight")
        status = either.status()
        assert (status["state"], status["running"]["cell"]) == ("busy", number)
        assert status["memory_bytes"] > 10 << 20
        failed = either.exec("1 / 0", "--side")
        assert failed.status == 1
        assert time.monotonic() - begun < 30
        assert command.poll() is None
    finally:
        either.exec("waiting = False", "--side")
    said = finish(command)
    assert said.status == 0
    assert ("41\n" in said.out) != has_subshells
    assert either.exec("number").out == "41\n"


def test_side_cell_is_not_interrupted_in_the_main_one_s_place(shared: Rkernel) -> None:
    main = shared.start("exec", "-c", BUSY["sleeps"])
    number = shared.wait_running("begun")
    side = shared.start("exec", "--side", "-c", "print('beside', flush=True)\nwhile waiting: time.sleep(.05)")
    other = str(int(number) + 1)
    assert wait_until(lambda: shared("tail", other).out == "beside\n")
    said = shared("interrupt", other)
    assert said.status == 2
    assert "--side cannot be interrupted" in said.err
    assert shared("interrupt").status == 0
    assert finish(main).status == 130
    assert side.poll() is None
    assert shared.exec("waiting = False").status == 0
    assert finish(side).status == 0


def test_side_cell_on_an_idle_kernel_and_its_input(shared: Rkernel) -> None:
    assert shared.exec("1 + 1", "--side").out == "2\n"
    assert shared.exec("input('who?')", "--side").status == 7
    said = shared.exec("print(input())", "--side", "--answer", "me")
    assert (said.status, said.out) == (0, "me\n")
