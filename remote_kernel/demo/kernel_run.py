"""One kernel and its cells, driven through jupyter_client as any front end does it."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_kernel.demo.folder import uninterrupted
from remote_kernel.errors import KernelDied, RemoteKernelError
from remote_kernel.kernelspec import Draft, kernel_document

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

START_SECONDS = 40.0
CELL_SECONDS = 20.0
ROUND_TRIPS = 50
Hook = Callable[[str, dict[str, Any]], None]
"""Called with the type and content of every iopub message of a cell, as it arrives."""


@dataclass(frozen=True)
class CellEnd:
    """How a cell ended: `ok` or `error`, the error's name and its text."""

    status: str
    name: str = ""
    text: str = ""


class KernelRun:
    """A kernel that `start` has started. Everything is registered with the ExitStack that is handed in."""

    def __init__(self, folder: Path, draft: Draft, environment: dict[str, str]) -> None:
        self._folder, self._draft, self._environment = folder, draft, environment
        self._stderr = folder / "launcher_stderr"
        self._manager: KernelManager
        self._client: BlockingKernelClient
        self.start_seconds = 0.0

    def start(self, undo: ExitStack) -> None:
        """Write the kernelspec and start it; returns when the kernel has answered. Raises KernelDied."""
        import zmq
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        spec = self._folder / "kernels" / "demo"
        spec.mkdir()
        (spec / "kernel.json").write_text(json.dumps(kernel_document(self._draft)), encoding="utf-8")
        context = zmq.Context()
        undo.callback(context.destroy, linger=0)
        self._manager = KernelManager(
            kernel_name="demo",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False),
            connection_file=str(self._folder / "connection.json"),
            context=context,
        )
        undo.callback(self.end)
        begun = time.monotonic()
        with self._stderr.open("wb") as stderr, uninterrupted():
            self._manager.start_kernel(stdout=subprocess.DEVNULL, stderr=stderr, env=self._environment)
        self._client = self._manager.client()
        undo.callback(self._client.stop_channels)
        self._client.start_channels()
        self._wait_for_answer(begun + START_SECONDS)
        self.start_seconds = time.monotonic() - begun
        try:
            self._client.wait_for_ready(timeout=START_SECONDS)
        except RuntimeError as error:
            raise self._died() from error

    def end(self) -> None:
        """Shut the kernel down as a front end does. Idempotent."""
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=not self._manager.is_alive())

    def run(self, code: str, hook: Hook) -> CellEnd:
        """Run one cell and return how it ended. Raises RemoteKernelError when there is no answer in time."""

        def take(message: dict[str, Any]) -> None:
            hook(message["msg_type"], message["content"])

        try:
            reply = self._client.execute_interactive(code, timeout=CELL_SECONDS, output_hook=take, allow_stdin=False)
        except TimeoutError as error:
            if not self._manager.is_alive():
                raise self._died() from error
            raise RemoteKernelError(f"a cell did not end within {CELL_SECONDS:.0f} s", "report this") from error
        content = reply["content"]
        return CellEnd(content["status"], content.get("ename", ""), content.get("evalue", ""))

    def interrupt(self) -> None:
        """Interrupt the running cell, as the stop button does."""
        self._manager.interrupt_kernel()

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the kernel, a Python literal, without a trace in its history."""
        reply = self._client.execute(
            "", silent=True, user_expressions={"value": expression}, reply=True, timeout=CELL_SECONDS
        )
        return ast.literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])

    def round_trip_seconds(self) -> float:
        """Return the median time from a kernel_info_request to its reply, jupyter_client's own share included."""
        times = []
        for _ in range(ROUND_TRIPS):
            begun = time.monotonic()
            self._client.kernel_info(reply=True, timeout=CELL_SECONDS)
            times.append(time.monotonic() - begun)
        return statistics.median(times)

    def _wait_for_answer(self, deadline: float) -> None:
        from queue import Empty

        wanted = self._client.kernel_info()
        while time.monotonic() < deadline:
            try:
                reply = self._client.get_shell_msg(timeout=0.5)
            except Empty:
                if not self._manager.is_alive():
                    break
                continue
            if reply["parent_header"].get("msg_id") == wanted:
                return
        raise self._died()

    def _died(self) -> KernelDied:
        lines = [line for line in self._stderr.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1].removeprefix("remote_kernel: ") if lines else "it said nothing"
        return KernelDied(f"the kernel does not answer: {last}")
