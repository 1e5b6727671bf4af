"""Write to host.log, which is the host's stderr: lines for people, and what ended a task that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine
from typing import Any

from remote_kernel.terminal_safe import terminal_safe


def write(text: str) -> None:
    """Write a line. The disk may be full: nothing depends on it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {terminal_safe(text)}\n")
        sys.stderr.flush()


class Tasks:
    """Tasks of one loop that end together. An exception that ends one goes to the log."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no task from being collected

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._remove)
        return task

    def _remove(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            write(f"unexpected {task.exception()!r}")

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in self._tasks:
            task.cancel()
