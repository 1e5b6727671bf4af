"""Output of an outage waits on the remote side, within bounds, and holds nothing else up."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import psutil
import pytest
import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session

from remote_kernel.remote.folder import AGENT_SOCKET
from tests.support.ends import agent_of, ask_agents, kernels_on, launcher_of, log_of, running
from tests.support.kernels import options_for, run, running_kernel, wait_until
from tests.support.relay import Relay
from tests.support.servers import Server

MOST = 120 << 20

# Each line is one message, which print does not promise.
PRINT = """
import time
kernel = get_ipython().kernel
for n in range({count}):
    kernel.send_response(kernel.iopub_socket, "stream", {{"name": "stdout", "text": "%07d" % n + "x" * {size} + "\\n"}})
    time.sleep(0.001)  # a burst of more than 1000 messages loses some with a kernel on this machine too
"""
NOTICE = re.compile(r"\n\[remote_kernel: (\d+) messages \([\d.]+ MiB\) are missing here: .*\]\n")


class Watch:
    """Note the most memory that processes have held, while it lasts."""

    def __init__(self, *processes: psutil.Process) -> None:
        self._processes = processes
        self.most = [0] * len(processes)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._done.wait(0.05):
            for n, process in enumerate(self._processes):
                self.most[n] = max(self.most[n], process.memory_info().rss)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def lines_of(get: Callable[[], dict[str, Any]], request: str) -> list[int]:
    """Take a cell's output to its idle; give the numbers of its lines, and minus the number where lines are missing."""
    found = []
    while True:
        try:
            message = get()
        except Empty:
            pytest.fail(f"nothing more came after {len(found)} lines, the last {found[-3:]}")
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            text = message["content"]["text"]
            said = NOTICE.fullmatch(text)
            found.append(-int(said[1]) if said else int(text[:7]))
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return found


class Asker:
    """A second front end, which asks on control and pings the heartbeat, in a thread of its own."""

    def __init__(self, manager: KernelManager, key: bytes, times: int) -> None:
        self._manager, self._key, self._times = manager, key, times
        self.waits: list[float] = []
        """Seconds to each answer; the first one may have to wait until the connection is back, and is left out."""
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        session = Session(key=self._key)
        with zmq.Context() as context, context.socket(zmq.DEALER) as control, context.socket(zmq.REQ) as heartbeat:
            for each, port in ((control, self._manager.control_port), (heartbeat, self._manager.hb_port)):
                each.linger = 0
                each.connect(f"tcp://127.0.0.1:{port}")
            for n in range(self._times + 1):
                for each in (control, heartbeat):
                    started = time.monotonic()
                    if each is control:
                        session.send(control, "kernel_info_request")
                    else:
                        heartbeat.send(b"ping")
                    if not each.poll(30_000):
                        self.waits.append(float("inf"))
                        return
                    each.recv_multipart()
                    if n:
                        self.waits.append(time.monotonic() - started)
                time.sleep(0.1)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


class Printed(NamedTuple):
    """What came of a cell's lines (see `lines_of`), the most memory of launcher and agent, the waits, the log."""

    lines: list[int]
    most: list[int]
    waits: list[float]
    log: str

    def check_the_loss(self, count: int) -> None:
        """See that each of `count` lines came or is counted, in the notebook and in the log, and nothing grew."""
        lines = [n for n in self.lines if n >= 0]
        missing = -sum(n for n in self.lines if n < 0)
        assert lines == sorted(set(lines))
        assert missing and len(lines) + missing == count
        assert "output is discarded until there is room" in self.log
        assert f"{missing} messages" in self.log
        assert max(self.most) < MOST, self.most
        assert max(self.waits) < 1, self.waits


def printed_in_an_outage(
    printed: Path, folder: Path, target: Server, ssh_config: Path, python: Path, count: int, size: int, spool_bytes: int
) -> Printed:
    """Print `count` lines of `size` bytes while the connection is away."""
    with running_kernel(folder, options_for("target", ssh_config, python, spool_bytes=spool_bytes)) as (
        manager,
        client,
    ):
        launcher, agent = launcher_of(manager), agent_of(kernels_on(target)[0])
        with Watch(launcher, agent) as watch:
            code = PRINT.format(count=count, size=size - 8)
            request = client.execute(f"import time\ntime.sleep(1)\n{code}open({str(printed)!r}, 'w').close()")
            while client.get_iopub_msg(timeout=10)["msg_type"] != "execute_input":
                pass
            with target.away():
                assert wait_until(printed.exists, 100)
            with Asker(manager, client.session.key, 5) as asker:
                taken = lines_of(lambda: client.get_iopub_msg(timeout=20), request)
        assert client.get_shell_msg(timeout=10)["parent_header"]["msg_id"] == request
        assert run(client, "1 + 1").result == "2"
        return Printed(taken, watch.most, asker.waits, log_of(manager))


def test_what_is_printed_in_an_outage_is_complete_and_takes_little_memory(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    found = printed_in_an_outage(
        remote_folder / "printed", tmp_path, target, ssh_config, remote_python, 200, 1 << 20, 1 << 30
    )

    assert found.lines == list(range(200))
    assert max(found.most) < MOST, found.most
    assert max(found.waits) < 1, found.waits


def test_what_a_full_spool_has_no_room_for_is_counted(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    """No more than the 1000 messages that the kernel's own socket keeps: what is missing, the agent has discarded.

    So it is in all of these tests: the agent may have to wait for a busy disk, or for its turn.
    """
    found = printed_in_an_outage(
        remote_folder / "printed", tmp_path, target, ssh_config, remote_python, 900, 128 << 10, 64 << 20
    )

    found.check_the_loss(900)
    assert found.lines[:500] == list(range(500))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_gigabyte_printed_in_an_outage_is_complete(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    found = printed_in_an_outage(
        remote_folder / "printed", tmp_path, target, ssh_config, remote_python, 900, 1200 << 10, 2 << 30
    )

    assert found.lines == list(range(900))
    assert max(found.most) < MOST, found.most
    assert max(found.waits) < 1, found.waits


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_gigabyte_printed_for_a_small_spool_and_a_slow_network_is_counted(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path, remote_folder: Path
) -> None:
    relay, ssh_config = network
    relay.bytes_per_second = 5e6
    found = printed_in_an_outage(
        remote_folder / "printed", tmp_path, target, ssh_config, remote_python, 900, 1200 << 10, 64 << 20
    )

    found.check_the_loss(900)


def test_who_connects_to_the_agent_and_says_nothing_holds_no_output_up(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running(tmp_path, target, ssh_config, remote_python) as found, socket.socket(socket.AF_UNIX) as silent:
        (agent,) = ask_agents(found.options)
        request = found.client.execute(PRINT.format(count=2500, size=10))
        while found.client.get_iopub_msg(timeout=10)["msg_type"] != "execute_input":
            pass

        silent.connect(f"{agent['folder']}/{AGENT_SOCKET}")

        assert lines_of(lambda: found.client.get_iopub_msg(timeout=20), request) == list(range(2500))
        silent.settimeout(10)
        assert silent.recv(1) == b"", "the agent waits for ever"


def test_a_front_end_that_does_not_read_iopub_still_gets_its_answers(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with (
        running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (manager, client),
        zmq.Context() as context,
        context.socket(zmq.SUB) as stuck,
    ):
        stuck.setsockopt(zmq.RCVHWM, 1)
        stuck.setsockopt(zmq.SUBSCRIBE, b"")
        stuck.connect(f"tcp://127.0.0.1:{manager.iopub_port}")
        while not stuck.poll(100):  # until the kernel knows of it
            client.kernel_info()
        with Watch(launcher_of(manager), agent_of(kernels_on(target)[0])) as watch:
            request = client.execute(PRINT.format(count=100, size=(1 << 20) - 8))
            with Asker(manager, client.session.key, 20) as asker:
                assert lines_of(lambda: client.get_iopub_msg(timeout=60), request) == list(range(100))
        assert len(asker.waits) == 40
        assert max(asker.waits) < 1, asker.waits
        assert max(watch.most) < MOST, watch.most
        session = Session(key=client.session.key)

        def get() -> dict[str, Any]:
            assert stuck.poll(30_000)
            _, parts = session.feed_identities(stuck.recv_multipart())
            found: dict[str, Any] = session.deserialize(parts)
            return found

        assert lines_of(get, request) == list(range(100))
