"""The remote side as it is shipped, without SSH: a real agent and a fake kernel under every Python from 3.8 to 3.13."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from remote_kernel import bootstrap
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import PythonNotFound
from remote_kernel.link.link import CONTROL, STDERR, STDOUT, Link, LinkStream, MessageSink, Sink, send_message
from remote_kernel.link.reactor import Pipe, Reactor
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.ssh_errors import explain
from tests.support.interpreters import interpreters
from tests.support.isolation import ORIGINAL_ENVIRON
from tests.support.kernels import wait_until

FOUND = interpreters()
MARKER = "remote_kernel-test"
IDENTITY = "0123456789ab"
AGENTS = f"agents/remote_kernel-{os.getuid()}"
VALUE = "two\nlines, 'quotes\" $HOME `id` \\n \U0001f642 é"


class Gather(Sink):
    """Keep what a stream brings."""

    def __init__(self, stream: LinkStream) -> None:
        self.stream = stream
        self.data = b""
        self.finished = False
        stream.sink = self

    def deliver(self, data: bytes) -> None:
        self.data += data
        self.stream.consume(len(data))

    def finish(self) -> None:
        self.finished = True


class SessionPipe(Pipe):
    """The Link's pipe, behind the marker's line."""

    told: bytes | None = None
    before = b""

    def receive(self, data: bytes) -> None:
        if self.told is not None:
            super().receive(data)
            return
        self.before = (self.before + data).replace(bootstrap.ready(MARKER), b"")
        _, found, after = self.before.partition(f"\n{MARKER}".encode())
        told, newline, rest = after.partition(b"\n")
        if found and newline:
            self.told = told
            super().receive(rest)


class Near:
    """A launcher's end: one Link, and sessions that are local shells in place of ssh."""

    def __init__(self, python: Path, folder: Path, reactor: Reactor, undo: contextlib.ExitStack) -> None:
        self.python, self.folder, self.reactor, self.undo = python, folder, reactor, undo
        self.link = Link()
        self.control = self.link.streams[CONTROL]
        self.events: list[dict[str, Any]] = []
        self.control.sink = MessageSink(self.control, self.events.append)
        self.stdout, self.stderr = Gather(self.link.streams[STDOUT]), Gather(self.link.streams[STDERR])
        self.ended: list[str] = []

    def session(self, mode: str, settings: dict[str, object]) -> subprocess.Popen[bytes]:
        """Run the remote command in a login shell's place, as sshd does, and join the Link to it."""
        program = bootstrap.program(MARKER, mode, settings)
        command = bootstrap.remote_command(str(self.python), len(program), MARKER)
        jupyter = {"JUPYTER_PATH": str(self.folder / "jupyter"), "JPY_PARENT_PID": "1", "JPY_SESSION_NAME": "x.ipynb"}
        with (self.folder / "session-stderr").open("ab") as stderr:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, **jupyter},
            )
        self.undo.callback(process.kill)
        assert process.stdin and process.stdout
        fd_in, fd_out = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
        process.stdin.close()
        process.stdout.close()
        self.pipe = SessionPipe(self.reactor, self.link, fd_in, fd_out, self.ended.append)
        self.undo.callback(self.pipe.close)
        self.pipe.start(program)
        return process

    def start(self, kernel: str, **settings: object) -> subprocess.Popen[bytes]:
        options = LaunchOptions(
            Endpoint.parse("here"), python=str(self.python), kernel=kernel, env=(("RK_VALUE", VALUE),)
        )
        connection = {"key": "k" * 32, "signature_scheme": "hmac-sha256", "kernel_name": "x", "future": [1, {"a": 2}]}
        asked = bootstrap.start_settings(options, IDENTITY, "link1", connection)
        return self.session("start", {**asked, "folder": str(self.folder / "agents"), **settings})

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Serve until the condition holds."""
        late: list[bool] = []
        timer = self.reactor.call_later(seconds, lambda: (late.append(True), self.reactor.stop()))  # type: ignore[func-returns-value]

        def look(now: float) -> float:
            if condition():
                self.reactor.stop()
            return now + 0.05

        self.reactor.before_wait.append(look)
        self.reactor.run()
        self.reactor.before_wait.remove(look)
        timer.cancel()
        assert not late, (self.events, self.ended, (self.folder / "session-stderr").read_text())

    def event(self, name: str) -> dict[str, Any]:
        """Serve until the agent tells of an event, and give it."""
        self.until(lambda: any(event["event"] == name for event in self.events))
        return next(event for event in self.events if event["event"] == name)

    def echo(self, channel: str, data: bytes) -> None:
        """Send bytes to a channel's socket and see the same bytes come back."""
        stream = self.link.open(channel)
        sink = Gather(stream)
        stream.write(data)
        self.until(lambda: len(sink.data) >= len(data))
        assert sink.data == data
        stream.close()

    def leave(self, session: subprocess.Popen[bytes]) -> None:
        """End the session's input and wait for its end, as ssh does when the launcher has ended."""
        self.tell("done")
        self.pipe.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.pipe.fd_out)
        os.close(null)
        self.until(lambda: self.ended)
        self.pipe.close()
        assert session.wait(10) == 0

    def tell(self, do: str, **fields: object) -> None:
        send_message(self.control, dict(fields, do=do))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a short path, for Unix sockets, that holds the fake kernel's specs."""
    path = Path(tempfile.mkdtemp(prefix="rkf-", dir="/tmp"))
    source = Path(__file__).with_name("fake_kernel.py")
    # A kernel whose command names ipykernel gets Unix sockets, any other TCP ports.
    for name, script in {"ipc": "fake_ipykernel.py", "tcp": "fake.py"}.items():
        spec = path / "jupyter" / "kernels" / name
        spec.mkdir(parents=True)
        shutil.copy(source, spec / script)
        argv = ["python", "{resource_dir}/" + script, "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "none"}))
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def near(python: Path, folder: Path) -> Iterator[Near]:
    with contextlib.ExitStack() as undo:
        reactor = undo.enter_context(Reactor())
        yield Near(python, folder, reactor, undo)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
@pytest.mark.parametrize("version", FOUND, ids=lambda version: "{}.{}".format(*version))
def test_agent_lives_a_kernels_life_under(version: tuple[int, int], transport: str, folder: Path) -> None:
    with near(FOUND[version], folder) as here:
        session = here.start(transport)
        kernel = psutil.Process(here.event("started")["pid"])
        agent = kernel.parent()
        here.event("ready")
        about = json.loads(here.stdout.data.split(b"\n")[0])
        assert tuple(about["version"]) == version
        assert about["value"] == VALUE
        assert kernel.environ()["JPY_PARENT_PID"] == str(agent.pid)
        assert "JPY_SESSION_NAME" not in kernel.environ()
        _check_private(folder / AGENTS / IDENTITY, transport)

        for channel in ("shell", "iopub", "stdin", "control", "hb"):
            here.echo(channel, b"hello " + channel.encode())
        here.echo("shell", bytes(range(256)) * 12000)

        here.tell("signal", number=int(signal.SIGINT))
        here.until(lambda: b"interrupted" in here.stdout.data)
        assert here.stderr.data == b"words on stderr\n"

        here.tell("bye")
        ended = here.event("ended")
        assert ended["status"] == -signal.SIGTERM
        here.leave(session)
        psutil.wait_procs([agent, kernel], timeout=10)
        assert not agent.is_running()
        assert not kernel.is_running()
        assert wait_until(lambda: not (folder / AGENTS).exists())
        assert (folder / "session-stderr").read_text() == ""


def _check_private(kept: Path, transport: str) -> None:
    assert stat.S_IMODE(kept.stat().st_mode) == stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    file = kept / "kernel.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = json.loads(file.read_text())
    assert written["transport"] == transport
    assert (written["key"], written["future"]) == ("k" * 32, [1, {"a": 2}])


@pytest.mark.parametrize("version", FOUND, ids=lambda version: "{}.{}".format(*version))
def test_attach_goes_on_under(version: tuple[int, int], folder: Path) -> None:
    with near(FOUND[version], folder) as here:
        first = here.start("ipc", linger=60.0)
        here.event("ready")
        stream = here.link.open("shell")
        sink = Gather(stream)
        stream.write(b"before")
        here.until(lambda: sink.data == b"before")
        here.pipe.close()
        stream.write(b" and after")
        assert first.wait(10) == 0
        second = here.session(
            "attach", {"id": IDENTITY, "link": "link1", "resume": False, "folder": str(folder / "agents")}
        )
        here.until(lambda: sink.data == b"before and after")
        here.tell("bye")
        here.event("ended")
        here.leave(second)
        assert wait_until(lambda: not (folder / AGENTS).exists())


@pytest.mark.parametrize("version", FOUND, ids=lambda version: "{}.{}".format(*version))
def test_failures_are_told_under(version: tuple[int, int], folder: Path) -> None:
    with near(FOUND[version], folder) as here:
        session = here.start("no-such-kernel")
        failed = here.event("failed")
        assert failed["error"] == "RemoteKernelspecNotFound"
        assert "ipc" in failed["hint"]
        here.leave(session)
    with near(FOUND[version], folder) as here:
        session = here.start("tcp", env=[["RK_FAIL", "9"]])
        ended = here.event("ended")
        assert (ended["status"], ended["ready"], ended["stderr"]) == (9, False, "words on stderr\n")
        here.leave(session)
    assert wait_until(lambda: not (folder / AGENTS).exists())


@pytest.mark.parametrize("version", FOUND, ids=lambda version: "{}.{}".format(*version))
def test_killed_agent_leaves_nothing_under(version: tuple[int, int], folder: Path) -> None:
    with near(FOUND[version], folder) as here:
        session = here.start("tcp")
        kernel = psutil.Process(here.event("started")["pid"])
        here.event("ready")
        kernel.parent().kill()
        here.until(lambda: here.ended)
        here.pipe.close()
        session.wait(10)
        psutil.wait_procs([kernel], timeout=10)
        assert not kernel.is_running()
        assert wait_until(lambda: not (folder / AGENTS).exists())


def test_kernel_that_loses_its_port_gets_another(folder: Path) -> None:
    # The first time the kernel says that its port is taken, as any server does; the agent tries other ports.
    script = folder / "jupyter/kernels/tcp/fake.py"
    text = script.read_text().replace(
        "    with open(path,",
        "    if not os.path.exists(path + '.seen'):\n"
        "        open(path + '.seen', 'w').close()\n"
        "        sys.exit('OSError: [Errno 98] Address already in use')\n"
        "    with open(path,",
    )
    script.write_text(text)
    with near(next(iter(FOUND.values())), folder) as here:
        session = here.start("tcp")
        here.event("ready")
        assert len([event for event in here.events if event["event"] == "started"]) == 2
        here.echo("hb", b"beat")
        here.tell("bye")
        here.event("ended")
        here.leave(session)


# -- too old


def _too_old() -> dict[str, Path]:
    root = Path(ORIGINAL_ENVIRON.get("PYENV_ROOT") or Path(ORIGINAL_ENVIRON.get("HOME", "/"), ".pyenv"))
    found = {path.parts[-3]: path for path in root.glob("versions/*/bin/python")}
    return {name: path for name, path in sorted(found.items()) if name.startswith(("2.7.", "3.6.", "3.7."))}


@pytest.mark.parametrize("version", _too_old() or ["none here"])
def test_too_old_python_says_so(version: str) -> None:
    if version == "none here":
        pytest.skip("there is no Python older than 3.8 on this machine")
    python = str(_too_old()[version])
    program = bootstrap.program(MARKER, "start", {})
    command = ["/bin/sh", "-c", bootstrap.remote_command(python, len(program), MARKER)]
    done = subprocess.run(command, input=program + b"frames", capture_output=True, timeout=30)
    if version.startswith("2."):  # it does not know -I, so our program never runs
        options = LaunchOptions(Endpoint.parse("old"), python=python)
        error = explain(options, done.stderr.decode(), done.returncode, done.stdout)
        assert isinstance(error, PythonNotFound)
        assert python in str(error)
        assert "3.8" in str(error)
        return
    assert done.returncode == PythonNotFound.exit_status
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith(f"{MARKER} {{")]
    told = json.loads(line.removeprefix(MARKER))
    assert told == {
        "error": "PythonNotFound",
        "message": f"{python} is Python {version}",
        "hint": "give --python a Python 3.8 or later",
    }


def test_program_is_read_to_its_last_byte_and_no_further() -> None:
    # The Link's frames follow it in the same pipe: one byte too many read would be lost.
    python = str(next(iter(FOUND.values())))
    here, there = socket.socketpair()
    with here, there:
        program = bootstrap.program(
            MARKER, "attach", {"id": "none", "link": "", "resume": False, "folder": "/nonexistent"}
        )
        here.sendall(program + b"frames")
        command = ["/bin/sh", "-c", bootstrap.remote_command(python, len(program), MARKER)]
        done = subprocess.run(command, stdin=there, stdout=subprocess.PIPE, timeout=30)
        assert b"KernelGone" in done.stdout
        assert there.recv(100) == b"frames"
