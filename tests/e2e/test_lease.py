"""Every row of the lease: what ends a kernel, what does not, and that nothing is left, counted on the remote side."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_kernel.launcher.orphans import watch_orphans
from remote_kernel.options import FOREVER
from tests.support.ends import (
    Running,
    agent_of,
    ask_agents,
    carriers,
    ends_within,
    kernels_on,
    launcher_of,
    log_of,
    notes_left,
    nothing_noted,
    nothing_there,
    running,
    watchers,
)
from tests.support.isolation import Isolation
from tests.support.kernels import reply_to, run, wait_until
from tests.support.leaks import end_control_masters
from tests.support.servers import Server, is_alive

FLOOD = """
import time
for n in range(100):
    print("x" * (1 << 20), flush=True)
    time.sleep(0.05)
time.sleep(100)
"""


def flow(running: Running) -> str:
    """Let output flow that nobody reads; give the request's id."""
    request = str(running.client.execute(FLOOD))
    assert wait_until(lambda: running.client.get_iopub_msg(timeout=10)["msg_type"] == "stream")
    return request


OWN_CONNECTION = "Host *\n    ControlPath /nowhere/at/all/%C\n    ControlMaster no"
connections = pytest.mark.parametrize("config", ["", OWN_CONNECTION], ids=["shared", "own"])


@pytest.mark.parametrize("flowing", [False, True], ids=["idle", "flowing"])
@connections
@pytest.mark.over_both("own-idle")
def test_a_killed_launcher_ends_the_kernel_after_the_grace(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, flowing: bool, config: str
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, config=config) as found:
        if flowing:
            flow(found)
        assert wait_until(lambda: not watchers())  # of an earlier test's kernel: it would end this one at once
        found.kill_launcher()
        killed_at = time.monotonic()
        assert found.away() == "the launcher is gone"
        if config or flowing:  # the grace is the same
            ask_agents(found.options, "stop")
        else:
            assert ends_within(found.kernel, 16) and time.monotonic() - killed_at > 9
        assert nothing_there(target)


def test_a_killed_launcher_leaves_nothing_where_the_next_one_ends_soon(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation
) -> None:
    """The shared connection goes with it, before the next launcher would have looked for orphans."""
    with running(tmp_path, target, ssh_config, remote_python) as found:
        assert wait_until(lambda: not watchers())  # of an earlier test's kernel: it would end this one at once
        found.manager.restart_kernel(now=True)
        assert wait_until(lambda: len(kernels_on(target)) == 2, 20)
        launcher_of(found.manager).terminate()
        found.manager.shutdown_kernel()
        end_control_masters(isolation.runtime)
        assert ends_within(found.kernel, 16)
        assert nothing_there(target)
        assert nothing_noted(isolation)


@pytest.mark.parametrize(
    ("config", "flowing"),
    [
        pytest.param("", False, id="shared-idle"),
        pytest.param(OWN_CONNECTION, True, id="own-flowing"),
        pytest.param("", True, id="shared-flowing", marks=pytest.mark.nightly),
        pytest.param(OWN_CONNECTION, False, id="own-idle", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.over_both("own-flowing")
def test_a_killed_sshd_keeps_the_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, flowing: bool, config: str
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, config=config) as found:
        request = flow(found) if flowing else ""
        with target.away():
            time.sleep(1.5)
            launcher = launcher_of(found.manager)
            launcher.suspend()  # it must not come back before the agent was asked, nor an attempt under way
            assert wait_until(lambda: not carriers())
        assert wait_until(lambda: found.away() == "the connection was lost", 5)
        launcher.resume()
        if flowing:
            found.manager.interrupt_kernel()
            reply_to(found.client, request, 40)
        assert run(found.client, "1 + 1", timeout=40).result == "2"
        assert is_alive(found.kernel)


@pytest.mark.parametrize("linger_seconds", [3.0, 0.0])
def test_a_drop_longer_than_the_lease_ends_the_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, linger_seconds: float
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, linger_seconds=linger_seconds) as found:
        with target.away():
            assert ends_within(found.kernel, linger_seconds + 6)
            assert nothing_there(target)
        launcher: subprocess.Popen[bytes] = found.manager.provisioner.process  # type: ignore[union-attr]
        assert launcher.wait(20) > 0
        assert "is no longer on" in log_of(found.manager) or "cannot reconnect" in log_of(found.manager)


def test_a_drop_shorter_than_the_lease_keeps_the_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, linger_seconds=5.0) as found:
        for _ in range(2):
            with target.away():
                time.sleep(3)  # six in all: the second lease is a new one
            assert run(found.client, "1 + 1").result == "2"
        assert is_alive(found.kernel)


def test_a_lease_for_ever_has_no_end(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    with running(tmp_path, target, ssh_config, remote_python, linger_seconds=FOREVER) as found:
        with target.away():
            time.sleep(3)
        assert run(found.client, "1 + 1").result == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.over_both
def test_a_front_end_that_closes_the_kernel_ends_it_at_once(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation, number: int
) -> None:
    with running(tmp_path, target, ssh_config, remote_python) as found:
        launcher: subprocess.Popen[bytes] = found.manager.provisioner.process  # type: ignore[union-attr]
        launcher.send_signal(number)
        assert ends_within(found.kernel, 4)
        launcher.wait(6)
        assert nothing_there(target)
        assert not watchers() and not notes_left(isolation.runtime)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_kept_kernel_outlives_its_front_end(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation, how: int
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, keep=True) as found:
        launcher: subprocess.Popen[bytes] = found.manager.provisioner.process  # type: ignore[union-attr]
        launcher.send_signal(how)
        launcher.wait(10)
        time.sleep(12.5 if how == signal.SIGKILL else 3.0)  # longer than the grace, and than a kernel takes to end
        assert is_alive(found.kernel)
        assert not watchers() and not notes_left(isolation.runtime)
        ask_agents(found.options, "stop")
        assert ends_within(found.kernel, 5)
        assert nothing_there(target)


def test_a_kept_kernel_outlives_its_lease(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running(tmp_path, target, ssh_config, remote_python, keep=True, linger_seconds=2.0) as found:
        with target.away():
            time.sleep(5)
            assert is_alive(found.kernel)
        launcher: subprocess.Popen[bytes] = found.manager.provisioner.process  # type: ignore[union-attr]
        launcher.wait(40)
        assert "goes on without" in log_of(found.manager) or "cannot reconnect" in log_of(found.manager)
        assert is_alive(found.kernel)
        ask_agents(found.options, "stop")
        assert nothing_there(target)


def test_a_kernel_that_was_kept_later_outlives_a_goodbye_in_an_outage(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation
) -> None:
    """The launcher does not know that it is kept, so the watcher comes: a goodbye, not an end."""
    with running(tmp_path, target, ssh_config, remote_python) as found:
        ask_agents(found.options, "keep")
        with target.away():
            found.client.stop_channels()
            launcher: subprocess.Popen[bytes] = found.manager.provisioner.process  # type: ignore[union-attr]
            launcher.terminate()
            launcher.wait(10)
        assert nothing_noted(isolation, 30)
        time.sleep(3)
        assert is_alive(found.kernel)
        ask_agents(found.options, "stop")
        assert nothing_there(target)


# -- at random


class Fate:
    """One kernel under random events, and whether it should live."""

    def __init__(self, found: Running, target: Server, chance: random.Random) -> None:
        self._found, self._target, self._chance = found, target, chance
        self.done: list[str] = []
        self.n = 0

    def step(self) -> None:
        """Do something that the kernel has to survive, then see that it has, with all it knew."""
        event: Callable[[], None] = self._chance.choice(
            [self.cut, self.cut_twice, self.outage, self.kill_ssh, self.kill_ssh_and_cut, self.interrupt, self.flood]
        )
        self.done.append(event.__name__)
        event()
        time.sleep(self._chance.choice([0, 0, 0.1, 0.5, 1.2]))
        self.n += 1
        outcome = run(self._found.client, "n = globals().get('n', 0) + 1\nn", timeout=40)
        assert outcome.result == str(self.n), (self.done, outcome)
        assert is_alive(self._found.kernel), self.done

    def cut(self) -> None:
        self._target.kill_sessions()

    def cut_twice(self) -> None:
        self._target.kill_sessions()
        time.sleep(self._chance.uniform(0, 0.6))
        self._target.kill_sessions()

    def outage(self) -> None:
        with self._target.away():
            time.sleep(self._chance.uniform(0, 2.5))

    def kill_ssh(self) -> None:
        for process in carriers():
            process.kill()

    def kill_ssh_and_cut(self) -> None:
        self.kill_ssh()
        time.sleep(self._chance.uniform(0, 0.3))
        self._target.kill_sessions()

    def interrupt(self) -> None:
        client = self._found.client
        request = client.execute("import time\ntime.sleep(60)")
        while (started := client.get_iopub_msg(timeout=10))["parent_header"].get("msg_id") != request or (
            started["msg_type"] != "execute_input"
        ):
            pass
        time.sleep(self._chance.uniform(0.1, 0.5))
        if self._chance.random() < 0.5:
            self._target.kill_sessions()
        self._found.manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=40)  # Jupyter aborts what is asked before it
        while reply["parent_header"]["msg_id"] != request:
            reply = client.get_shell_msg(timeout=40)
        assert reply["content"]["ename"] == "KeyboardInterrupt"

    def flood(self) -> None:
        self._found.client.execute("for _ in range(20):\n    print('x' * 300000, flush=True)")
        time.sleep(self._chance.uniform(0, 0.3))
        self._target.kill_sessions()

    def end(self, isolation: Isolation) -> None:
        """End the kernel in one of the ways there are, and see that nothing is left."""
        launcher: subprocess.Popen[bytes] = self._found.manager.provisioner.process  # type: ignore[union-attr]
        way = self._chance.choice(["close", "term", "kill", "exit", "crash", "away", "agent"])
        self.done.append(way)
        if way == "term":
            launcher.terminate()
        elif way == "kill":
            launcher.kill()
        elif way == "exit":
            self._found.client.execute("exit()")
        elif way == "crash":
            self._found.kernel.kill()
        elif way == "agent":
            agent_of(self._found.kernel).kill()
        elif way == "away":
            with self._target.away():
                time.sleep(self._chance.uniform(0, 2))
                launcher.terminate()
                launcher.wait(10)
        if way != "close":
            launcher.wait(20)
        self._found.client.stop_channels()
        if self._found.manager.has_kernel:
            self._found.manager.shutdown_kernel()
        assert nothing_there(self._target, 30), self.done
        if way == "kill":
            watch_orphans()  # the next launcher does that
        assert nothing_noted(isolation, 30), self.done


def live_and_die(
    folder: Path, target: Server, ssh_config: Path, python: Path, isolation: Isolation, seed: int, steps: int
) -> None:
    chance = random.Random(seed)
    config = chance.choice(["", OWN_CONNECTION])
    with running(folder, target, ssh_config, python, config=config) as found:
        fate = Fate(found, target, chance)
        try:
            for _ in range(steps):
                fate.step()
            fate.end(isolation)
        except BaseException:
            print(f"seed {seed}: {fate.done}")
            raise


@pytest.mark.parametrize("seed", range(2))
def test_random_events_leave_no_orphan_and_end_no_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation, seed: int
) -> None:
    live_and_die(tmp_path, target, ssh_config, remote_python, isolation, random.randrange(1 << 32), 3)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_random_lives_leave_no_orphan(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation, seed: int
) -> None:
    live_and_die(tmp_path, target, ssh_config, remote_python, isolation, seed, 4)
