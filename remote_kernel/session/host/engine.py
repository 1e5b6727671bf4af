"""Run cells in a session's kernel, one in its main thread and others beside it, and interrupt them.

What comes from the kernel finds the cell that it belongs to by its parent's id. What belongs to none, and says
`execute_input`, is a cell of another front end on the same kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.events import VERDICTS, Event
from remote_kernel.session.host import host_log
from remote_kernel.session.host.cell import Cell, payloads, read_output, script_metadata
from remote_kernel.session.host.foreign import ForeignCells, number_of
from remote_kernel.session.host.kernel_client import (
    UNLIMITED_SECONDS,
    ConnectionAway,
    NotInstalled,
    execute_content,
)
from remote_kernel.session.host.kernel_side import BESIDE, CELL, SCRIPT
from remote_kernel.session.host.kernel_sockets import Message
from remote_kernel.session.host.lifecycle import KernelLifecycle
from remote_kernel.session.host.widgets import Widgets
from remote_kernel.session.paths import Paths
from remote_kernel.session.record import Record

_IDLE_SECONDS = 5.0  # from look to look whether a cell has its reply or the `idle` that belongs to it, and not both
_USAGE_SECONDS = 2.0
_CONNECTION_SECONDS = 0.5
_INTERRUPT_SECONDS = (2.0, 3.0, 5.0)
_WAKE_SECONDS = 0.1
_EXITED = "the kernel has ended, as it was asked to; what earlier cells left in it is gone"
_EXIT_SECONDS = 10.0  # for a kernel that a cell has asked to end; what runs at its exit may take longer


class Engine:
    """The cells that run in one session's `kernel`, ours and other front ends'."""

    def __init__(self, paths: Paths, record: Record) -> None:
        self.foreign = ForeignCells()
        self._widgets = Widgets()
        self.emit_after: Callable[[str, Event], None] = lambda number, event: None  # what comes after a cell's end
        self.kernel = KernelLifecycle(paths, record)
        self.kernel.set_dependent(self)
        self._name = paths.name
        self._cells: dict[str, Cell] = {}
        self._is_shell_known = False  # whether a cell ran in it when we came, is known
        self.is_exiting = False  # a cell has asked the kernel to end, as exit() does, or another front end has
        self._has_exited = self._is_shut_down = False
        self._held: list[Cell] = []  # those that wait here for another front end's cell
        self._began = asyncio.Event()  # a cell has been sent

    # -- cells

    async def execute(self, cell: Cell) -> None:
        """Run a cell and wait for its end; a side cell beside the one that is running."""
        if not cell.side:
            await self._hold_back(cell)
        if self.is_exiting:
            await self._wait_for_exit(cell)
        elif not self.kernel.is_away():
            with contextlib.suppress(RemoteKernelError):  # there is no kernel, or none that can be asked
                await self.kernel.require_client().prepare()
        if self.kernel.has_released:  # the next host runs the cell
            await cell.done
        if cell.done.done():
            return
        kernel = self.kernel
        if kernel.trouble or kernel.is_dead:
            cell.finish("lost", kernel.trouble or "there is no kernel")
            if not kernel.is_dead:
                kernel.trouble = ""  # said once; the kernel is a new one, and works
            return
        if cell.only not in (0, kernel.record.generation):
            cell.finish("lost", self.wrong_kernel(cell))
            return
        if len(cell.script) > 2 and not await self._takes_arguments():
            cell.finish("aborted", "it never ran: this kernel gives a script no arguments, as ipykernel 6 and later do")
            return
        cell.generation = kernel.record.generation
        self._check_connection()  # before this cell is among those that are told of a change
        if cell.side:
            cell.way = await kernel.require_client().beside()
        cell.mark_sent()
        self.expect(cell)
        if cell.way[0] == "control":
            cell.missed = (
                "this kernel has no subshells, as ipykernel 7 has: what is shown beside a cell goes to that cell"
            )
        cell.is_reply_due = True
        cell.resend = lambda: kernel.tasks.spawn(self._send(cell))
        if now := kernel.launcher_state():
            cell.update_connection(now)
        try:
            await self._send(cell)
            await self.follow(cell)
        finally:
            self._cells.pop(cell.request, None)

    async def _send(self, cell: Cell) -> None:
        content = execute_content(cell.code, store_history=not cell.side, allow_stdin=cell.allow_stdin)
        channel, subshell = cell.way
        client = self.kernel.require_client()
        cell.is_remembered, sockets = client.is_prepared, client.sockets
        metadata: dict[str, Any] = {"remote_kernel": BESIDE if cell.side else CELL}
        if cell.script:
            metadata[SCRIPT] = script_metadata(cell.script, self.kernel.record)
        await sockets.send(
            channel, "execute_request", content, identity=cell.request, subshell=subshell, metadata=metadata
        )

    async def _takes_arguments(self) -> bool:
        try:
            await self.kernel.require_client().prepare()
        except NotInstalled:
            return False
        return True

    def wrong_kernel(self, cell: Cell) -> str:
        """Return why a cell that may run in one kernel of the session only does not run in this one."""
        return f"this is kernel {self.kernel.record.generation} of the session, not kernel {cell.only}"

    async def _hold_back(self, cell: Cell) -> None:
        """Hold a cell here while another front end's runs: from the kernel's own queue it could not come back.

        Until the kernel's shell answers: that cell may have begun before we came, and its end may get lost.
        """
        if self.kernel.is_dead or (self._is_shell_known and not self.foreign.cells):
            return
        self._held.append(cell)
        self._check_connection()
        self._began.set()
        asking = asyncio.ensure_future(self.ask("kernel_info_request", {}, seconds=UNLIMITED_SECONDS))
        either: set[asyncio.Future[Any]] = {asking, cell.done}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self._is_shell_known = self._is_shell_known or (asking.done() and not asking.exception())
        finally:
            asking.cancel()
            self._held.remove(cell)

    def withdraw(self, cell: Cell) -> bool:
        """End a cell that waits here for another front end's to end; false where it does not."""
        if cell in self._held:
            cell.interrupted = True
            cell.finish("aborted", "it was taken out of the queue")
        return cell in self._held

    def expect(self, cell: Cell) -> None:
        """Expect what comes for a cell, whose request gets its name here.

        For one that an earlier host has sent call it before the kernel is found, so that nothing is missed.
        """
        again = f"-again{cell.sends - 1}" if cell.sends > 1 else ""  # see KernelSide.end: the first one is refused
        cell.request = f"{self.kernel.record.identity}-{cell.generation}{again}-{cell.number}"
        self._cells[cell.request] = cell

    def send_again(self, cell: Cell) -> None:
        """Send a cell that never began once more, under another name."""
        self._cells.pop(cell.request, None)
        cell.mark_sent()
        self.expect(cell)
        if cell.resend:
            cell.resend()

    async def _wait_for_exit(self, cell: Cell) -> None:
        """End a cell as lost: its kernel has been asked to end, which goes on for a moment."""
        if self._has_exited:
            cell.finish("lost", _EXITED)
        self._held.append(cell)
        try:
            await asyncio.wait({cell.done}, timeout=_EXIT_SECONDS)
        finally:
            self._held.remove(cell)
        again = "" if self.kernel.record.is_attached else f"; 'rkernel restart {self._name}' starts a new one"
        cell.finish(
            "lost",
            f"an earlier cell has asked the kernel to end, or somebody else has, and it is at that still{again}",
        )

    async def follow(self, cell: Cell) -> None:
        """Wait for the end of a cell whose request is under way."""
        self._began.set()
        try:
            while not (await asyncio.wait({cell.done}, timeout=_IDLE_SECONDS))[0]:
                if cell.reply is not None or cell.is_unanswered:
                    await self._settle(cell)
        finally:
            self._cells.pop(cell.request, None)

    async def _settle(self, cell: Cell) -> None:
        """End a cell that has its reply or the kernel's `idle`, and not both, when the other can no longer come."""
        reply = cell.reply
        waiting = asyncio.ensure_future(self._replied(*cell.way) if reply is None else self.drained(*cell.way))
        either: set[asyncio.Future[Any]] = {cell.done, waiting}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if cell.reply is not reply:  # it was sent again
            return
        if reply is not None:
            cell.settle_without_idle()
        elif waiting.done() and waiting.result():
            cell.settle_without_reply()

    async def _replied(self, channel: str, subshell: str) -> bool:
        """Wait until all is here that the kernel has replied there before; false where that cannot be known."""
        with contextlib.suppress(RemoteKernelError):
            await self.ask("kernel_info_request", {}, channel=channel, subshell=subshell, seconds=UNLIMITED_SECONDS)
            return True
        return False

    async def wait_for_cells(self, seconds: float) -> None:
        """Wait that long for the cells that the kernel has got to end."""
        if under_way := [cell.done for cell in self._cells.values()]:
            await asyncio.wait(under_way, timeout=seconds)

    async def ask(self, kind: str, content: dict[str, Any], **more: Any) -> Message:
        """Send a request and return its reply; see KernelClient.ask. Raises KernelLost without a kernel, NoAnswer."""
        return await self.kernel.require_client().ask(kind, content, **more)

    async def drained(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait for all that the kernel has published of what it has answered there; see IopubDrain.drained."""
        client = self.kernel.client
        return client is not None and await client.iopub.drained(channel, subshell)

    @property
    def is_busy(self) -> bool:
        """True if a cell runs, ours or another front end's."""
        return bool(self._cells or self.foreign.cells)

    # -- interrupts

    async def interrupt(self, cell: Cell | None = None, is_wanted: Callable[[], bool] = lambda: True) -> bool:
        """Interrupt what runs, up to three times; true if `cell` has ended, or what ran when there is none.

        Once only where that `is_wanted` no longer: who has left wants the cell to go on, or to be tidying up.
        That is when the kernel has said so: the last of its output may be on its way for long.
        Raises UsageError for a side cell: an interrupt only ever reaches the kernel's main thread. Raises
        ConnectionAway where it will get there when the connection to the kernel's host is back.
        """
        if cell and cell.side:
            raise UsageError("a cell that was run with --side cannot be interrupted", "it has to end by itself")
        if cell and not cell.started_at and (self.foreign.cells or self.kernel.record.is_attached):
            await self._wait_for_begin(cell)
            if cell.done.done():
                return True
        main = [mine for mine in self._cells.values() if not mine.side]
        running = [cell] if cell else [*main, *self.foreign.cells]
        for each in running:
            each.interrupted = True
        for seconds in _INTERRUPT_SECONDS:
            if self.kernel.process and self.kernel.record.interrupt_mode == "signal":
                self.kernel.process.signal(signal.SIGINT)
            else:
                await self.kernel.require_client().sockets.send("control", "interrupt_request", {})
            if not running:
                return True
            if await self._stop(running, 0.0 if self.kernel.is_away() else seconds):
                return True
            if not is_wanted():
                return False
            if self.kernel.is_away():  # no other is sent: what runs later would get it as well
                raise ConnectionAway(
                    "the connection to the kernel's host is away: the interrupt gets there when it is back",
                    "the kernel goes on; see 'rkernel status'",
                )
        return False

    async def _stop(self, running: list[Cell], seconds: float) -> bool:
        """Wait that long for interrupted cells to be answered.

        SIGINT alone does not end one that awaits: ipykernel's loop sleeps on (ipykernel#881, #1239), until a request
        wakes it. Several are sent, for SIGINT goes another way and may get there later.
        """
        deadline, pause = time.monotonic() + seconds, _WAKE_SECONDS
        while True:
            await self.kernel.require_client().sockets.send("shell", "kernel_info_request", {})
            until = min(deadline, time.monotonic() + pause)
            if all([await each.is_answered(until - time.monotonic()) for each in running]):
                return True
            for each in running:
                if each.is_unanswered:  # no other interrupt is to reach what runs next
                    self.kernel.tasks.spawn(self._settle(each))
            if until == deadline:
                return False
            pause *= 2

    async def _wait_for_begin(self, cell: Cell) -> None:
        """Wait for a cell to begin: what runs before it is somebody else's.

        Raises CellWaits where that takes long, and interrupts it when it begins.
        """
        cell.interrupted = True
        if not await cell.has_begun(_INTERRUPT_SECONDS[0]):
            self.kernel.tasks.spawn(self._interrupt_once_begun(cell))
            raise CellWaits(
                f"cell {cell.number} has not begun: a cell of another front end runs, and is left alone",
                f"cell {cell.number} is interrupted when its turn comes",
            )

    async def _interrupt_once_begun(self, cell: Cell) -> None:
        await cell.has_begun(UNLIMITED_SECONDS)
        if not cell.done.done():
            await self.interrupt(cell)

    # -- input

    async def answer_input(self, cell: Cell, text: str) -> None:
        """Send a cell the line that it has asked for."""
        await self.kernel.require_client().sockets.send("stdin", "input_reply", {"value": text})
        cell.mark_answered()  # not before: the next host would take it for answered, and the cell would wait for ever

    def handle_input(self, message: Message) -> None:
        """Handle a request for a line of text."""
        cell = self._cells.get(message.parent)
        if cell and message.kind == "input_request":
            answer = cell.ask_input(str(message.content.get("prompt", "")), bool(message.content.get("password")))
            if answer is not None:
                self.kernel.tasks.spawn(self.answer_input(cell, answer))
            elif not cell.asks:
                self.kernel.tasks.spawn(self.refuse_input(cell))

    async def refuse_input(self, cell: Cell) -> None:
        """Stop a cell that wants input when there is nobody to ask (any longer); it ends as `input`."""
        if cell.side:
            await self.answer_input(cell, "")  # nothing else gets it out of there
        elif not await self.interrupt(cell):
            host_log.write(f"cell {cell.number} waits for input, and an interrupt does not stop it")

    # -- what comes from the kernel

    def handle_output(self, message: Message) -> None:
        """Handle a message of iopub."""
        if message.kind == "shutdown_reply":
            self.is_exiting, self._is_shut_down = True, not message.content.get("restart")
        for update in self._widgets.take(message):
            self._emit(message, update)
        cell = self._cells.get(message.parent)
        if cell and not cell.done.done():
            if message.kind == "execute_input" and not cell.side:
                self.foreign.end_in_main_thread()
            cell.handle_output(message)
        elif message.parent_session == self.kernel.record.identity:
            if message.parent.startswith(f"{message.parent_session}-"):  # else it is a question's
                self._record_after(message.parent.rpartition("-")[2], message)
        elif not self.foreign.handle_output(message, self.kernel.record.generation):
            self._record_after(number_of(message), message)

    def _emit(self, message: Message, event: Event) -> None:
        """Record an event beside the message that it was learnt from."""
        cell = self._cells.get(message.parent) or self.foreign.find(message.parent)
        if cell and not cell.done.done():
            cell.emit(event)
        else:
            self.emit_after(number_of(message), event)

    def _record_after(self, number: str, message: Message) -> None:
        """Record what a thread or a task of a cell gives after the cell's end."""
        if message.parent and (event := read_output(message)):
            self.emit_after(number, event)

    def handle_reply(self, message: Message) -> None:
        """Handle a reply to a cell, or to the question for the kernel's memory."""
        if message.kind == "usage_reply":
            self.kernel.memory_bytes = int(message.content.get("kernel_memory") or 0)
        elif message.kind == "execute_reply" and message.parent in self._cells:
            asked = payloads(message.content, "ask_exit")
            self.is_exiting = self.is_exiting or any(not one.get("keepkernel") for one in asked)
            self._cells[message.parent].handle_reply(message)

    def connected(self, *, is_new: bool) -> None:
        """Start to watch over the cells in a kernel; in one that was found there may be somebody else's."""
        self._is_shell_known, self.is_exiting, self._has_exited, self._is_shut_down = is_new, False, False, False
        self.kernel.tasks.spawn(self._watch_cells())

    def kernel_lost(self, message: str) -> None:
        """End all cells: the kernel is gone."""
        self.is_exiting = self._has_exited = self._is_shut_down = False
        self._lose_cells(message)

    def connection_broke(self) -> None:
        """Expect no cell's reply any more: it may have been lost with the connection."""
        for cell in self._cells.values():
            cell.is_reply_due = False

    def kernel_exited(self) -> bool:
        """End all cells of a kernel that has said that it ends, and whose connection is gone."""
        if self.is_exiting and not self._has_exited:
            self._has_exited = True
            self._lose_cells(_EXITED)
        return self._is_shut_down

    def _lose_cells(self, message: str) -> None:
        for cell in [*self._cells.values(), *self._held]:
            cell.finish("lost", message)
        self.foreign.kernel_lost(message)

    async def _watch_cells(self) -> None:
        """Watch, while a cell runs, whether the connection is there and how much memory the kernel uses."""
        last = 0.0
        while True:
            self._began.clear()
            if not self._cells and not self._held:
                await self._began.wait()
            await asyncio.sleep(_CONNECTION_SECONDS)
            self._check_connection()
            if time.monotonic() - last > _USAGE_SECONDS and "ipython" in str(self.kernel.info.get("implementation")):
                last = time.monotonic()
                await self.kernel.require_client().sockets.send("control", "usage_request", {})

    def _check_connection(self) -> None:
        now = self.kernel.launcher_state()
        if now:
            for cell in [*self._cells.values(), *self._held]:
                cell.update_connection(now)


class CellWaits(RemoteKernelError):
    """The cell cannot be interrupted yet."""

    exit_status = VERDICTS["running"]
