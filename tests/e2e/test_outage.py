"""What a front end asks for while the connection is away happens once it is back, and nothing is left over."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from remote_kernel.errors import AuthenticationFailed
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.transport import masters
from tests.support.ends import (
    agent_of,
    ask_agents,
    ends_within,
    is_lost,
    kernels_on,
    launcher_of,
    log_of,
    notes_left,
    nothing_noted,
    nothing_there,
    watchers,
)
from tests.support.isolation import Isolation
from tests.support.kernels import options_for, run, running_kernel, wait_until
from tests.support.relay import Relay
from tests.support.servers import Server, is_alive, make_key

SLEEP = "import time\nfor _ in range(1000):\n    time.sleep(0.1)"
# Ends once the kernel's own threads have nothing left to send: the end does not wait for them.
LAST_WORDS = """
import os, time
threads = [f"/proc/self/task/{number}" for number in os.listdir("/proc/self/task")]
sending = [thread for thread in threads if open(f"{thread}/comm").read().startswith("ZMQ")]
assert sending
time.sleep(1.5)
print("last words", flush=True)
while any(open(f"{thread}/stat").read().rpartition(")")[2].split()[0] != "S" for thread in sending):
    time.sleep(0.01)
time.sleep(0.3)
os._exit(7)
"""


@pytest.mark.over_both
def test_an_interrupt_waits_for_the_connection(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        request = client.execute(SLEEP)
        assert wait_until(lambda: client.get_iopub_msg(timeout=10)["msg_type"] == "execute_input")
        with target.away():
            assert is_lost(manager)
            manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=20)
        assert reply["parent_header"]["msg_id"] == request
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert run(client, "1 + 1").result == "2"


@pytest.mark.parametrize(
    ("now", "keep"), [(False, False), (True, False), pytest.param(False, True, marks=pytest.mark.nightly)]
)
def test_a_restart_in_an_outage_leaves_only_the_fresh_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation, now: bool, keep: bool
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python, keep=keep)) as (manager, client):
        run(client, "old = 1")
        (old,) = kernels_on(target)
        with target.away():
            assert is_lost(manager)
            manager.shutdown_kernel(now=now, restart=True)
            assert is_alive(old)
            manager.start_kernel()
            assert wait_until(lambda: "not yet: " in log_of(manager))
        client.wait_for_ready(timeout=40)
        assert run(client, "old").error.startswith("NameError")
        assert ends_within(old, 20)
        assert len(kernels_on(target)) == 1
        assert nothing_noted(isolation)
        assert run(client, "1 + 1").result == "2"
        if keep:
            kernels_on(target)[0].kill()
            assert wait_until(lambda: not manager.is_alive())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_shutdown_in_an_outage_leaves_nothing_once_the_network_is_back(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path, isolation: Isolation, frozen: bool
) -> None:
    """Frozen: neither end knows yet that the connection is dead."""
    relay, ssh_config = network
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        (kernel,) = kernels_on(target)
        launcher = launcher_of(manager)
        relay.freeze()
        if not frozen:
            relay.cut()
            assert is_lost(manager)
        client.stop_channels()
        manager.shutdown_kernel()
        assert not is_alive(launcher)
        assert is_alive(kernel)
        assert notes_left(isolation.runtime) and watchers()
        relay.thaw()
        relay.cut()
        assert nothing_there(target, 45)
        assert nothing_noted(isolation)


def test_a_launcher_killed_in_an_outage_leaves_nothing_once_the_network_is_back(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, _):
        (kernel,) = kernels_on(target)
        with target.away():
            assert is_lost(manager)
            assert wait_until(lambda: bool(watchers()))
            manager.shutdown_kernel(now=True)
            assert is_alive(kernel)
        assert ends_within(kernel, 30)
        assert nothing_there(target)
        assert nothing_noted(isolation)


def test_a_launcher_killed_in_an_outage_is_cleaned_up_after_by_the_next(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, isolation: Isolation
) -> None:
    options = options_for("target", ssh_config, remote_python)
    with running_kernel(tmp_path, options) as (manager, _):
        (old,) = kernels_on(target)
        with target.away():
            assert is_lost(manager)
            manager.shutdown_kernel(now=True)
        time.sleep(1)
        assert is_alive(old) and notes_left(isolation.runtime)
        with running_kernel(tmp_path, options):
            assert ends_within(old, 20)
            assert nothing_noted(isolation)
            assert len(kernels_on(target)) == 1


def test_a_kernel_that_ends_in_an_outage_is_reported(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        client.execute(LAST_WORDS)
        assert wait_until(lambda: client.get_iopub_msg(timeout=10)["msg_type"] == "execute_input")
        with target.away():
            (kernel,) = kernels_on(target)
            assert ends_within(kernel, 10)
        assert manager.provisioner
        assert wait_until(lambda: manager.provisioner.process.poll() is not None, 30)  # type: ignore[union-attr]
        assert manager.provisioner.process.returncode == 7  # type: ignore[attr-defined]
        texts: list[str] = []
        while not texts or client.iopub_channel.msg_ready():  # the client's own thread reads it
            message = client.get_iopub_msg(timeout=10)
            if message["msg_type"] == "stream":
                texts.append(message["content"]["text"])
        assert texts == ["last words\n"]
        assert nothing_there(target)


def test_the_last_output_of_a_kernel_that_ended_in_an_outage_is_not_cut_short(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    """It takes longer than the launcher waits for a front end that does not read, and the link breaks meanwhile."""
    code = """
import os, time
time.sleep(1)
for n in range(80):
    print("x" * (1 << 20), flush=True)
    time.sleep(0.02)
print("the end", flush=True)
time.sleep(1)
os._exit(7)
"""
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (_, client):
        client.execute(code)
        (kernel,) = kernels_on(target)
        messages = []
        with target.away():
            assert ends_within(kernel, 30)
            while client.iopub_channel.msg_ready():  # what came before
                messages.append(client.get_iopub_msg())
        messages.append(client.get_iopub_msg(timeout=30))
        assert target.kill_sessions()
        while "the end" not in messages[-1]["content"].get("text", ""):
            messages.append(client.get_iopub_msg(timeout=30))
            time.sleep(0.05)
        length = sum(len(message["content"].get("text", "")) for message in messages)
        assert length == 80 * ((1 << 20) + 1) + len("the end\n")
    assert nothing_there(target)


def test_a_frozen_link_is_found_by_both_ends(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], ssh_config: Path, remote_python: Path
) -> None:
    relay, config = network
    with running_kernel(tmp_path, options_for("target", config, remote_python)) as (manager, client):
        relay.freeze()
        frozen_at = time.monotonic()
        assert wait_until(lambda: "trying to reconnect" in log_of(manager), 17)
        here = time.monotonic() - frozen_at
        beside = options_for("target", ssh_config, remote_python)
        assert wait_until(lambda: ask_agents(beside)[0]["away"], 8)
        there = time.monotonic() - frozen_at
        assert ask_agents(beside)[0]["away"] == "the connection was lost"
        assert here < 16 and there < 18
        assert "no sign of life" in log_of(manager)
        relay.thaw()
        assert run(client, "1 + 1", timeout=40).result == "2"


@pytest.mark.nightly
def test_a_silent_link_is_kept_alive(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        client.stop_channels()
        time.sleep(17)
        assert "lost" not in log_of(manager)
        client = manager.client()
        client.start_channels()
        assert run(client, "1 + 1").result == "2"
        client.stop_channels()


@pytest.mark.openssh_only
def test_kernels_that_share_a_connection_come_back_together(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path
) -> None:
    relay, config = network
    options = options_for("target", config, remote_python)
    with (
        running_kernel(tmp_path, options, "one") as (first, client),
        running_kernel(tmp_path, options, "two") as (second, other),
    ):
        assert relay.accepted == 1
        relay.freeze()
        for manager in (first, second):
            assert wait_until(lambda m=manager: "trying to reconnect" in log_of(m), 20)
        time.sleep(2)
        relay.thaw()
        for each in (client, other):
            assert run(each, "1 + 1", timeout=40).result == "2"
        time.sleep(3)
        for manager in (first, second):
            assert log_of(manager).count("trying to reconnect") == 1
        assert masters.master_pid(options)


def test_a_server_that_refuses_connections_for_a_while_is_not_hammered(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path
) -> None:
    relay, config = network
    with running_kernel(tmp_path, options_for("target", config, remote_python)) as (manager, client):
        before = relay.accepted
        with target.away():
            time.sleep(7)
            attempts = relay.accepted - before
        assert 3 <= attempts <= 6  # one of them asks the server for its words
        assert run(client, "1 + 1", timeout=40).result == "2"
        # Once for each reason: the first attempt may still meet the server while it goes.
        assert 1 <= log_of(manager).count("not yet: ") <= 2
        assert log_of(manager).count("\n") < 12


@contextlib.contextmanager
def limited(pid: int, kind: int, count: int) -> Iterator[None]:
    """Let a process have only so much of something."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


@pytest.mark.openssh_only
def test_a_launcher_with_no_descriptor_to_spare_comes_back_once_it_has_one(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        run(client, "old = 1")
        with limited(launcher_of(manager).pid, resource.RLIMIT_NOFILE, 0):
            target.kill_sessions()
            assert wait_until(lambda: "not yet: cannot start what leads to target" in log_of(manager))
            time.sleep(2.5)  # beyond the moment in which it looks for a process that helps
        assert run(client, "old + 1", timeout=40).result == "2"


def test_refused_logins_stop_at_one_until_somebody_is_let_in(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    options = options_for("target", ssh_config, remote_python)
    keys = target._folder / "authorized_keys"
    good = keys.read_text()
    with running_kernel(tmp_path, options) as (manager, client):
        keys.write_text("")
        try:
            logged = len(target.log_text())
            target.kill_sessions()
            assert wait_until(lambda: "permission denied" in log_of(manager))
            with pytest.raises(AuthenticationFailed):
                probe(options)
            time.sleep(7)
            assert target.log_text()[logged:].count("Connection from") <= 3
            assert log_of(manager).count("permission denied") == 1
        finally:
            keys.write_text(good)
        probe(options)  # what a person does who has mended it
        assert run(client, "1 + 1").result == "2"


def test_a_changed_host_key_is_named_once_and_never_accepted(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, servers: object
) -> None:
    known = Path(next(line.split()[1] for line in ssh_config.read_text().splitlines() if "UserKnownHosts" in line))
    good = known.read_text()
    make_key(tmp_path / "other")
    wrong = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client):
        known.write_text(f"[{target.host}]:{target.port} {wrong}\n")
        try:
            target.kill_sessions()
            assert wait_until(lambda: "host key" in log_of(manager))
            time.sleep(5)
            assert log_of(manager).count("the host key of target has changed") == 1
            assert "again after" not in log_of(manager)
        finally:
            known.write_text(good)
        assert run(client, "1 + 1", timeout=40).result == "2"


def test_a_host_that_was_rebooted_ends_the_launcher_with_a_sentence(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, _):
        launcher = manager.provisioner.process  # type: ignore[union-attr]
        with target.away():
            for process in target.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        assert launcher.wait(30) == 70 or launcher.returncode > 0
        assert "is no longer on" in log_of(manager)
        assert ask_agents(options_for("target", ssh_config, remote_python)) == []


def test_an_agent_that_is_killed_takes_its_kernel_along_and_the_launcher_says_so(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, _):
        (kernel,) = kernels_on(target)
        launcher: subprocess.Popen[bytes] = manager.provisioner.process  # type: ignore[union-attr]
        agent_of(kernel).kill()
        assert ends_within(kernel, 10)
        assert launcher.wait(30) > 0
        assert "is no longer on" in log_of(manager)
        assert nothing_there(target)
