"""Sessions of kernels on a remote host: the network goes away, comes back, or was never there."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from remote_kernel.kept.running import find_running, stop_kernel
from remote_kernel.kernelspec.discovery import probe
from tests.support.ends import kernels_on, nothing_there
from tests.support.kernels import options_for, wait_until, write_kernelspec
from tests.support.leaks import end_processes
from tests.support.memory import can_limit_memory, limited_memory
from tests.support.relay import Relay
from tests.support.rkernel import Rkernel, finish
from tests.support.servers import Server, is_alive, wait_ended

COUNT = """\
import time
for i in range({}):
    print('line', i, flush=True)
    time.sleep(.1)
"""
UNTIL_DONE = """\
import time
done = False
print('begun', flush=True)
i = 0
while not done:
    i += 1
    print('line', i, flush=True)
    time.sleep(.01)
time.sleep(.5)
'value'
"""


class Far(NamedTuple):
    """`rkernel` with a session of a remote kernel, and the relay in front of its host."""

    rkernel: Rkernel
    relay: Relay
    ssh_config: Path
    remote_python: Path


@pytest.fixture
def far(alone: Rkernel, network: tuple[Relay, Path], remote_python: Path) -> Iterator[Far]:
    """Yield `rkernel` with a session of a kernel on the target, behind a relay."""
    relay, ssh_config = network
    write_kernelspec(alone.folder / "kernels", "far", options_for("target", ssh_config, remote_python))
    alone.open("far")
    yield Far(alone, relay, ssh_config, remote_python)
    alone.close()  # as long as there is a network


@pytest.mark.over_both
def test_code_runs_on_the_remote_host_through_a_short_cut(far: Far, target: Server) -> None:
    said = far.rkernel.exec("import os, sys\nprint(os.getuid(), file=sys.stderr)\n6 * 7")
    assert said == (0, "42\n", f"{target.account.uid}\n")
    status = far.rkernel.status()
    assert (status["state"], status["connected"], status["kernelspec"]) == ("idle", True, "far")
    assert far.rkernel.exec("1 / 0").status == 1
    command = far.rkernel.start("exec", "-c", COUNT.format(600))
    far.rkernel.wait_running("line 2\n")
    far.relay.cut()  # which heals by itself
    number = far.rkernel.wait_running("line 15\n")
    assert far.rkernel.exec("6 * 7", "--side").out == "42\n"
    assert far.rkernel("interrupt", number).status == 0
    said = finish(command)
    assert said.status == 130
    lines = said.out.splitlines()
    assert lines == [f"line {i}" for i in range(len(lines))]
    log = Path(far.rkernel.status()["log"])
    assert wait_until(lambda: "KeyboardInterrupt" in log.read_text())  # within a second of the cell's end
    (counted,) = (cell for cell in nbformat.read(log, 4).cells if cell.source == COUNT.format(600))
    assert "".join(output.text for output in counted.outputs if output.output_type == "stream") == said.out
    assert counted.outputs[-1].ename == "KeyboardInterrupt"
    assert far.rkernel.exec("import asyncio; await asyncio.sleep(60)", "--detach").status == 124
    begun, number = time.monotonic(), far.rkernel.wait_running()
    assert far.rkernel("interrupt").status == 0  # SIGINT and what wakes the kernel go different ways
    assert (far.rkernel("wait", number).status, time.monotonic() - begun < 8) == (130, True)  # and not 10 s


def test_restart_and_close_end_a_kept_kernel(
    alone: Rkernel, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    options = options_for("target", ssh_config, remote_python, keep=True)
    write_kernelspec(alone.folder / "kernels", "kept", options)
    alone.open("kept")
    (first,) = kernels_on(target)
    assert alone("restart", "work").status == 0
    assert wait_until(lambda: not is_alive(first))
    assert alone.exec("6 * 7").out == "42\n"
    (second,) = kernels_on(target)
    assert alone("close", "work").status == 0
    assert wait_until(lambda: not is_alive(second))


def test_close_without_a_host_ends_a_kept_kernel_or_says_that_it_does_not(
    alone: Rkernel, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    options = options_for("target", ssh_config, remote_python, keep=True)
    write_kernelspec(alone.folder / "kernels", "kept", options)
    for record in ("", "{"):
        alone.open("kept")
        host = alone.host()
        host.kill()
        wait_ended([host])
        if record:
            alone.place("session.json").write_text(record)
        (kernel,) = kernels_on(target)
        said = alone("close", "work")
        assert said.status == (1 if record else 0), said
        if record:
            found = re.search(
                r"its kernel may live on on its host; 'remote_kernel stop ([0-9a-f]{12})' ends it", said.err
            )
            assert found, said
            stop_kernel(find_running([options]).find(found[1]))
        wait_ended([kernel], 20)
        assert not alone.place().exists()


@pytest.mark.over_both
def test_network_that_is_away_gives_6_and_the_cell_goes_on(far: Far) -> None:
    assert far.rkernel.exec(COUNT.format(40), "--detach").status == 124
    number = far.rkernel.wait_running("line 2\n")
    far.relay.cut()
    far.relay.freeze()
    try:
        assert wait_until(lambda: far.rkernel.status()["connected"] is False, 30)
        assert re.search(r"busy, away", far.rkernel("ls").out)
        said = far.rkernel("wait", number, "--timeout", "1")
        assert said.status == 6, said
        assert f"the connection to the kernel's host is away; cell {number} goes on there" in said.err
        assert f"'rkernel wait -s work {number}'" in said.err
    finally:
        far.relay.thaw()
    said = far.rkernel("wait", number, seconds=90)
    assert said.status == 0
    assert said.out == "".join(f"line {i}\n" for i in range(40))
    assert "back" in said.err
    assert far.rkernel.status()["connected"] is True


def test_interrupt_while_the_network_is_away_says_so_and_gets_there_when_it_is_back(far: Far) -> None:
    assert far.rkernel.exec(COUNT.format(6000), "--detach").status == 124
    number = far.rkernel.wait_running("line 2\n")
    far.relay.cut()
    far.relay.freeze()
    try:
        assert wait_until(lambda: far.rkernel.status()["connected"] is False, 30)
        said = far.rkernel("interrupt", number)
        assert said.status == 6, said
        assert "the interrupt gets there when it is back" in said.err
        assert "restart" not in said.err
    finally:
        far.relay.thaw()
    assert far.rkernel("wait", number, seconds=90).status == 130
    assert far.rkernel.exec("6 * 7").out == "42\n"


@pytest.mark.over_both
def test_connection_that_needs_a_person_says_which_command_to_run(far: Far, target: Server) -> None:
    keys = target._folder / "authorized_keys"
    good = keys.read_text()
    command = far.rkernel.start("exec", "-c", COUNT.format(60))
    far.rkernel.wait_running("line 2\n")
    keys.write_text("")
    try:
        target.kill_sessions()
        assert wait_until(lambda: "ssh-copy-id" in far.rkernel.status()["away_for"], 30), far.rkernel.status()
        assert "ssh-copy-id" in far.rkernel("status").out
    finally:
        keys.write_text(good)
    probe(options_for("target", far.ssh_config, far.remote_python))  # what a person does who has copied the key
    said = finish(command)
    assert (said.status, said.out) == (0, "".join(f"line {i}\n" for i in range(60)))
    assert "ssh-copy-id" in said.err


def test_remote_kernel_that_is_killed_gives_4(far: Far, target: Server) -> None:
    command = far.rkernel.start("exec", "-c", "import time\nprint('begun', flush=True)\ntime.sleep(60)")
    far.rkernel.wait_running("begun")
    assert wait_until(lambda: far.rkernel.status()["memory_bytes"])
    (kernel,) = kernels_on(target)
    kernel.kill()
    said = finish(command)
    assert said.status == 4
    assert re.search(r"killed \(signal 9\), .*it used up to \d+ MB", said.err), said.err
    assert far.rkernel("restart").status == 0
    if can_limit_memory():
        (kernel,) = kernels_on(target)
        with limited_memory(kernel.pid, 250_000_000):
            said = far.rkernel.exec("x = b'x' * 500_000_000")
        assert said.status == 4
        assert re.search(r"probably because the system ran out of memory; it used up to [23]\d\d MB", said.err), (
            said.err
        )
        assert far.rkernel("restart").status == 0
    assert far.rkernel.exec("1").status == 0
    far.rkernel.close()
    assert nothing_there(target)


def test_cell_whose_host_is_killed_while_the_network_is_away_goes_on(far: Far) -> None:
    assert far.rkernel.exec(COUNT.format(20), "--detach").status == 124
    number = far.rkernel.wait_running("line 2\n")
    far.relay.cut()
    far.relay.freeze()
    try:
        assert wait_until(lambda: far.rkernel.status()["connected"] is False, 30)
        host = far.rkernel.host()
        host.kill()
        wait_ended([host])
        said = far.rkernel("wait", number, "--timeout", "2")
        assert said.status == 6, said
    finally:
        far.relay.thaw()
    said = far.rkernel("wait", number)
    assert (said.status, "a part of its output may be missing" in said.err) == (0, True), said


def test_host_that_is_killed_leaves_the_remote_kernel_to_the_next_one(far: Far, target: Server) -> None:
    command = far.rkernel.start("exec", "-c", COUNT.format(30))
    far.rkernel.wait_running("line 2\n")
    (kernel,) = kernels_on(target)
    host = far.rkernel.host()
    host.kill()
    wait_ended([host])
    said = finish(command)
    assert said.status == 0
    assert said.out.splitlines()[-1] == "line 29"
    assert is_alive(kernel)
    assert far.rkernel.exec("i").out == "29\n"


@pytest.mark.over_both("not kept")
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not kept"])
def test_launcher_that_is_killed_is_replaced_under_its_kernel(
    alone: Rkernel, target: Server, ssh_config: Path, remote_python: Path, keep: bool
) -> None:
    options = options_for("target", ssh_config, remote_python, keep=keep)
    write_kernelspec(alone.folder / "kernels", "far", options)
    alone.open("far")
    (kernel,) = kernels_on(target)
    for number in (signal.SIGKILL, signal.SIGTERM if keep else signal.SIGKILL):
        command = alone.start("exec", "-c", UNTIL_DONE)
        alone.wait_running("begun")
        launcher = alone.kernel()
        launcher.send_signal(number)
        wait_ended([launcher])
        assert alone.exec("done = True", "--side").status == 0
        said = finish(command)
        if number == signal.SIGTERM:  # the agent was told that the front end leaves
            assert (said.status, said.out[:6], said.out[-8:]) == (0, "begun\n", "'value'\n")
            assert "a part of its output may be missing" in said.err
            break
        lines = [f"line {i + 1}" for i in range(len(said.out.splitlines()) - 2)]
        assert (said.status, said.out.splitlines()) == (0, ["begun", *lines, "'value'"]), said.err
        assert len(lines) > 20
        assert kernels_on(target) == [kernel]
        (found,) = find_running([options]).kernels
        assert (found.keep, found.launchers) == (keep, 1)
        alone.host().kill()  # the next one lets another launcher begin, soon as it is
    end_processes(alone.hosts())
    os.killpg(alone.record()["pid"], signal.SIGKILL)  # as if the machine had crashed
    assert alone.exec("done").out == "True\n"
    assert kernels_on(target) == [kernel]
    alone.close()
    assert nothing_there(target)


def test_launcher_that_is_killed_in_an_outage_is_replaced(far: Far, target: Server) -> None:
    command = far.rkernel.start("exec", "-c", COUNT.format(60))
    far.rkernel.wait_running("line 2\n")
    (kernel,) = kernels_on(target)
    far.relay.cut()
    far.relay.freeze()
    try:
        assert wait_until(lambda: far.rkernel.status()["connected"] is False, 30)
        far.rkernel.kernel().kill()
        assert wait_until(lambda: "launcher was killed" in far.rkernel.status()["away_for"])
    finally:
        far.relay.thaw()
    said = finish(command)
    assert (said.status, said.out) == (0, "".join(f"line {i}\n" for i in range(60)))
    assert kernels_on(target) == [kernel]


def test_cell_that_was_lost_with_its_launcher_runs_once(far: Far) -> None:
    assert far.rkernel.exec("n = 0").status == 0
    far.relay.cut()
    far.relay.freeze()
    try:
        assert wait_until(lambda: far.rkernel.status()["connected"] is False, 30)
        assert far.rkernel.exec("n += 1; n", "--detach").status == 124
        number = far.rkernel.wait_running()
        far.rkernel.kernel().kill()
        assert wait_until(lambda: "launcher was killed" in far.rkernel.status()["away_for"])
    finally:
        far.relay.thaw()
    said = far.rkernel("wait", number)
    assert (said.status, said.out) == (0, "1\n"), said
    assert "a part of its output" not in said.err


def test_close_while_the_network_is_away_leaves_nothing_here_and_later_nothing_there(far: Far, target: Server) -> None:
    command = far.rkernel.start("exec", "-c", "import time\nprint('begun', flush=True)\ntime.sleep(60)")
    far.rkernel.wait_running("begun")
    far.relay.cut()
    far.relay.freeze()
    begun = time.monotonic()
    assert far.rkernel("close", "work").status == 0
    assert time.monotonic() - begun < 40
    assert finish(command).status == 4
    far.relay.thaw()
    assert nothing_there(target, 60)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"host": "nowhere.invalid"}, 23, "nowhere.invalid"),
        ({"python": "/no/such/python"}, 41, "/no/such/python"),
        ({"python": "bare"}, 42, "ipykernel"),
    ],
    ids=["unknown host", "no python", "no ipykernel"],
)
def test_start_that_fails_gives_the_launcher_s_status_and_leaves_no_session(
    alone: Rkernel,
    ssh_config: Path,
    remote_python: Path,
    bare_python: Path,
    options: dict[str, str],
    status: int,
    words: str,
) -> None:
    python = options.get("python", str(remote_python)).replace("bare", str(bare_python))
    spec = options_for(options.get("host", "target"), ssh_config, python)
    write_kernelspec(alone.folder / "kernels", "broken", spec)
    said = alone.exec("1", "-k", "broken", "-s", "new")
    assert said.status == status
    assert words in said.err
    assert said.err.count("\n") == 1
    assert alone.ask("ls") == []
    assert not alone.place().exists()
