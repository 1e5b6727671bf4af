"""Ask a session's kernel things, also while a cell runs in it. The engine, which runs cells, is made of this."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from remote_kernel.errors import RemoteError, RemoteKernelError
from remote_kernel.session.events import VERDICTS, Error
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.kernel_client import ANSWER_SECONDS, NoAnswer, NotInstalled
from remote_kernel.session.host.kernel_side import REQUEST, UNSEEN
from remote_kernel.session.host.kernel_sockets import Message
from remote_kernel.session.host.lifecycle import KernelLifecycle

UNLIMITED_SECONDS = 10 * 365 * 86400.0
_CHILDREN_SECONDS = 3.0  # for a kernel to end what it has started, which takes it two at most


class KernelRequests:
    """Send requests to one session's `kernel`, which the engine, made of this, has."""

    kernel: KernelLifecycle

    @property
    def is_busy(self) -> bool:
        """True if a cell runs."""
        raise NotImplementedError

    async def ask(self, kind: str, content: dict[str, Any], **more: Any) -> Message:
        """Send a request and return its reply; see KernelClient.ask. Raises KernelLost without a kernel, NoAnswer."""
        return await self.kernel.require_client().ask(kind, content, **more)

    def _check_connection(self) -> None:
        now = self.kernel.presence()
        if now and not now.connected:
            why = f" ({now.reason})" if now.reason else ""
            raise ConnectionAway(
                f"the connection to the kernel's host is away{why}", "the kernel goes on; ask again later"
            )

    async def ask_beside(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask even while a cell runs, and return the reply's content. Raises ConnectionAway.

        An IPython kernel answers in a thread of its own; another one on the shell when it is free, else beside it.
        """
        with contextlib.suppress(NotInstalled):
            found: dict[str, Any] = await self.ask_kernel_side(kind, **content)
            return found
        if not self.is_busy:
            return (await self.ask(kind, content)).content
        channel, subshell = await self.kernel.require_client().beside(self.kernel.info)
        return (await self.ask(kind, content, channel=channel, subshell=subshell)).content

    async def prepare(self) -> bool:
        """Prepare the kernel for `ask_kernel_side`; see KernelClient.prepare."""
        if not self.kernel.info:  # it did not answer when this host came
            self.kernel.info = (await self.ask("kernel_info_request", {}, channel="control")).content
        return await self.kernel.require_client().prepare(self.kernel.info)

    async def ask_kernel_side(self, do: str, **arguments: Any) -> Any:
        """Ask kernel_side.py in an IPython kernel, beside a running cell too. Raises ConnectionAway, NotInstalled.

        This and `ask_prepared` are the only way in which the session runs code of its own in a kernel: it changes
        nothing of the user's.
        """
        self._check_connection()
        await self.prepare()
        return await self.ask_prepared(do, arguments)

    async def ask_prepared(
        self, do: str, arguments: dict[str, Any], channel: str = "control", seconds: float = ANSWER_SECONDS
    ) -> Any:
        """Ask kernel_side.py where it runs already: on shell it answers between two cells. Raises RemoteError."""
        reply = await self.ask(REQUEST, {"do": do, "arguments": arguments}, channel=channel, seconds=seconds)
        if reply.content.get("status") != "ok":
            raise RemoteError(f"cannot look into the kernel: {reply.content.get('evalue')}", "see 'rkernel status'")
        return reply.content["answer"]

    async def end_children(self) -> list[str]:
        """Ask the kernel to end its child processes, and return the names of those that had to be killed.

        None where it does not say within seconds: it is about to be ended all the same.
        """
        with contextlib.suppress(RemoteKernelError, asyncio.TimeoutError, TimeoutError):
            killed = await asyncio.wait_for(self.ask_kernel_side("end_children"), _CHILDREN_SECONDS)
            return [str(name) for name in killed]
        return []

    async def drained(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait for all that the kernel has published of what it has answered there; see IopubDrain.drained."""
        client = self.kernel.client
        return client is not None and await client.iopub.drained(channel, subshell)

    async def ended_beside(self) -> None:
        """Wait until no cell runs beside the others any longer, and all output of those that did is here."""
        for channel, subshell in await self.kernel.require_client().ways_beside(self.kernel.info):
            await self.ask("kernel_info_request", {}, channel=channel, subshell=subshell, seconds=UNLIMITED_SECONDS)
            await self.drained(channel, subshell)

    async def learn_end(self, cell: Cell) -> bool:
        """End a cell as it has ended; true if it never began, and never will unless it is sent again.

        Waits until the kernel has come to the end of what runs, and all output of that is here. Raises
        RemoteKernelError.
        """
        while True:
            try:
                was_there = await self.prepare()
                break
            except NoAnswer:  # the connection to its host is away, say: the cell goes on
                continue
        if cell.side:
            await self.ended_beside()
        channel = "control" if cell.side else "shell"
        end = await self.ask_prepared("end", {"request": cell.request}, channel, UNLIMITED_SECONDS)
        if not cell.side:
            await self.drained()
        if end == UNSEEN:  # where the kernel remembers only since this host came, or the cell went, it means nothing
            return (was_there or cell.is_remembered) and not cell.started_at
        if end and not cell.done.done():
            count, *error = end
            cell.execution_count = cell.execution_count if count is None else count
            cell.mark_started(cell.execution_count)
            if error[:1] == ["SystemExit"] and cell.script:
                cell.exit_script(error[1])
            elif error:
                cell.emit(Error(*error))
            cell.finish("interrupted" if error[:1] == ["KeyboardInterrupt"] else "error" if error else "ok")
        return False


class ConnectionAway(RemoteKernelError):
    """The kernel's host cannot be reached at the moment."""

    exit_status = VERDICTS["away"]
