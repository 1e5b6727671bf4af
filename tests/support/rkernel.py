"""Run the `rkernel` command as an agent, a script or a person at a terminal does, with sessions of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from tests.support.kernels import wait_until
from tests.support.servers import is_alive

SECONDS = 60.0

# Makes the terminal on descriptor 0 the controlling one, so that Ctrl-C means something, and becomes the command.
_ON_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Said(NamedTuple):
    """What a command gave."""

    status: int
    out: str
    err: str


class Rkernel:
    """The command line, with a runtime folder and a working folder of its own.

    `session` is what every call means unless it says `-s` (RKERNEL_SESSION).
    """

    def __init__(self, folder: Path, *, session: str = "work", **environment: str) -> None:
        self.session = session
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        self.runtime = folder / "runtime"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.environment = {
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_PATH": str(folder),
            "RKERNEL_SESSION": session,
            **environment,
        }

    @property
    def command(self) -> list[str]:
        """The words in front of every call."""
        return [sys.executable, "-m", "remote_kernel.cli.rkernel.main"]

    def start(self, *words: str, **popen: Any) -> subprocess.Popen[str]:
        """Start a command; the caller waits for it."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[str] = subprocess.Popen(
            [*self.command, *words], env=self.environment, cwd=self.folder, text=True, **{**streams, **popen}
        )
        self._started.append(process)
        return process

    def __call__(self, *words: str, text: str | None = None, seconds: float = SECONDS) -> Said:
        """Run a command to its end; `text` is its stdin."""
        process = self.start(*words, **({} if text is None else {"stdin": subprocess.PIPE}))
        return finish(process, seconds, text)

    def exec(self, code: str, *words: str, seconds: float = SECONDS) -> Said:
        """Run a cell."""
        return self("exec", *words, "-c", code, seconds=seconds)

    def open(self, kernelspec: str = "python3") -> None:
        """Make the session."""
        said = self.exec("0", "-k", kernelspec, "-s", self.session)
        assert said.status == 0, said

    def ask(self, *words: str) -> Any:
        """Run a command with `--json` and give what it says."""
        said = self(*words, "--json")
        assert said.status == 0, said
        return json.loads(said.out)

    def status(self) -> dict[str, Any]:
        """Return the session's status."""
        found: dict[str, Any] = self.ask("status")
        return found

    def place(self, *parts: str) -> Path:
        """Return a path in the session's folder."""
        return self.runtime.joinpath("rkernel", self.session, *parts)

    def record(self) -> dict[str, Any]:
        """Return session.json."""
        fields: dict[str, Any] = json.loads(self.place("session.json").read_text())
        return fields

    def host(self) -> psutil.Process:
        """Return the session's host, without asking it, which would start one."""
        (found,) = self.hosts()
        return found

    def hosts(self) -> list[psutil.Process]:
        """Return the hosts of this session that live."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "remote_kernel.session.host.host" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kernel(self) -> psutil.Process:
        """Return the kernel's process; a remote one's launcher."""
        (child,) = psutil.Process(self.record()["pid"]).children()
        return child

    def processes(self) -> list[psutil.Process]:
        """Return every living process of these sessions: hosts, kernels, launchers, commands."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("JUPYTER_RUNTIME_DIR") == str(self.runtime) and is_alive(process):
                    found.append(process)
        return found

    def wait_running(self, text: str = "", seconds: float = SECONDS) -> str:
        """Wait until a cell runs, and has printed `text`; give its number."""
        assert wait_until(lambda: self.status()["running"], seconds)
        number = str(self.status()["running"]["cell"])
        journal = self.place("cells", f"{number}.jsonl")
        assert wait_until(lambda: text in _printed(journal), seconds), journal.read_text()
        return number

    def close(self) -> None:
        """End every session, and see that nothing of them is left."""
        said = self("close", "--all")
        assert said.status == 0, said
        assert wait_until(lambda: not self.processes(), 20), [process.cmdline() for process in self.processes()]
        left = [path for path in self.runtime.rglob("*") if path.suffix != ".log" and path.name != "rkernel"]
        assert not left

    def end(self) -> None:
        """Kill whatever lives, after a test that failed."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for started in self._started:
            started.__exit__(None, None, None)  # closes its pipes and reaps it


class Patched(Rkernel):
    """The command with something changed in it."""

    def __init__(self, folder: Path, change: str) -> None:
        super().__init__(folder)
        self._change = change

    @property
    def command(self) -> list[str]:
        code = f"{self._change}\nimport sys\nfrom remote_kernel.cli.rkernel.main import main\nsys.exit(main())"
        return [sys.executable, "-c", code]


def _printed(journal: Path) -> str:
    events = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    return "".join(event["text"] for event in events if event["event"] == "stream")


def finish(process: subprocess.Popen[str], seconds: float = SECONDS, text: str | None = None) -> Said:
    """Wait for a command that was started, and give what it said."""
    try:
        out, err = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end within {seconds:g} s: {process.args}\n{out[-2000:]}\n{err[-2000:]}") from None
    return Said(process.returncode, out, err)


@contextlib.contextmanager
def running_rkernel(folder: Path, kernelspec: str = "", **environment: str) -> Iterator[Rkernel]:
    """Yield the command line, with a session of the kernelspec if one is named; nothing of it is left afterwards."""
    rkernel = Rkernel(folder, **environment)
    try:
        if kernelspec:
            rkernel.open(kernelspec)
        yield rkernel
        rkernel.close()
    finally:
        rkernel.end()


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook with these code cells, and give its path."""
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


class Terminal:
    """A command on a terminal of its own. `seen` is all that it has shown."""

    def __init__(self, rkernel: Rkernel, *words: str) -> None:
        self.seen = ""
        self._near, far = os.openpty()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ON_TERMINAL, *rkernel.command, *words],
                stdin=far,
                stdout=far,
                stderr=far,
                env={**rkernel.environment, "TERM": "xterm-256color"},
                cwd=rkernel.folder,
                start_new_session=True,
            )
        finally:
            os.close(far)

    def expect(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until the terminal has shown a text."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert self._read(deadline - time.monotonic()), f"no {text!r} in:\n{self.seen}"

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._near, text.encode())

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for the command's end and give its exit status."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        try:
            return self.process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {seconds:g} s:\n{self.seen}") from None

    def _read(self, seconds: float) -> bool:
        if not select.select([self._near], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._near, 65536)
        except OSError:  # EIO: nobody has the other end open
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        """End the command, should it still run, and the terminal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        os.close(self._near)


@contextlib.contextmanager
def terminal(rkernel: Rkernel, *words: str) -> Iterator[Terminal]:
    """Run a command on a terminal of its own."""
    opened = Terminal(rkernel, *words)
    try:
        yield opened
    finally:
        opened.close()
