"""However a front end, a kernel or the network goes, nothing is left on either side.

Every case has a cell that started a process of its own, which has to go too, and is counted within 15 seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from remote_kernel.errors import ConnectionLost, KernelGone
from remote_kernel.launcher.launcher import BYE_SECONDS
from remote_kernel.options import LaunchOptions, find_program
from remote_kernel.remote.agent import LAUNCHER_GRACE_SECONDS
from tests.support.frontends import (
    IGNORES_INTERRUPTS,
    Count,
    RawKernel,
    kernel_of,
    kernel_process,
    leave_a_child,
    leave_an_orphan,
    listens,
)
from tests.support.isolation import Isolation
from tests.support.kernels import (
    manager_for,
    options_for,
    run,
    wait_until,
    write_connection_file,
    write_kernelspec,
)
from tests.support.servers import Server, Servers, is_alive


@contextlib.contextmanager
def outage(server: Server) -> Iterator[None]:
    """Break all connections, and refuse new ones inside the block."""
    server.stop()
    server.kill_sessions()
    try:
        yield
    finally:
        server.start()


def notes() -> list[str]:
    """Give the notes of kernels whose connection was lost; those of refused logins are other tests' and expire."""
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "remote_kernel")
    return [path.name for path in folder.glob("away-*")]


@pytest.fixture
def options(target: Server, ssh_config: Path, remote_python: Path) -> LaunchOptions:
    """Launch options for a kernel on the target."""
    return options_for("target", ssh_config, remote_python)


@pytest.fixture
def count(isolation: Isolation, servers: Servers) -> Count:
    """Count what was not there when the test began."""
    return Count(isolation, servers)


def busy(kernel: RawKernel, code: str) -> str:
    """Run a cell that does not end, and give the id of its request once it runs."""
    request = kernel.client.execute(code)
    while True:
        message = kernel.client.get_iopub_msg(timeout=15)
        if message["msg_type"] == "execute_input" and message["parent_header"]["msg_id"] == request:
            return str(request)


def wait_idle(kernel: RawKernel, request: str) -> None:
    """Wait until the kernel has finished a request."""
    while True:
        message = kernel.client.get_iopub_msg(timeout=15)
        if message["parent_header"].get("msg_id") == request and message["content"].get("execution_state") == "idle":
            return


def started(folder: Path, options: LaunchOptions) -> AbstractContextManager[tuple[KernelManager, BlockingKernelClient]]:
    """Start a kernel through jupyter_client."""
    write_kernelspec(folder, "remote", options)
    return kernel_of(manager_for(folder, "remote"))


# -- jupyter_client: JupyterLab, nbclient, jupyter console


def test_shutdown_now_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with started(tmp_path, options) as (manager, client):
        child = leave_a_child(client)
        connection = manager.get_connection_info()

        manager.shutdown_kernel(now=True)

        assert count.left() == []
        assert listens(connection) == []
        assert not is_alive(child)


def test_shutdown_of_a_kernel_that_ignores_it_leaves_nothing(
    tmp_path: Path, options: LaunchOptions, count: Count
) -> None:
    with started(tmp_path, options) as (manager, client):
        child = leave_a_child(client)
        client.execute(IGNORES_INTERRUPTS)
        before = time.monotonic()

        manager.shutdown_kernel(now=False)  # SIGINT, shutdown_request, SIGTERM after 2.5 s, SIGKILL after 5 s

        assert time.monotonic() - before < 8
        assert count.left() == []
        assert not is_alive(child)


@pytest.mark.parametrize("now", [False, True], ids=["asked", "killed"])
def test_restart_keeps_the_ports_and_works(tmp_path: Path, options: LaunchOptions, count: Count, now: bool) -> None:
    with started(tmp_path, options) as (manager, client):
        child = leave_a_child(client)
        old = kernel_process(client)
        ports = manager.ports
        run(client, "x = 1")

        manager.restart_kernel(now=now)
        client.wait_for_ready(timeout=60)

        assert manager.ports == ports
        assert run(client, "x").error.startswith("NameError")
        assert kernel_process(client) != old
        assert wait_until(lambda: not is_alive(old) and not is_alive(child))
        manager.shutdown_kernel(now=False)
        assert count.left() == []


_FRONT_END = """
import os, sys, time
from pathlib import Path
from tests.support.frontends import leave_a_child
from tests.support.kernels import manager_for
manager = manager_for(Path(sys.argv[1]), "remote")
jupyter = sys.argv[2] == "jupyter"
manager.start_kernel(**({} if jupyter else {"env": os.environ}))
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
print(leave_a_child(client).pid, manager.provisioner.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["jupyter", "without a word of its pid, as VS Code"])
def test_killed_front_end_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count, kind: str) -> None:
    write_kernelspec(tmp_path, "remote", options)
    command = [sys.executable, "-c", _FRONT_END, str(tmp_path), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as front_end:
        assert front_end.stdout
        child, launcher = map(psutil.Process, map(int, front_end.stdout.readline().split()))

        front_end.kill()

    gone = wait_until(lambda: not is_alive(launcher))
    if not gone:
        launcher.kill()
    assert gone
    # Its connection file is the front end's own, and stays as it does with a local kernel.
    left = [line for line in count.left() if not line.startswith(f"file {os.environ['JUPYTER_RUNTIME_DIR']}")]
    assert left == []
    assert not is_alive(child)
    for path in Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("kernel-*.json"):
        path.unlink()


def test_front_end_that_is_killed_while_the_launcher_comes_up_leaves_nothing(
    tmp_path: Path, options: LaunchOptions, count: Count
) -> None:
    """The launcher is nobody's child then, as is one that somebody has set free on purpose."""
    front_end = subprocess.Popen(["true"])
    front_end.wait(20)
    file = write_connection_file(tmp_path / "kernel-1.json")
    words = [str(find_program()), *options._replace(connection_file=str(file)).to_arguments()]
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/null 2>&1 & echo $!', "sh", *words],
        env={**os.environ, "JPY_PARENT_PID": str(front_end.pid)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    launcher = int(done.stdout)
    gone = wait_until(lambda: not psutil.pid_exists(launcher))
    if not gone:
        psutil.Process(launcher).terminate()
    assert gone
    assert count.left() == []


# -- VS Code


def test_vscode_started_from_a_notebook_of_a_server_that_has_ended_starts_kernels(
    tmp_path: Path, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = subprocess.Popen(["true"])
    server.wait(20)
    monkeypatch.setenv("JPY_PARENT_PID", str(server.pid))
    with RawKernel(tmp_path, options) as kernel:
        assert run(kernel.ready().client, "6 * 7").result == "42"

        kernel.dispose()

        assert kernel.exit_status() == 128 + signal.SIGTERM


@pytest.mark.over_both
def test_vscode_shutdown_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as kernel:
        child = leave_a_child(kernel.ready().client)
        ssh = count.ssh()
        assert ssh, "there is no ssh to be found, so the next line would show nothing"
        assert not set(kernel.descendants()) & set(ssh)

        kernel.dispose()

        # The launcher says bye: it waits for no grace, of its own or the agent's.
        assert kernel.exit_status(BYE_SECONDS - 1) == 128 + signal.SIGTERM
        assert count.left(LAUNCHER_GRACE_SECONDS / 2) == []
        assert listens(kernel.connection) == []
        assert not is_alive(child)


def test_vscode_restart_overlaps_and_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as old:
        child = leave_a_child(old.ready().client)
        busy(old, IGNORES_INTERRUPTS)
        old.dispose()
        with RawKernel(tmp_path, options) as new:
            assert old.launcher.poll() is None, "the old one has ended already: this is no overlap"
            assert run(new.ready().client, "1 + 1").result == "2"
            old.exit_status()
            assert run(new.client, "2 + 2").result == "4"
            new.dispose()
            new.exit_status()

        assert count.left() == []
        assert not is_alive(child)


def test_vscode_interrupt_stops_a_busy_cell(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as kernel:
        kernel.ready()
        run(kernel.client, "x = 1")
        request = busy(kernel, "import time; time.sleep(600)")

        kernel.interrupt()

        reply = kernel.client.get_shell_msg(timeout=10)
        assert reply["parent_header"]["msg_id"] == request
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        wait_idle(kernel, request)  # until then ipykernel answers what comes with `aborted`
        assert run(kernel.client, "x").result == "1"
        kernel.dispose()
        kernel.exit_status()
        assert count.left() == []


@pytest.mark.parametrize("after_seconds", [0.05, 0.15, 0.3, 0.6])
def test_front_end_that_gives_up_during_the_start_leaves_nothing(
    tmp_path: Path, options: LaunchOptions, count: Count, after_seconds: float
) -> None:
    with RawKernel(tmp_path, options) as kernel:
        time.sleep(after_seconds)

        kernel.dispose()

        assert kernel.exit_status() in (128 + signal.SIGTERM, -signal.SIGTERM)
        assert count.left() == []


# -- the launcher, the agent, the connection


def test_killed_launcher_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as kernel:
        child = leave_a_child(kernel.ready().client)

        kernel.launcher.kill()
        kernel.exit_status()

        assert count.left() == []
        assert not is_alive(child)


def test_killed_agent_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as kernel:
        child = leave_a_child(kernel.ready().client)
        agent = kernel_process(kernel.client).parent()
        assert agent

        agent.kill()

        assert kernel.exit_status() == KernelGone.exit_status
        assert kernel.stderr().splitlines()[-1].startswith("remote_kernel: ")
        assert count.left() == []
        assert not is_alive(child)


# -- what was meant to stay


JOB = """
import os, subprocess, sys
heeds = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); print(flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", heeds], stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, flush=True)
child.wait()
"""


def start_with_nohup(client: BlockingKernelClient) -> list[psutil.Process]:
    """Let a cell start a job with nohup; return its process, and its child, which does not ignore SIGHUP."""
    code = f"""import subprocess, sys
line = 'nohup "$@" </dev/null 2>/dev/null &'
job = subprocess.Popen(['sh', '-c', line, 'sh', sys.executable, '-c', {JOB!r}], stdout=subprocess.PIPE)
print(job.stdout.readline().decode(), job.wait())"""
    return [psutil.Process(int(pid)) for pid in run(client, code).streams["stdout"].split()[:2]]


@pytest.mark.parametrize("end", ["shutdown", "close", "kill the agent"])
def test_job_started_with_nohup_outlives_its_kernel(
    tmp_path: Path, options: LaunchOptions, count: Count, end: str
) -> None:
    with RawKernel(tmp_path, options) as kernel:
        client = kernel.ready().client
        job = start_with_nohup(client)
        other = leave_an_orphan(client)
        if end == "shutdown":
            client.shutdown()
        elif end == "close":
            kernel.dispose()
        else:
            agent = kernel_process(client).parent()
            assert agent
            agent.kill()
        kernel.exit_status()

    assert wait_until(lambda: not is_alive(other))
    assert [is_alive(process) for process in job] == [True, True]
    for process in job:
        process.kill()
    assert count.left() == []


def test_kernel_that_ignores_hangups_itself_leaves_nothing(
    tmp_path: Path, options: LaunchOptions, count: Count
) -> None:
    with RawKernel(tmp_path, options._replace(init="trap '' HUP")) as kernel:
        client = kernel.ready().client
        job = [*start_with_nohup(client), leave_an_orphan(client)]

        client.shutdown()

        kernel.exit_status()
        assert count.left() == []
        assert not any(map(is_alive, job))


# -- the connection


def test_lost_connection_leaves_the_kernel_as_it_was(
    tmp_path: Path, options: LaunchOptions, count: Count, target: Server
) -> None:
    with RawKernel(tmp_path, options) as kernel:
        child = leave_a_child(kernel.ready().client)
        process = kernel_process(kernel.client)

        with outage(target):  # for longer than a launcher that was killed has
            assert not wait_until(lambda: not is_alive(process) or not is_alive(child), LAUNCHER_GRACE_SECONDS + 3)

        assert kernel_process(kernel.client) == process
        kernel.dispose()
        kernel.exit_status()
        assert count.left() == []


def test_connection_that_stays_lost_ends_the_kernel_after_the_linger_time(
    tmp_path: Path, options: LaunchOptions, count: Count, target: Server
) -> None:
    with RawKernel(tmp_path, options._replace(linger_seconds=2)) as kernel:
        child = leave_a_child(kernel.ready().client)
        process = kernel_process(kernel.client)
        with outage(target):
            lost_at = time.monotonic()
            assert kernel.exit_status() == ConnectionLost.exit_status
            assert "cannot reconnect to target" in kernel.stderr().splitlines()[-1]
            assert wait_until(lambda: not is_alive(process) and not is_alive(child))
            assert time.monotonic() - lost_at > 2, "the kernel is to live as long as it was given"

            assert count.left() == []
            assert notes() == []


def test_front_end_that_closes_while_the_connection_is_lost_leaves_nothing_once_it_is_back(
    tmp_path: Path, options: LaunchOptions, count: Count, target: Server
) -> None:
    with RawKernel(tmp_path, options) as kernel:
        child = leave_a_child(kernel.ready().client)
        with outage(target):
            kernel.dispose()
            assert kernel.exit_status() == 128 + signal.SIGTERM
            assert is_alive(child)

        assert count.left(20) == []
        assert not is_alive(child)
        assert notes() == []


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "before it notices"])
def test_launcher_killed_while_the_connection_is_lost_leaves_nothing_after_the_next_start(
    tmp_path: Path, options: LaunchOptions, count: Count, target: Server, noticed: bool
) -> None:
    before = set(notes())  # of the test before this one: its kernel may just be being ended
    with RawKernel(tmp_path, options) as old:
        child = leave_a_child(old.ready().client)
        if not noticed:
            old.launcher.send_signal(signal.SIGSTOP)
        with outage(target):
            assert not noticed or wait_until(lambda: "trying to reconnect" in old.stderr())
            old.launcher.kill()
            old.exit_status()
            time.sleep(2.0)  # the agent has seen by then that the connection is lost, and so waits for a launcher
        with RawKernel(tmp_path, options) as new:
            new.ready()
            assert wait_until(lambda: not is_alive(child), 40)  # it is tried again after 2, 4, 8 and 16 s
            new.dispose()
            new.exit_status()

        assert count.left() == []
        assert not set(notes()) - before


# -- the kernel


def test_shutdown_request_leaves_nothing(tmp_path: Path, options: LaunchOptions, count: Count) -> None:
    with RawKernel(tmp_path, options) as kernel:
        orphan = leave_an_orphan(kernel.ready().client)

        kernel.client.shutdown()

        assert kernel.exit_status() == 0
        assert count.left() == []
        assert listens(kernel.connection) == []
        assert not is_alive(orphan)


@pytest.mark.parametrize(
    ("code", "status"),
    [("exit()", 0), ("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)],
    ids=["exit", "_exit", "SIGKILL"],
)
def test_kernel_that_ends_itself_gives_the_launcher_its_status(
    tmp_path: Path, options: LaunchOptions, count: Count, code: str, status: int
) -> None:
    with RawKernel(tmp_path, options) as kernel:
        orphan = leave_an_orphan(kernel.ready().client)

        kernel.client.execute(code)

        assert kernel.exit_status() == status
        assert count.left() == []
        assert not is_alive(orphan)
