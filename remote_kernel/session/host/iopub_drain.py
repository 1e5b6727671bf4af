"""Find out when all that a kernel has published of a cell is here: its reply comes another way, and may be far ahead.

What comes on iopub comes in order, and late: over a slow line, after an outage, to a busy reader. So time says nothing
about where a cell's output ends. The kernel's `idle` does; where that got lost, a question does that is sent the same
way as the cell once its reply is here: what the kernel publishes of the question is behind all that it has published of
the cell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from remote_kernel.session.host.kernel_sockets import KernelSockets, Message

_AGAIN_SECONDS = 5.0  # without anything on iopub: the first question's mark may be lost as well
_LONGEST_AGAIN_SECONDS = 80.0
_SILENCE_SECONDS = 600.0  # a message of 50 MB takes a slow line minutes, in which nothing else comes


class IopubDrain:
    """The order of what comes on one kernel's iopub. Made with its sockets, and closed with them."""

    def __init__(self, sockets: KernelSockets, is_away: Callable[[], bool]) -> None:
        """`is_away` tells whether the connection to the kernel's host is away, in which nothing can come."""
        self._sockets, self._is_away = sockets, is_away
        self._waiting: list[asyncio.Future[bool]] = []
        self._marks: dict[str, asyncio.Future[bool]] = {}  # by the question's id
        self._heard_at = time.monotonic()

    def register(self, message: Message) -> None:
        """Register a message of iopub, after it was handled."""
        self._heard_at = time.monotonic()
        mark = self._marks.get(message.parent)
        if mark and not mark.done():
            mark.set_result(True)

    async def drained(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait until all is here that the kernel has published of what was sent on this channel, and answered, before.

        False where that cannot be known: nothing has come on iopub for ten minutes, or the kernel is gone.
        """
        drained: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(drained)
        asked, since, again = [], time.monotonic(), _AGAIN_SECONDS
        try:
            while not drained.done():
                if self._is_away():
                    since = time.monotonic()
                else:
                    asked.append(self._sockets.new_id())
                    self._marks[asked[-1]] = drained
                    await self._sockets.send(channel, "kernel_info_request", {}, identity=asked[-1], subshell=subshell)
                while not drained.done() and await self._goes_on(drained, again):
                    pass
                again = min(2 * again, _LONGEST_AGAIN_SECONDS)
                if time.monotonic() - max(since, self._heard_at) > _SILENCE_SECONDS:
                    return False
        finally:
            self._waiting.remove(drained)
            for identity in asked:
                self._marks.pop(identity, None)
        return drained.result()

    async def _goes_on(self, drained: asyncio.Future[bool], seconds: float) -> bool:
        """Wait that long, true if anything has come on iopub meanwhile."""
        begun = time.monotonic()
        await asyncio.wait({drained}, timeout=seconds)
        return self._heard_at > begun

    async def wait_silent(self, seconds: float, at_most: float) -> None:
        """Wait until nothing has come on iopub for so long: of a kernel that has ended, its last output."""
        deadline = time.monotonic() + at_most
        while (now := time.monotonic()) < min(deadline, self._heard_at + seconds):
            await asyncio.sleep(min(deadline, self._heard_at + seconds) - now)

    def close(self) -> None:
        """End every wait: the kernel is gone."""
        for drained in self._waiting:
            if not drained.done():
                drained.set_result(False)
