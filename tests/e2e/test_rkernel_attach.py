"""Sessions of kernels that somebody else has started: a notebook's in JupyterLab, say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.support.kernels import run, wait_until
from tests.support.rkernel import Rkernel, finish


class Owner:
    """A front end with a kernel, whose connection file is where JupyterLab puts it."""

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / f"kernel-{name}.json"
        self.manager = KernelManager(kernel_name="python3", connection_file=str(path))
        self.manager.start_kernel()
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self) -> None:
        """End the kernel as a front end does."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def owner(alone: Rkernel) -> Iterator[Owner]:
    """Yield a kernel that somebody else has open."""
    opened = Owner(alone.runtime, "5f0e")
    yield opened
    opened.close()


def test_kernel_of_a_front_end_is_shared(alone: Rkernel, owner: Owner) -> None:
    assert run(owner.client, "x = 41").status == "ok"
    said = alone("attach", "-s", "work")
    assert said.status == 0
    assert "kernel-5f0e.json" in said.out
    assert alone.exec("x += 1; x").out == "42\n"
    assert run(owner.client, "x").result == "42"
    assert alone("attach", "-s", "work").status == 2
    assert alone("restart").status == 2
    (listed,) = alone.ask("ls")
    assert (listed["attached"], listed["state"]) == (True, "idle")
    assert alone("close", "work").status == 0
    assert run(owner.client, "x").result == "42"


def test_several_open_kernels_are_listed(alone: Rkernel, owner: Owner) -> None:
    other = Owner(alone.runtime, "77aa")
    try:
        said = alone("attach")
        assert said.status == 2
        assert "several kernels are open" in said.err
        assert "kernel-5f0e.json" in said.err
        assert "kernel-77aa.json" in said.err
        assert alone("attach", "77aa", "-s", "work").status == 0
        assert alone.exec("import os; os.getpid()").out == run(other.client, "os.getpid()").result + "\n"
        assert alone("attach", "no-such").status == 2
        assert alone("close", "work").status == 0
    finally:
        other.close()


def test_restart_by_the_owner_gives_4_once_and_its_end_gives_4(alone: Rkernel, owner: Owner) -> None:
    assert alone("attach", "-s", "work", "--no-log").status == 0
    assert alone.exec("x = 1").status == 0
    owner.manager.restart_kernel(now=True)
    owner.client.wait_for_ready(timeout=60)
    assert wait_until(lambda: alone.status()["trouble"] or alone.status()["generation"] == 2)
    said = alone.exec("print('never')")
    assert (said.status, said.out) == (4, "")
    assert "another front end has restarted the kernel" in said.err
    assert alone.exec("'x' in globals()").out == "False\n"
    assert alone.status()["generation"] == 2
    owner.manager.shutdown_kernel(now=True)  # which removes the connection file
    assert wait_until(lambda: alone.status()["state"] == "dead", 5)
    said = alone.exec("1")
    assert said.status == 4
    assert "'rkernel close work' removes the session" in said.err
    assert os.path.isdir(alone.place())


def test_kernel_that_says_that_it_is_shut_down_is_dead_at_once(alone: Rkernel, owner: Owner) -> None:
    assert alone("attach", "-s", "work", "--no-log").status == 0
    owner.client.shutdown()
    assert wait_until(lambda: alone.status()["state"] == "dead", 5)
    assert os.path.exists(owner.manager.connection_file)
    said = alone.exec("1")
    assert said.status == 4
    assert "the kernel was shut down" in said.err


def test_cells_of_a_kernel_that_is_restarted_are_lost_at_once_and_the_next_kernel_is_found(
    alone: Rkernel, owner: Owner
) -> None:
    assert alone("attach", "-s", "work", "--no-log").status == 0
    running = alone.start("exec", "-c", "import time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(.05)")
    alone.wait_running("begun")
    owner.client.shutdown(restart=True)
    assert wait_until(lambda: owner.client.get_iopub_msg(timeout=10)["msg_type"] == "shutdown_reply")
    owner.manager.signal_kernel(signal.SIGKILL)  # the cell still runs
    assert wait_until(lambda: running.poll() is not None, 5)
    assert finish(running).status == 4
    said = alone.exec("1")
    assert said.status == 4
    assert "the kernel has ended, as it was asked to" in said.err
    assert alone.status()["state"] != "dead"
    owner.manager.restart_kernel(now=True)
    assert wait_until(lambda: alone.status()["generation"] == 2, 30)
    assert wait_until(lambda: alone.exec("6 * 7").out == "42\n")


def test_agents_waiting_cell_is_taken_back_and_the_persons_cell_goes_on(
    alone: Rkernel, owner: Owner, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    assert alone("attach", "-s", "work", "--no-log").status == 0
    assert alone.exec("1").status == 0
    owner.client.execute(f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)\nended = 'well'")
    assert wait_until(lambda: alone.status()["state"] == "busy")
    assert alone.exec("print('never')", "--timeout", "0.1").status == 124
    said = alone("interrupt", "2")
    assert (said.status, said.err) == (0, "rkernel: cell 2 was taken out of the queue\n")
    assert alone("wait", "2").status == 5
    stop.touch()
    assert alone.exec("ended").out == "'well'\n"


def test_cell_for_one_kernel_does_not_run_in_the_next_one_though_it_waited(
    alone: Rkernel, owner: Owner, tmp_path: Path
) -> None:
    assert alone("attach", "-s", "work", "--no-log").status == 0
    assert alone.exec("import time; time.sleep(60)", "--detach").status == 124
    alone.wait_running()
    for name in ("one", "two"):
        code = f"open({str(tmp_path / name)!r}, 'w').close()"
        assert alone.exec(code, "--detach", "--generation", "1").status == 124
    owner.manager.restart_kernel(now=True)
    owner.client.wait_for_ready(timeout=60)
    said = [alone("wait", number) for number in ("1", "2", "3")]
    assert [one.status for one in said] == [4, 4, 4]
    assert "this is kernel 2 of the session, not kernel 1" in said[2].err
    assert not (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
    assert alone.exec("1").status == 0


def test_first_look_leaves_a_figure_alone_that_the_persons_cell_draws(
    alone: Rkernel, owner: Owner, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    drawing = (
        "%matplotlib inline\nimport matplotlib.pyplot as plt, os, time\ndrawn = plt.plot([1, 2])\n"
        f"while not os.path.exists({str(stop)!r}): time.sleep(.02)\nlines, name = len(plt.gca().lines), input()"
    )
    owner.client.execute(drawing, allow_stdin=True)
    assert alone("attach", "-s", "work", "--no-log").status == 0
    assert wait_until(lambda: "drawn" in alone("vars").out)
    assert alone("vars").status == 0
    stop.touch()
    owner.client.get_stdin_msg(timeout=30)
    owner.client.input("who")
    assert run(owner.client, "lines, name").result == "(1, 'who')"
