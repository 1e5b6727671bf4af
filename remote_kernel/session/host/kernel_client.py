"""Talk to one kernel process: listen to its channels, and ask it things, beside a running cell too.

Messages come in on four channels, each read by a task of its own. What is known of this one process only is here:
that it has answered, that its iopub is heard, the session that it names in its messages, the subshell made in it, and
whether it runs kernel_side.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from remote_kernel.errors import RemoteError, RemoteKernelError
from remote_kernel.launcher.state_file import LauncherState
from remote_kernel.session.events import VERDICTS
from remote_kernel.session.host import host_log
from remote_kernel.session.host.iopub_drain import IopubDrain
from remote_kernel.session.host.kernel_side import QUIET, REQUEST
from remote_kernel.session.host.kernel_sockets import KernelSockets, Message

ANSWER_SECONDS = 15.0
UNLIMITED_SECONDS = 10 * 365 * 86400.0
_CHILDREN_SECONDS = 3.0  # for a kernel to end what it has started, which takes it two at most
_TURN_SECONDS = 0.01  # for which one channel may keep the loop
_RUN = """
from IPython import get_ipython
KernelSide(get_ipython()).install()
get_ipython().kernel.{mark} = True
"""


class Listener(Protocol):
    """Handles what comes."""

    def handle_output(self, message: Message) -> None:
        """Handle a message of iopub."""

    def handle_reply(self, message: Message) -> None:
        """Handle one of shell or control that answers none of the questions."""

    def handle_input(self, message: Message) -> None:
        """Handle one of stdin."""


class KernelClient:
    """The sockets to one kernel, with those who wait for what comes over it. Ends with `close`."""

    def __init__(
        self,
        sockets: KernelSockets,
        listener: Listener,
        launcher_state: Callable[[], LauncherState | None],
        another_kernel: Callable[[], None],
    ) -> None:
        """`launcher_state` returns whether the kernel's host is connected; None where nobody says.

        `another_kernel` is called when another kernel process answers: somebody else has restarted it.
        """
        self.sockets = sockets
        self.is_up = False  # it has answered
        self.info: dict[str, Any] = {}  # the kernel_info_reply's content, once it is here
        self.iopub = IopubDrain(sockets, self._is_away)
        self._launcher_state = launcher_state
        self._listener, self._another_kernel = listener, another_kernel
        self._waiting: dict[str, asyncio.Future[Message]] = {}  # for a reply, by the request's id
        self._kernel_session = ""
        self._subshell: str | None = None
        self._had_side: bool | NotInstalled | None = None
        self._preparing = asyncio.Lock()
        self._heard = asyncio.Event()  # something came on iopub: the subscription works

    def listen(self, tasks: host_log.Tasks) -> None:
        """Start to read the channels."""
        for channel, take in (
            ("iopub", self._handle_output),
            ("shell", self._handle_reply),
            ("control", self._handle_reply),
            ("stdin", self._listener.handle_input),
        ):
            tasks.spawn(self._read(channel, take))

    async def _read(self, channel: str, take: Callable[[Message], None]) -> None:
        since = time.monotonic()
        while True:
            message = await self.sockets.receive(channel)  # which does not let go of the loop while there is a next one
            self._check_kernel(message)
            try:
                take(message)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                host_log.write(f"a {message.kind} on {channel} makes no sense: {error!r}")
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
            self._another_kernel()

    def _handle_output(self, message: Message) -> None:
        self._heard.set()
        self._listener.handle_output(message)
        self.iopub.register(message)

    def _handle_reply(self, message: Message) -> None:
        question = self._waiting.get(message.parent)
        if question is None or question.done():
            self._listener.handle_reply(message)
        else:
            question.set_result(message)

    async def is_heard(self, seconds: float) -> bool:
        """Wait that long until something has come on iopub: only then does no output get lost."""
        try:
            await asyncio.wait_for(self._heard.wait(), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

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
        """Send a request and return its reply. Raises NoAnswer where none comes in time, and what `close` was told."""
        identity = self.sockets.new_id()
        reply = self._waiting[identity] = asyncio.get_running_loop().create_future()
        try:
            await self.sockets.send(channel, kind, content, identity=identity, subshell=subshell, metadata=metadata)
            return await asyncio.wait_for(reply, seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise NoAnswer(
                f"the kernel did not answer a {kind} within {seconds:.0f} s", "see 'rkernel status', or ask again later"
            ) from None
        finally:
            del self._waiting[identity]

    async def beside(self) -> tuple[str, str]:
        """Return the channel, and the subshell in it, that a busy kernel listens to."""
        if not self._has_subshells:
            return "control", ""
        if self._subshell is None:
            reply = await self.ask("create_subshell_request", {}, channel="control")
            self._subshell = str(reply.content.get("subshell_id") or "")
        return ("shell", self._subshell) if self._subshell else ("control", "")

    async def prepare(self) -> bool:
        """Prepare this kernel to be asked, see kernel_side.py; True if it was when we came. Idempotent.

        Raises NotInstalled where it never will be, NoAnswer.
        """
        if not self.info:  # it did not answer when this host came
            self.info = (await self.ask("kernel_info_request", {}, channel="control")).content
        async with self._preparing:
            if self._had_side is None:
                try:
                    self._had_side = await self._install()
                except NotInstalled as error:
                    self._had_side = error
            if isinstance(self._had_side, NotInstalled):
                raise self._had_side
            return self._had_side

    async def _install(self) -> bool:
        """Run kernel_side.py in the kernel, beside a cell too; True if it ran already.

        IPython's `pre_execute` is the only hook of the user's that fires, where it is new. Raises NotInstalled and
        NoAnswer.
        """
        if (self.info.get("language_info") or {}).get("name") != "python":
            raise NotInstalled("this kernel cannot be looked into", "this works with Python kernels")
        mark, code = _code()
        name = f"get_ipython.__self__.kernel.{mark}"  # which inspect_request finds, and fires no events
        content = {"code": name, "cursor_pos": len(name), "detail_level": 0}
        if (await self.ask("inspect_request", content, channel="control")).content.get("found"):
            return True
        content = execute_content(code, silent=True)
        reply = await self.ask("execute_request", content, channel="control", metadata={"remote_kernel": QUIET})
        if reply.content.get("status") != "ok":
            why = reply.content.get("evalue") or reply.content.get("status")
            raise NotInstalled(f"this kernel cannot be looked into: {why}", "this works with ipykernel")
        return False

    @property
    def is_prepared(self) -> bool:
        """True if the kernel remembers what it gets from now on; see kernel_side.py."""
        return isinstance(self._had_side, bool)

    async def _ways_beside(self) -> list[tuple[str, str]]:
        """Return every such channel and subshell, those among them that an earlier host has made."""
        if not self._has_subshells:
            return [("control", "")]
        listed = await self.ask("list_subshell_request", {}, channel="control")
        return [("shell", str(one)) for one in listed.content.get("subshell_id") or ()]

    async def ended_beside(self) -> None:
        """Wait until no cell runs beside the others any longer, and all output of those that did is here."""
        for channel, subshell in await self._ways_beside():
            await self.ask("kernel_info_request", {}, channel=channel, subshell=subshell, seconds=UNLIMITED_SECONDS)
            await self.iopub.drained(channel, subshell)

    async def ask_kernel_side(self, do: str, **arguments: Any) -> Any:
        """Ask kernel_side.py in an IPython kernel, beside a running cell too. Raises ConnectionAway, NotInstalled.

        This and `ask_prepared` are the only way in which the session runs code of its own in a kernel: it changes
        nothing of the user's.
        """
        now = self._launcher_state()
        if now and not now.connected:
            why = f" ({now.reason})" if now.reason else ""
            raise ConnectionAway(
                f"the connection to the kernel's host is away{why}", "the kernel goes on; ask again later"
            )
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

    async def ask_beside(self, kind: str, content: dict[str, Any], *, is_busy: bool) -> dict[str, Any]:
        """Ask even while a cell runs, and return the reply's content. Raises ConnectionAway.

        An IPython kernel answers in a thread of its own; another one on the shell when it is free, else beside it.
        """
        with contextlib.suppress(NotInstalled):
            found: dict[str, Any] = await self.ask_kernel_side(kind, **content)
            return found
        channel, subshell = await self.beside() if is_busy else ("shell", "")
        return (await self.ask(kind, content, channel=channel, subshell=subshell)).content

    async def end_children(self) -> list[str]:
        """Ask the kernel to end its child processes, and return the names of those that had to be killed.

        None where it does not say within seconds: it is about to be ended all the same.
        """
        with contextlib.suppress(RemoteKernelError, asyncio.TimeoutError, TimeoutError):
            killed = await asyncio.wait_for(self.ask_kernel_side("end_children"), _CHILDREN_SECONDS)
            return [str(name) for name in killed]
        return []

    @property
    def _has_subshells(self) -> bool:
        """True for a kernel such as ipykernel 7 (Jupyter's proposal 91). Before, control took all requests."""
        return "kernel subshells" in (self.info.get("supported_features") or ())

    def _is_away(self) -> bool:
        now = self._launcher_state()
        return now is not None and not now.connected

    def end_waits(self, error: RemoteKernelError) -> None:
        """Raise this error in everyone who waits for a reply."""
        for question in self._waiting.values():
            if not question.done():
                question.set_exception(error)

    def close(self, error: RemoteKernelError) -> None:
        """Close the sockets; whoever waits for an answer gets the error."""
        self.sockets.close()
        self.end_waits(error)
        self.iopub.close()


def execute_content(
    code: str, *, silent: bool = False, store_history: bool = False, allow_stdin: bool = False
) -> dict[str, Any]:
    """Return the content of an execute_request. What fails drops none of the requests that wait in the kernel."""
    return {
        "code": code,
        "silent": silent,
        "store_history": store_history,
        "user_expressions": {},
        "allow_stdin": allow_stdin,
        "stop_on_error": False,
    }


@functools.cache
def _code() -> tuple[str, str]:
    """Return the attribute that says that this very source has run, and code that runs it and makes no variable."""
    source = Path(__file__).with_name("kernel_side.py").read_text(encoding="utf-8")
    mark = f"_remote_kernel_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    source += _RUN.format(mark=mark)
    return mark, f"__import__('builtins').exec({source!r}, {{'__name__': 'remote_kernel'}})"


class NoAnswer(RemoteKernelError):
    """The kernel did not answer in time: its code keeps every thread from running, or it hangs."""


class NotInstalled(RemoteError):
    """This kernel cannot run kernel_side.py."""


class ConnectionAway(RemoteKernelError):
    """The kernel's host cannot be reached at the moment."""

    exit_status = VERDICTS["away"]
