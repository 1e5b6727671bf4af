"""Ask a kernel things, each with an end to the wait for its reply."""

from __future__ import annotations

import asyncio
from typing import Any

from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.host.wire import Message, Wire

ANSWER_SECONDS = 15.0


class NoAnswer(RemoteKernelError):
    """The kernel did not answer in time: its code keeps every thread from running, or it hangs."""


class Questions:
    """What waits for a reply of one kernel. Made with its wire, and closed with it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: dict[str, asyncio.Future[Message]] = {}

    async def ask(
        self,
        kind: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        subshell: str = "",
        seconds: float = ANSWER_SECONDS,
        metadata: dict[str, Any] | None = None,
    ) -> Message:
        """Send a request and give its reply. Raises NoAnswer where none comes in time, and what `close` was told."""
        identity = self._wire.new_id()
        reply = self._waiting[identity] = asyncio.get_running_loop().create_future()
        try:
            await self._wire.send(channel, kind, content, identity=identity, subshell=subshell, metadata=metadata)
            return await asyncio.wait_for(reply, seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise NoAnswer(
                f"the kernel did not answer a {kind} within {seconds:.0f} s", "see 'rkernel status', or ask again later"
            ) from None
        finally:
            del self._waiting[identity]

    def take_reply(self, message: Message) -> bool:
        """Take a reply; false where nobody waits for it."""
        question = self._waiting.get(message.parent)
        if question is None or question.done():
            return False
        question.set_result(message)
        return True

    def close(self, error: RemoteKernelError) -> None:
        """End every wait with this error."""
        for question in self._waiting.values():
            if not question.done():
                question.set_exception(error)
