"""Stay in contact with one kernel process: listen to its channels, and ask it things, beside a running cell too.

Messages come in on four channels, each read by a task of its own. What is known of this one process only is here:
that it has answered, that its iopub is heard, the session that it names in its messages, the subshell made in it, and
whether it runs kernel_side.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.host.installing import NotInstalled, install
from remote_kernel.session.host.iopub_drain import Passage
from remote_kernel.session.host.questions import Questions
from remote_kernel.session.host.tasks import Tasks
from remote_kernel.session.host.wire import Message, Wire

_TURN_SECONDS = 0.01  # for which one channel may keep the loop


class Listener(Protocol):
    """Who takes what comes."""

    def take_output(self, message: Message) -> None:
        """Take a message of iopub."""

    def take_reply(self, message: Message) -> None:
        """Take one of shell or control that answers none of the questions."""

    def take_input(self, message: Message) -> None:
        """Take one of stdin."""


class Contact:
    """The wire to one kernel, with those who wait for what comes over it. Ends with `close`."""

    def __init__(
        self,
        wire: Wire,
        listener: Listener,
        note: Callable[[str], None],
        is_away: Callable[[], bool],
        see_another_kernel: Callable[[], None],
    ) -> None:
        """`is_away` tells whether the connection to the kernel's host is away.

        `see_another_kernel` is called when another kernel process answers: somebody else has restarted it.
        """
        self.wire = wire
        self.questions = Questions(wire)
        self.is_up = False  # it has answered
        self._passage = Passage(wire, is_away)
        self._listener, self._note, self._see_another_kernel = listener, note, see_another_kernel
        self._kernel_session = ""
        self._subshell: str | None = None
        self._had_side: bool | NotInstalled | None = None
        self._preparing = asyncio.Lock()
        self._heard = asyncio.Event()  # something came on iopub: the subscription works

    def listen(self, tasks: Tasks) -> None:
        """Begin to take what comes."""
        for channel, take in (
            ("iopub", self._take_output),
            ("shell", self._take_reply),
            ("control", self._take_reply),
            ("stdin", self._listener.take_input),
        ):
            tasks.spawn(self._read(channel, take))

    async def _read(self, channel: str, take: Callable[[Message], None]) -> None:
        since = time.monotonic()
        while True:
            message = await self.wire.receive(channel)  # which does not let go of the loop while there is a next one
            self._check_kernel(message)
            try:
                take(message)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._note(f"a {message.kind} on {channel} makes no sense: {error!r}")
            if time.monotonic() - since > _TURN_SECONDS:
                await asyncio.sleep(0)
                since = time.monotonic()

    def _check_kernel(self, message: Message) -> None:
        is_welcome = message.kind == "iopub_welcome"
        self.is_up = self.is_up or not is_welcome
        if is_welcome or not message.session or message.session in (self._kernel_session, message.parent_session):
            return  # some kernels put the session of the request there, as IRkernel and IJulia
        is_another, self._kernel_session = bool(self._kernel_session), message.session
        if is_another:
            self._subshell = self._had_side = None
            self._see_another_kernel()

    def _take_output(self, message: Message) -> None:
        self._heard.set()
        self._listener.take_output(message)
        self._passage.see(message)

    def _take_reply(self, message: Message) -> None:
        if not self.questions.take_reply(message):
            self._listener.take_reply(message)

    async def is_heard(self, seconds: float) -> bool:
        """Wait that long until something has come on iopub: only then does no output get lost."""
        try:
            await asyncio.wait_for(self._heard.wait(), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    async def passed(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait until all is here that the kernel has published of what it has answered there; see Passage.passed."""
        return await self._passage.passed(channel, subshell)

    async def silent(self, seconds: float, at_most: float) -> None:
        """Wait for a kernel's last output; see Passage.silent."""
        await self._passage.silent(seconds, at_most)

    async def beside(self, info: dict[str, Any]) -> tuple[str, str]:
        """Give the channel, and the subshell in it, that a busy kernel with this kernel_info_reply listens to."""
        if not has_subshells(info):
            return "control", ""
        if self._subshell is None:
            reply = await self.questions.ask("create_subshell_request", {}, channel="control")
            self._subshell = str(reply.content.get("subshell_id") or "")
        return ("shell", self._subshell) if self._subshell else ("control", "")

    async def prepare(self, info: dict[str, Any]) -> bool:
        """Make this kernel ready to be asked, see kernel_side.py; True if it was when we came. Idempotent.

        Raises NotInstalled where it never will be, NoAnswer.
        """
        async with self._preparing:
            if self._had_side is None:
                try:
                    self._had_side = await install(self.questions, info)
                except NotInstalled as error:
                    self._had_side = error
            if isinstance(self._had_side, NotInstalled):
                raise self._had_side
            return self._had_side

    @property
    def is_prepared(self) -> bool:
        """True if the kernel remembers what it gets from now on; see kernel_side.py."""
        return isinstance(self._had_side, bool)

    async def ways_beside(self, info: dict[str, Any]) -> list[tuple[str, str]]:
        """Give every such channel and subshell, those among them that an earlier host has made."""
        if not has_subshells(info):
            return [("control", "")]
        listed = await self.questions.ask("list_subshell_request", {}, channel="control")
        return [("shell", str(one)) for one in listed.content.get("subshell_id") or ()]

    def close(self, error: RemoteKernelError) -> None:
        """Let go of the kernel; whoever waits for its answer gets the error."""
        self.wire.close()
        self.questions.close(error)
        self._passage.close()


def has_subshells(info: dict[str, Any]) -> bool:
    """Tell whether a kernel with this kernel_info_reply has subshells, as ipykernel 7 (Jupyter's proposal 91).

    Before, its control channel took all requests.
    """
    return "kernel subshells" in (info.get("supported_features") or ())
