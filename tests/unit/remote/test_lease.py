"""How an agent tells a lost connection from a launcher that is gone: a real agent behind a server of our own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_kernel import bootstrap
from remote_kernel.endpoint import Endpoint
from remote_kernel.link.link import CONTROL, PROTOCOL_VERSION, STDERR, STDOUT, Link, MessageSink, Sink
from remote_kernel.options import LaunchOptions
from tests.support.kernels import wait_until

IDENTITY = "0123456789ab"

# Like sshd: the program leads a session of its own, and its end is noticed by the server alone.
SERVER = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], start_new_session=True)
for stream in (0, 1):
    import os
    os.close(stream)
time.sleep(1000)
"""


class Discard(Sink):
    """Consume what arrives."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def deliver(self, data: bytes) -> None:
        self._stream.consume(len(data))


class LocalAgent:
    """An agent with a kernel that only sleeps (or floods its stdout), and both ends of its session's pipes."""

    def __init__(self, folder: Path, program: list[str], *, keep: bool = False, linger: str = "") -> None:
        self.folder = folder
        spec = folder / "jupyter/kernels/sleeper"
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(json.dumps({"argv": program, "display_name": "S", "language": "s"}))
        options = LaunchOptions(Endpoint.parse("nowhere"), python=sys.executable, kernel="sleeper", keep=keep)
        settings = bootstrap.start_settings(options, IDENTITY, "l1", {"key": "k", "ip": "127.0.0.1"})
        settings["folder"] = str(folder / "agents")
        if linger:
            settings["linger"] = float(linger)
        code = bootstrap.program("MARK", "start", settings)
        child_in, self.stdin = os.pipe()
        self.stdout, child_out = os.pipe()
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, "sh", "-c", bootstrap.remote_command(sys.executable, len(code), "MARK")],
            stdin=child_in,
            stdout=child_out,
            env={**os.environ, "JUPYTER_PATH": str(folder / "jupyter")},
        )
        os.close(child_in)
        os.close(child_out)
        os.write(self.stdin, code)
        ready = bootstrap.ready("MARK")
        assert os.read(self.stdout, len(ready)) == ready
        self.events: list[dict[str, Any]] = []

    def hear(self, event: str) -> None:
        """Be a launcher until the agent has told of an event, and has the acknowledgement."""
        link = Link()
        link.streams[CONTROL].sink = MessageSink(link.streams[CONTROL], self.events.append)
        for number in (STDOUT, STDERR):
            link.streams[number].sink = Discard(link.streams[number])
        link.connected(time.monotonic())
        marked, deadline, acknowledged = False, time.monotonic() + 20, 0.0
        while time.monotonic() < deadline and not (acknowledged and time.monotonic() > acknowledged + 0.5):
            link.tick(time.monotonic())
            while frame := link.next_frame():
                os.write(self.stdin, frame)
            os.set_blocking(self.stdout, False)
            try:
                data = os.read(self.stdout, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            if not marked:
                data = data.partition(b"\nMARK\n")[2]
                marked = True
            link.receive(data)
            if not acknowledged and any(e["event"] == event for e in self.events):
                acknowledged = time.monotonic()
        assert acknowledged, self.events

    def state(self, do: str = "tell") -> dict[str, Any]:
        """Ask the agent, or tell it something; nothing when there is none."""
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(self.folder / "agents" / f"remote_kernel-{os.getuid()}" / IDENTITY / "a"))
                asking.sendall(json.dumps({"do": do}).encode())
                found: dict[str, Any] = json.loads(asking.recv(1 << 16))
            except OSError:
                return {}
        return found

    def close_input(self) -> None:
        """End the agent's input."""
        os.close(self.stdin)
        self.stdin = -1

    def close_output(self) -> None:
        """Read the agent's output no more."""
        os.close(self.stdout)
        self.stdout = -1

    def end_server(self) -> None:
        """Kill the server, whose end sshd's parent notices at once."""
        self.server.kill()
        self.server.wait()

    def close(self) -> None:
        """End all of it."""
        for fd in (self.stdin, self.stdout):
            if fd >= 0:
                os.close(fd)
        self.server.kill()
        self.server.wait()
        pid = self.state("stop").get("pid")
        assert wait_until(lambda: not self.state())
        assert not pid or wait_until(lambda: not Path(f"/proc/{pid}").exists())


SLEEP = ["sleep", "1000"]
FLOOD = [sys.executable, "-c", "import time\nwhile True:\n    print('x' * 10000, flush=True)\n    time.sleep(0.001)"]


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> Iterator[LocalAgent]:
    program, more = getattr(request, "param", (SLEEP, {}))
    with tempfile.TemporaryDirectory(prefix="rkl-", dir="/tmp") as folder:  # a socket's path is to be short
        running = LocalAgent(Path(folder), program, **more)
        yield running
        running.close()


def away(agent: LocalAgent) -> str:
    """Wait until the agent has made up its mind."""
    assert wait_until(lambda: not agent.state() or agent.state()["away"], 10)
    return str(agent.state().get("away", "ended"))


@pytest.mark.parametrize("agent", [(SLEEP, {}), (FLOOD, {})], indirect=True, ids=["idle", "flowing"])
def test_a_killed_sshd_is_a_lost_connection(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.end_server()
    agent.close_input()
    agent.close_output()
    assert away(agent) == "the connection was lost"


@pytest.mark.parametrize("agent", [(SLEEP, {}), (FLOOD, {})], indirect=True, ids=["idle", "flowing"])
def test_an_sshd_that_closes_the_input_first_is_a_lost_connection(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_input()
    time.sleep(0.3)
    agent.close_output()
    agent.end_server()
    assert away(agent) == "the connection was lost"


@pytest.mark.parametrize("agent", [(FLOOD, {})], indirect=True)
def test_an_sshd_that_ends_last_is_a_lost_connection(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_output()
    time.sleep(0.3)
    agent.close_input()
    agent.end_server()
    assert away(agent) == "the connection was lost"


def test_end_of_input_alone_is_a_launcher_that_is_gone(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_input()
    assert away(agent) == "the launcher is gone"


@pytest.mark.parametrize("agent", [(FLOOD, {})], indirect=True)
def test_a_launcher_killed_while_output_flows_is_gone(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_output()
    agent.close_input()
    assert away(agent) == "the launcher is gone"


@pytest.mark.parametrize("agent", [(FLOOD, {})], indirect=True)
def test_a_session_of_its_own_stays_open_until_the_agent_has_judged(agent: LocalAgent) -> None:
    """Without a shared connection sshd ends with its session, which would look like a lost connection."""
    agent.hear("started")
    child = Path(f"/proc/{agent.server.pid}/task/{agent.server.pid}/children").read_text().split()[0]
    agent.close_output()
    agent.close_input()
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        os.kill(int(child), 0)
        time.sleep(0.02)
    assert away(agent) == "the launcher is gone"


def test_a_start_that_the_launcher_never_heard_of_does_not_linger(agent: LocalAgent) -> None:
    assert wait_until(lambda: agent.state().get("pid"))
    agent.end_server()
    agent.close_input()
    agent.close_output()
    assert away(agent) == "the launcher never heard of its start"


@pytest.mark.parametrize("agent", [(SLEEP, {"keep": True, "linger": "1"})], indirect=True)
def test_a_kept_kernel_that_ends_without_a_launcher_is_not_waited_with_for_ever(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_input()
    time.sleep(3)
    os.kill(int(agent.state()["pid"]), signal.SIGTERM)
    assert wait_until(lambda: not agent.state(), 10)


def test_a_kernel_that_is_ended_while_the_connection_is_being_lost_leaves_no_agent(agent: LocalAgent) -> None:
    agent.hear("started")
    agent.close_input()
    agent.close_output()
    assert agent.state("bye")["away"] == "", "its server is still there: it may have lost its launcher alone"
    agent.end_server()
    assert wait_until(lambda: not agent.state(), 6)


@pytest.mark.nightly
@pytest.mark.parametrize("agent", [(SLEEP, {"keep": True})], indirect=True)
def test_an_attempt_that_failed_leaves_no_kept_kernel(agent: LocalAgent) -> None:
    """The launcher tries another, and nobody knows of this one."""
    assert wait_until(lambda: agent.state().get("pid"))
    agent.end_server()
    agent.close_input()
    agent.close_output()
    assert away(agent) == "the launcher never heard of its start"
    assert wait_until(lambda: not agent.state(), 20)


def test_what_somebody_asked_for_who_has_left_is_done(agent: LocalAgent) -> None:
    agent.hear("started")
    path = agent.folder / "agents" / f"remote_kernel-{os.getuid()}" / IDENTITY / "a"
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        asking.shutdown(socket.SHUT_RD)  # as a host that swaps answers later than anybody waits
        asking.sendall(b'{"do": "bye"}')
    assert wait_until(lambda: not Path(f"/proc/{agent.events[0]['pid']}").exists())
    agent.close_input()
    assert wait_until(lambda: not path.exists())


def test_an_agent_without_a_descriptor_for_a_session_says_so(agent: LocalAgent) -> None:
    """Not that it speaks another protocol, which no later attempt would mend."""
    agent.hear("started")
    request = {"do": "attach", "version": PROTOCOL_VERSION, "link": "l1", "resume": False, "server": 0, "marker": ""}
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(agent.folder / "agents" / f"remote_kernel-{os.getuid()}" / IDENTITY / "a"))
        asking.sendall(json.dumps(request).encode())
        assert json.loads(asking.recv(1 << 16))["error"] == "RemoteError"


def test_a_host_with_no_descriptor_to_spare_says_so_and_has_nothing_left(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rkl-", dir="/tmp") as folder:
        options = LaunchOptions(Endpoint.parse("nowhere"), python=sys.executable)
        settings = bootstrap.start_settings(options, IDENTITY, "l1", {"key": "k", "ip": "127.0.0.1"})
        code = bootstrap.program("MARK", "start", {**settings, "folder": folder})
        command = f"ulimit -n 12; {bootstrap.remote_command(sys.executable, len(code), 'MARK')}"
        done = subprocess.run(["sh", "-c", command], input=code, capture_output=True, timeout=40, check=False)
        assert b"a kernel cannot be started on " in done.stdout and b"too many open files" in done.stdout, done
        assert not done.stderr
        assert wait_until(lambda: not os.listdir(folder))
