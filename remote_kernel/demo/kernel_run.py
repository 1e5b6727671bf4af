"""One kernel and its cells, driven through jupyter_client as any front end does it."""

from __future__ import annotations

import ast
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from remote_kernel.errors import RemoteKernelError
from remote_kernel.kernelspec.trial import StartedKernel

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
    """Runs cells in a kernel that was started."""

    def __init__(self, kernel: StartedKernel) -> None:
        self._kernel = kernel
        self.start_seconds = kernel.start_seconds

    def run(self, code: str, hook: Hook) -> CellEnd:
        """Run one cell and return how it ended. Raises RemoteKernelError when there is no answer in time."""

        def take(message: dict[str, Any]) -> None:
            hook(message["msg_type"], message["content"])

        try:
            reply = self._kernel.client.execute_interactive(
                code, timeout=CELL_SECONDS, output_hook=take, allow_stdin=False
            )
        except TimeoutError as error:
            last = (self._kernel.printed() or ["report this"])[-1]
            raise RemoteKernelError(f"a cell did not end within {CELL_SECONDS:.0f} s", last) from error
        content = reply["content"]
        return CellEnd(content["status"], content.get("ename", ""), content.get("evalue", ""))

    def interrupt(self) -> None:
        """Interrupt the running cell, as the stop button does."""
        self._kernel.manager.interrupt_kernel()

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the kernel, a Python literal, without a trace in its history."""
        reply = self._kernel.client.execute(
            "", silent=True, user_expressions={"value": expression}, reply=True, timeout=CELL_SECONDS
        )
        return ast.literal_eval(reply["content"]["user_expressions"]["value"]["data"]["text/plain"])

    def round_trip_seconds(self) -> float:
        """Return the median time from a kernel_info_request to its reply, jupyter_client's own share included."""
        times = []
        for _ in range(ROUND_TRIPS):
            begun = time.monotonic()
            self._kernel.client.kernel_info(reply=True, timeout=CELL_SECONDS)
            times.append(time.monotonic() - begun)
        return statistics.median(times)
