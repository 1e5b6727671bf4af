"""The demonstration from start to end, told to a Narrator as it happens."""

from __future__ import annotations

import base64
import dataclasses
import shlex
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from remote_kernel.demo import cells
from remote_kernel.demo.folder import DemoFolder, marked_processes, temporary_folder, wait_for
from remote_kernel.demo.kernel_run import CellEnd, Hook, KernelRun
from remote_kernel.demo.notebook import DemoNotebook, check_path
from remote_kernel.demo.ssh_server import SshServer, running_server
from remote_kernel.errors import RemoteKernelError
from remote_kernel.kernelspec.trial import started_kernel
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.process import is_alive
from remote_kernel.signals import uninterrupted
from remote_kernel.transport.ssh_config import uses_openssh

GONE_SECONDS = 10.0
OUTAGE_SECONDS = 2.0
START_SECONDS = 40.0
KERNEL_NAME = "Remote Python (demo)"


class Narrator(Protocol):
    """Shows the demonstration to a person; one call for each thing that happens, when it happens."""

    def step(self, title: str) -> None:
        """Begin a part."""

    def fact(self, text: str) -> None:
        """State something."""

    def cell(self, code: str) -> None:
        """Show code that is about to run."""

    def output(self, text: str, seconds: float) -> None:
        """Show whole lines that a cell gave, `seconds` after it was sent."""

    def error(self, name: str, text: str) -> None:
        """Show the error that ended a cell."""

    def figures(self, rows: list[tuple[str, str]]) -> None:
        """Show measured values."""

    def done(self, text: str) -> None:
        """Tick something off."""


@dataclasses.dataclass
class _Pids:
    """Processes to look for when all is over."""

    server: int = 0
    kernel: int = 0
    agent: int = 0


def run(narrator: Narrator, log: Path) -> None:
    """Run the demonstration and write its notebook to `log`; about ten seconds.

    Raises RemoteKernelError at the first thing that does not go as it should,
    after everything has been undone.
    """
    check_path(log)
    pids = _Pids()
    undo = ExitStack()
    try:
        folder = undo.enter_context(temporary_folder())
        _Tour(narrator, folder, log, pids).run(undo)
        narrator.step("What is left of it")
    finally:
        with uninterrupted():
            undo.close()
    _check_gone(narrator, folder, pids)
    narrator.done(f"the notebook with all of this: kept ({log})")


class _Tour:
    def __init__(self, narrator: Narrator, folder: DemoFolder, log: Path, pids: _Pids) -> None:
        self._narrator, self._folder, self._log, self._pids = narrator, folder, log, pids
        self._notebook = DemoNotebook(KERNEL_NAME)
        self._begun = 0.0

    def run(self, undo: ExitStack) -> None:
        """Run the parts in order; what is opened is registered with `undo`."""
        server = self._start_server(undo)
        kernel = self._start_kernel(undo)
        try:
            interrupt_seconds = self._run_cells(kernel)
            away_seconds = self._cut(kernel, server)
        except RemoteKernelError:
            self._notebook.write(self._log)
            raise
        self._step("What it took")
        rows = [
            ("SSH handshake", f"{server.login_seconds:.2f} s"),
            ("kernel start until it is ready", f"{kernel.start_seconds:.2f} s"),
            ("kernel_info round trip, median of 50", f"{1000 * kernel.round_trip_seconds():.1f} ms"),
            ("interrupt to the cell's end", f"{1000 * interrupt_seconds:.0f} ms"),
            ("output again after the cut", f"{away_seconds:.2f} s"),
        ]
        self._narrator.figures(rows)
        self._notebook.add_text("\n".join(["| measured | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]))
        self._notebook.write(self._log)

    def _start_server(self, undo: ExitStack) -> SshServer:
        self._step("An SSH server on this machine")
        server = undo.enter_context(running_server(self._folder))
        undo.callback(self._folder.end_shared_connections)
        self._pids.server = server.pid
        self._narrator.fact(f"one in Python (paramiko) on 127.0.0.1:{server.port}, with keys made for this run")
        self._narrator.fact(f"logging in with {self._client()} took {server.login_seconds:.2f} s")
        return server

    def _start_kernel(self, undo: ExitStack) -> KernelRun:
        self._step("A kernel behind it")
        draft = Draft(KERNEL_NAME, self._folder.options())
        self._narrator.fact(f"kernel.json starts: {shlex.join(draft.argv())}")
        environment = self._folder.launcher_environment()
        kernel = KernelRun(undo.enter_context(started_kernel(draft, self._folder.path, START_SECONDS, environment)))
        self._pids.kernel, self._pids.agent = kernel.ask("(__import__('os').getpid(), __import__('os').getppid())")
        self._narrator.fact(f"it answered after {kernel.start_seconds:.2f} s")
        return kernel

    def _client(self) -> str:
        """Name what speaks SSH on this side."""
        return "ssh" if uses_openssh(self._folder.options()) else "the SSH client in Python (paramiko)"

    def _run_cells(self, kernel: KernelRun) -> float:
        """Run every cell; return the seconds from the interrupt to the cell's end."""
        self._step("Code runs there")
        self._ok(kernel, cells.WHO)
        self._step("Variables stay from cell to cell")
        self._ok(kernel, cells.STATE)
        self._ok(kernel, cells.STATE_AGAIN)
        self._step("Output arrives as it is printed")
        self._ok(kernel, cells.PROGRESS)
        self._step("A plot")
        has_matplotlib = kernel.ask("all(map(__import__('importlib').util.find_spec, ('matplotlib', 'numpy')))")
        self._ok(kernel, cells.PLOT if has_matplotlib else cells.PLOT_WITHOUT_MATPLOTLIB)
        self._step("An error")
        self._fails(kernel, cells.ERROR, "ZeroDivisionError")
        self._step("An interrupt")
        pressed: list[float] = []

        def interrupt_once(kind: str, _: dict[str, Any]) -> None:
            if kind == "stream" and not pressed:
                pressed.append(time.monotonic())
                kernel.interrupt()

        self._fails(kernel, cells.INTERRUPT, "KeyboardInterrupt", interrupt_once)
        took = time.monotonic() - pressed[0]
        self._narrator.fact("the variables are still there")
        self._ok(kernel, cells.AFTER_INTERRUPT)
        return took

    def _cut(self, kernel: KernelRun, server: SshServer) -> float:
        """Cut the connection under a running cell; return the seconds until there was output again."""
        self._step("A lost connection")
        lines: list[str] = []
        arrivals: list[float] = []
        cuts: list[float] = []
        with ExitStack() as undo:

            def cut_once(kind: str, content: dict[str, Any]) -> None:
                if kind != "stream":
                    return
                lines.extend(content["text"].splitlines())
                arrivals.append(time.monotonic())
                if cells.CUT_AFTER in lines and not cuts:
                    cuts.append(time.monotonic())
                    undo.enter_context(server.frozen(OUTAGE_SECONDS))
                    if not self._folder.kill_connections():
                        raise RemoteKernelError("there is no connection to cut", "report this")
                    self._narrator.fact(
                        f"{self._client()} is killed here, and the server answers nothing for {OUTAGE_SECONDS:.0f} s"
                    )

            self._ok(kernel, cells.LONG, cut_once)
        expected = [f"epoch {n}/{cells.LONG_LINES}" for n in range(1, cells.LONG_LINES + 1)]
        if lines != expected:
            raise RemoteKernelError(f"of {len(expected)} lines {len(lines)} came", "report this")
        self._narrator.done(f"all {len(lines)} lines came, each once and in order")
        return next(arrival for arrival in arrivals if arrival > cuts[0]) - cuts[0]

    def _ok(self, kernel: KernelRun, code: str, hook: Hook | None = None) -> None:
        ended = self._cell(kernel, code, hook)
        if ended.status != "ok":
            raise RemoteKernelError(f"a cell that should have run ended with {ended.name}: {ended.text}", "report this")

    def _fails(self, kernel: KernelRun, code: str, error: str, hook: Hook | None = None) -> None:
        ended = self._cell(kernel, code, hook)
        if ended.name != error:
            what = ended.name or "nothing"
            raise RemoteKernelError(f"a cell that should have raised {error} raised {what}", "report this")
        self._narrator.error(ended.name, ended.text)

    def _cell(self, kernel: KernelRun, code: str, hook: Hook | None = None) -> CellEnd:
        self._narrator.cell(code)
        self._notebook.add_code(code)
        begun = time.monotonic()

        def take(kind: str, content: dict[str, Any]) -> None:
            self._notebook.add_output(kind, content)
            data = content.get("data", {})
            if kind == "stream":
                self._narrator.output(content["text"], time.monotonic() - begun)
            elif "image/png" in data:
                png = base64.b64decode(data["image/png"])
                width, height = struct.unpack_from("!II", png, 16)  # see the PNG specification, 11.2.2
                self._narrator.fact(f"image/png, {width} x {height} pixels, {len(png)} bytes")
            elif kind == "execute_result":
                self._narrator.output(data["text/plain"], time.monotonic() - begun)
            if hook:
                hook(kind, content)

        return kernel.run(code, take)

    def _step(self, title: str) -> None:
        self._narrator.step(title)
        self._notebook.add_text(f"## {title}")


def _check_gone(narrator: Narrator, folder: DemoFolder, pids: _Pids) -> None:
    """Look for everything that was made. Raises RemoteKernelError naming what is still there."""
    for what, pid in (("the kernel", pids.kernel), ("its agent", pids.agent), ("the SSH server", pids.server)):
        if not wait_for(lambda pid=pid: not is_alive(pid), GONE_SECONDS):  # type: ignore[misc]
            raise RemoteKernelError(f"{what} is left behind as process {pid}", "end it with 'kill', and report this")
        narrator.done(f"{what}: ended (process {pid})")
    if not wait_for(lambda: not marked_processes(folder.path), GONE_SECONDS):
        left = ", ".join(f"{pid} ({command.strip()})" for pid, command in marked_processes(folder.path).items())
        raise RemoteKernelError(f"processes are left behind: {left}", "end them with 'kill', and report this")
    if folder.path.exists():
        raise RemoteKernelError(f"{folder.path} is left behind", "remove it, and report this")
    narrator.done(f"keys, configuration, the kernel's folder: removed ({folder.path})")
