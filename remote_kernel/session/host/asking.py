"""Ask a session's kernel things, also while a cell runs in it. The engine, which runs cells, is made of this."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from remote_kernel.errors import RemoteError, RemoteKernelError
from remote_kernel.session.events import VERDICTS
from remote_kernel.session.host.installing import NotInstalled
from remote_kernel.session.host.kernel_side import REQUEST
from remote_kernel.session.host.lifecycle import Life
from remote_kernel.session.host.questions import ANSWER_SECONDS
from remote_kernel.session.host.wire import Message

UNLIMITED_SECONDS = 10 * 365 * 86400.0
_CHILDREN_SECONDS = 3.0  # for a kernel to end what it has started, which takes it two at most


class Asking:
    """What asks one session's kernel; `life` is that kernel's."""

    life: Life

    @property
    def is_busy(self) -> bool:
        """Whether a cell runs."""
        raise NotImplementedError

    async def ask(self, kind: str, content: dict[str, Any], **more: Any) -> Message:
        """Send a request and give its reply; see Questions.ask. Raises KernelLost without a kernel, NoAnswer."""
        return await self.life.reach().questions.ask(kind, content, **more)

    def _check_connection(self) -> None:
        now = self.life.presence()
        if now and not now.connected:
            why = f" ({now.reason})" if now.reason else ""
            raise ConnectionAway(
                f"the connection to the kernel's host is away{why}", "the kernel goes on; ask again later"
            )

    async def ask_beside(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask even while a cell runs, and give the reply's content. Raises ConnectionAway.

        An IPython kernel answers in a thread of its own; another one on the shell when it is free, else beside it.
        """
        with contextlib.suppress(NotInstalled):
            found: dict[str, Any] = await self.look(kind, **content)
            return found
        if not self.is_busy:
            return (await self.ask(kind, content)).content
        channel, subshell = await self.life.reach().beside(self.life.info)
        return (await self.ask(kind, content, channel=channel, subshell=subshell)).content

    async def prepare(self) -> bool:
        """Make the kernel ready for `look`; see Contact.prepare."""
        if not self.life.info:  # it did not answer when this host came
            self.life.info = (await self.ask("kernel_info_request", {}, channel="control")).content
        return await self.life.reach().prepare(self.life.info)

    async def look(self, do: str, **arguments: Any) -> Any:
        """Ask kernel_side.py in an IPython kernel, beside a running cell too. Raises ConnectionAway, NotInstalled.

        This and `ask_side` are the only way in which the session runs code of its own in a kernel: it changes nothing
        of the user's.
        """
        self._check_connection()
        await self.prepare()
        return await self.ask_side(do, arguments)

    async def ask_side(
        self, do: str, arguments: dict[str, Any], channel: str = "control", seconds: float = ANSWER_SECONDS
    ) -> Any:
        """Ask kernel_side.py where it runs already: on shell it answers between two cells. Raises RemoteError."""
        reply = await self.ask(REQUEST, {"do": do, "arguments": arguments}, channel=channel, seconds=seconds)
        if reply.content.get("status") != "ok":
            raise RemoteError(f"cannot look into the kernel: {reply.content.get('evalue')}", "see 'rkernel status'")
        return reply.content["answer"]

    async def end_children(self) -> list[str]:
        """Have the kernel end its child processes, and give the names of those that had to be killed.

        None where it does not say within seconds: it is about to be ended all the same.
        """
        with contextlib.suppress(RemoteKernelError, asyncio.TimeoutError, TimeoutError):
            killed = await asyncio.wait_for(self.look("end_children"), _CHILDREN_SECONDS)
            return [str(name) for name in killed]
        return []

    async def passed(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait until all is here that the kernel has published of what it has answered there; see Passage.passed."""
        contact = self.life.contact
        return contact is not None and await contact.passed(channel, subshell)

    async def ended_beside(self) -> None:
        """Wait until no cell runs beside the others any longer, and all output of those that did is here."""
        for channel, subshell in await self.life.reach().ways_beside(self.life.info):
            await self.ask("kernel_info_request", {}, channel=channel, subshell=subshell, seconds=UNLIMITED_SECONDS)
            await self.passed(channel, subshell)


class ConnectionAway(RemoteKernelError):
    """The kernel's host cannot be reached at the moment."""

    exit_status = VERDICTS["away"]
