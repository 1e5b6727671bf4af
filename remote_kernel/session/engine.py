"""Hold one kernel for a session: start or find it, run cells in it, ask it things beside them, and see it die.

Messages come in on four channels, each read by a task of its own, and find the cell or the question that they belong to
by their parent's id. What belongs to neither, and says `execute_input`, is a cell of another front end on the same
kernel.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from remote_kernel.connection_file import read_connection_file
from remote_kernel.errors import ConnectionFileError, KernelDied, RemoteKernelError, UsageError
from remote_kernel.presence import Presence, read_presence
from remote_kernel.session.cell import Cell
from remote_kernel.session.events import VERDICTS
from remote_kernel.session.foreign import Foreign
from remote_kernel.session.kernel import KernelProcess, make_connection_file
from remote_kernel.session.passage import Passage
from remote_kernel.session.place import Place
from remote_kernel.session.program import find_program
from remote_kernel.session.questions import NoAnswer, Questions
from remote_kernel.session.record import Record, write_record
from remote_kernel.session.watch import comes_back, listens, see_end
from remote_kernel.session.wire import Message, Wire

START_SECONDS = 90.0
UNLIMITED_SECONDS = 10 * 365 * 86400.0
_ADOPT_SECONDS = 5.0
_SUBSCRIBING = 10  # questions
_IDLE_SECONDS = 5.0  # from look to look whether a cell has its reply, and not the `idle` that belongs to it
_TURN_SECONDS = 0.01  # for which one channel may keep the loop
_LAST_OUTPUT_SECONDS, _LONGEST_LAST_OUTPUT_SECONDS = 0.3, 60.0  # of a kernel that has ended
_USAGE_SECONDS = 2.0
_RESTART_SECONDS = 20.0  # for a kernel that listens again to answer
_PRESENCE_SECONDS = 0.5
_INTERRUPT_SECONDS = (2.0, 3.0, 5.0)


class Engine:
    """One session's kernel. Made by the host."""

    def __init__(self, place: Place, record: Record, note: Callable[[str], None]) -> None:
        self.record = record
        self.trouble = ""  # why the next cell must not run: the kernel died, or is another one
        self.is_dead = True
        self.memory_bytes = 0
        self.info: dict[str, Any] = {}  # the kernel_info_reply's content
        self.foreign = Foreign()
        self._place, self._note = place, note
        self._process: KernelProcess | None = None
        self._wire: Wire | None = None
        self._questions: Questions | None = None
        self._passage: Passage | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cells: dict[str, Cell] = {}
        self._kernel_session = ""
        self._is_up = False  # it has answered
        self._is_shell_known = False  # whether a cell ran in it when we came, is known
        self._held: list[Cell] = []  # those that wait here for another front end's cell
        self._subshell: str | None = None
        self._heard = asyncio.Event()  # something came on iopub: the subscription works
        self._began = asyncio.Event()  # a cell has been sent

    # -- its life

    async def start(self) -> None:
        """Start a kernel and wait until it answers. Raises RemoteKernelError with the reason why it does not."""
        program = find_program(self.record.kernelspec)
        make_connection_file(self._place)
        argv = program.command(self._place.connection_file)
        try:
            self._process = KernelProcess.start(
                self._place, argv, program.env, self.record.cwd, is_remote=bool(program.host)
            )
        except OSError as error:
            raise KernelDied(f"cannot start '{self.record.kernelspec}': {error}", "see 'remote_kernel list'") from error
        self._save(pid=self._process.pid, born=self._process.born, connection_file=self._place.connection_file)
        self._process.go()
        self._connect()
        try:
            await self._wait_ready(self._process)
        except BaseException:
            await self.end()
            self._save(pid=0, born="")  # there never was a kernel
            raise
        self.is_dead = False  # from here on cells may come: before, their output would be lost
        self._is_shell_known = True

    async def _hears(self, seconds: float) -> bool:
        """Wait until something has come on iopub."""
        try:
            await asyncio.wait_for(self._heard.wait(), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    async def _is_asked(self, seconds: float) -> bool:
        return self._wire is not None and await self._wire.can_be_asked(seconds)

    async def adopt(self) -> None:
        """Find the kernel that an earlier host, or another program, has left. Sets `trouble` if it is gone."""
        if not self.record.is_attached:
            self._process = KernelProcess(
                self._place, self.record.pid, self.record.born, is_remote=bool(self.record.host)
            )
            status = self._process.status()
            if status is not None:
                self._died(self._process.describe_end(status, 0))
                return
        try:
            self._connect()
        except ConnectionFileError:
            self._died("is gone, and its connection file with it")
            raise
        self.is_dead, self._is_shell_known = False, False
        try:
            for _ in range(_SUBSCRIBING):  # each question is heard of on iopub too, once the subscription works
                reply = await self.ask("kernel_info_request", {}, channel="control", seconds=_ADOPT_SECONDS)
                self.info = reply.content
                if await self._hears(0.2) and await self._is_asked(0.2):
                    break
        except RemoteKernelError as error:
            if self.record.is_attached and not await listens(self.record.connection_file):
                self._died("does not listen any longer")
                raise
            self._note(f"the kernel has not answered on control: {error}")

    def _connect(self) -> None:
        self._wire = Wire(read_connection_file(self.record.connection_file), self.record.identity)
        self._questions = Questions(self._wire)
        self._passage = Passage(self._wire, self._is_away)
        self.trouble = ""
        self._kernel_session, self._subshell, self._is_up = "", None, False
        self._heard.clear()
        for channel, take in (
            ("iopub", self._take_output),
            ("shell", self._take_reply),
            ("control", self._take_reply),
            ("stdin", self._take_input),
        ):
            self._spawn(self._read(self._wire, channel, take))
        self._spawn(self._watch_connection(self._wire))
        self._spawn(self._watch_cells())
        if self._process:
            self._spawn(self._watch_process(self._process))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self._note(f"unexpected {task.exception()!r}")

    async def _wait_ready(self, process: KernelProcess) -> None:
        """Wait for an answer on shell and for anything on iopub: only then does no output get lost."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            asking = asyncio.ensure_future(self.ask("kernel_info_request", {}, seconds=START_SECONDS))
            ending = asyncio.ensure_future(process.ended())
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if asking.done() and not asking.exception():
                self.info = asking.result().content
                if await self._hears(0.5) and await self._is_asked(1.0):
                    return
                continue
            asking.cancel()
            break
        status = process.status()
        words = process.last_words()
        if status is None:
            raise KernelDied(f"the kernel did not answer within {START_SECONDS:.0f} s", f"see {self._place.kernel_log}")
        raise _StartFailed(
            status,
            words or f"the kernel ended with status {status} before it was ready",
            is_remote=bool(self.record.host),
        )

    async def restart(self) -> None:
        """End the kernel and start the next one. Its cells end as lost. Raises RemoteKernelError."""
        if self.is_dead and not self.trouble:
            raise UsageError("the kernel is being restarted", "try again in a moment")
        self.is_dead, self.trouble = True, ""
        try:
            self._lose("the kernel was restarted")
            await self.end()
            self._save(generation=self.record.generation + 1)
            await self.start()
        finally:
            if self.is_dead and not self.trouble:
                again = f"'rkernel restart {self._place.name}' tries once more"
                self.trouble = f"there is no kernel: it did not start again when it was restarted; {again}"

    async def end(self) -> None:
        """End the kernel; an attached one is only let go of. Idempotent."""
        process, self._process = self._process, None
        if process and process.status() is None:
            if self._wire and self._is_up:
                if self.is_busy and self.record.interrupt_mode == "signal":
                    process.signal(signal.SIGINT)  # as Jupyter does: what runs may tidy up, and lets it end
                # Not `restart: False`, which a kept kernel's launcher takes for a front end that only leaves.
                await self._send("control", "shutdown_request", {"restart": True})
            else:
                process.signal(signal.SIGTERM)
            await process.end()
        self._disconnect()
        self.is_dead = True

    def release(self) -> None:
        """Let go of the kernel, which lives on."""
        self._process = None
        self._disconnect()

    def _disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._wire:
            self._wire.close()
            self._wire = None
        if self._questions:
            self._questions.close(self._no_kernel())
            self._questions = None
        if self._passage:
            self._passage.close()
            self._passage = None

    def _save(self, **fields: Any) -> None:
        self.record = self.record._replace(**fields)
        try:
            write_record(self._place, self.record)
        except OSError as error:
            self._note(f"cannot write {self._place.record}: {error.strerror}; a next host may not find the kernel")

    # -- cells and questions

    async def execute(self, cell: Cell) -> None:
        """Run a cell and wait for its end; a side cell beside the one that is running."""
        if not cell.side:
            await self._hold(cell)
        if cell.done.done():
            return
        if self.trouble or self.is_dead:
            cell.finish("lost", self.trouble or "there is no kernel")
            if not self.is_dead:
                self.trouble = ""  # said once; the kernel is a new one, and works
            return
        if cell.only not in (0, self.record.generation):
            cell.finish("lost", self.wrong_kernel(cell))
            return
        cell.generation = self.record.generation
        self._look_at_presence()  # before this cell is among those that are told of a change
        self.expect(cell)
        content = {
            "code": cell.code,
            "silent": False,
            "store_history": not cell.side,
            "user_expressions": {},
            "allow_stdin": cell.allow_stdin,
            "stop_on_error": False,
        }
        channel, subshell = await self._beside() if cell.side else ("shell", "")
        if channel == "control":
            cell.missed = (
                "this kernel has no subshells, as ipykernel 7 has: what is shown beside a cell goes to that cell"
            )
        cell.way = channel, subshell
        cell.resend = lambda: self._spawn(self._send_cell(channel, content, cell.request, subshell))
        cell.send()
        if now := self.presence():
            cell.see_presence(now)
        await self._send_cell(channel, content, cell.request, subshell)
        await self.follow(cell)

    def wrong_kernel(self, cell: Cell) -> str:
        """Say why a cell that may run in one kernel of the session only does not run in this one."""
        return f"this is kernel {self.record.generation} of the session, not kernel {cell.only}"

    async def _hold(self, cell: Cell) -> None:
        """Keep a cell here while another front end's runs: from the kernel's own queue it could not be taken back.

        Until the kernel's shell answers: that cell may have begun before we came, and its end may get lost.
        """
        if self.is_dead or (self._is_shell_known and not self.foreign.cells):
            return
        self._held.append(cell)
        self._look_at_presence()
        self._began.set()
        asking = asyncio.ensure_future(self.ask("kernel_info_request", {}, seconds=UNLIMITED_SECONDS))
        either: set[asyncio.Future[Any]] = {asking, cell.done}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self._is_shell_known = self._is_shell_known or (asking.done() and not asking.exception())
        finally:
            asking.cancel()
            self._held.remove(cell)
        if self._wire is None and not self.is_dead:  # this host leaves: the next one runs the cell
            await cell.done

    def take_back(self, cell: Cell) -> bool:
        """End a cell that waits here for another front end's to end; false where it does not."""
        if cell in self._held:
            cell.interrupted = True
            cell.finish("aborted", "it was taken out of the queue")
        return cell in self._held

    def expect(self, cell: Cell) -> None:
        """Name a cell's request, and take what comes for it.

        For one that an earlier host has sent call it before `adopt`, so that nothing is missed.
        """
        cell.request = f"{self.record.identity}-{cell.generation}-{cell.number}"
        self._cells[cell.request] = cell

    async def follow(self, cell: Cell) -> None:
        """Wait for the end of a cell whose request is under way."""
        self._began.set()
        try:
            while not (await asyncio.wait({cell.done}, timeout=_IDLE_SECONDS))[0]:
                if cell.reply is not None:
                    await self._settle(cell)
        finally:
            self._cells.pop(cell.request, None)

    async def _settle(self, cell: Cell) -> None:
        """End a cell that has its reply, and not the kernel's `idle`, when all its output is here."""
        reply = cell.reply
        passing = asyncio.ensure_future(self.passed(*cell.way))
        either: set[asyncio.Future[Any]] = {cell.done, passing}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        passing.cancel()
        if cell.reply is reply:  # else it was sent again
            cell.settle_without_idle()

    async def passed(self, channel: str = "shell", subshell: str = "") -> bool:
        """Wait until all is here that the kernel has published of what it has answered there; see Passage.passed."""
        return self._passage is not None and await self._passage.passed(channel, subshell)

    async def _send_cell(self, channel: str, content: dict[str, Any], request: str, subshell: str) -> None:
        await self._send(channel, "execute_request", content, identity=request, subshell=subshell)

    async def _send(self, channel: str, kind: str, content: dict[str, Any], **more: Any) -> str:
        if not self._wire:
            raise self._no_kernel()
        return await self._wire.send(channel, kind, content, **more)

    async def ask(self, kind: str, content: dict[str, Any], **more: Any) -> Message:
        """Send a request and give its reply; see Questions.ask. Raises KernelLost without a kernel, NoAnswer."""
        if not self._questions:
            raise self._no_kernel()
        return await self._questions.ask(kind, content, **more)

    async def ask_beside(self, kind: str, content: dict[str, Any]) -> Message:
        """Ask even while a cell runs: on the shell when it is free, else beside it. Raises ConnectionAway."""
        now = self.presence()
        if now and not now.connected:
            why = f" ({now.reason})" if now.reason else ""
            raise ConnectionAway(
                f"the connection to the kernel's host is away{why}", "the kernel goes on; ask again later"
            )
        if not self.is_busy:
            return await self.ask(kind, content)
        channel, subshell = await self._beside()
        return await self.ask(kind, content, channel=channel, subshell=subshell)

    @property
    def is_busy(self) -> bool:
        """Whether a cell runs, ours or another front end's."""
        return bool(self._cells or self.foreign.cells)

    async def _beside(self) -> tuple[str, str]:
        """Give the channel, and the subshell in it, that a busy kernel listens to.

        Subshells are ipykernel 7's (Jupyter's enhancement proposal 91); before, its control channel took all requests.
        """
        if "kernel subshells" not in (self.info.get("supported_features") or ()):
            return "control", ""
        if self._subshell is None:
            reply = await self.ask("create_subshell_request", {}, channel="control")
            self._subshell = str(reply.content.get("subshell_id") or "")
        return ("shell", self._subshell) if self._subshell else ("control", "")

    def _no_kernel(self) -> KernelLost:
        if self.trouble:  # it says what to do
            return KernelLost(self.trouble)
        return KernelLost("there is no kernel", f"'rkernel restart {self._place.name}' starts one")

    async def answer_input(self, cell: Cell, text: str) -> None:
        """Give a cell the line that it has asked for."""
        cell.wants_input = False
        await self._send("stdin", "input_reply", {"value": text})

    async def interrupt(self, cell: Cell | None = None) -> bool:
        """Interrupt what runs, up to three times; true if `cell` has ended, or what ran when there is none.

        That is when the kernel has said so: the last of its output may be on its way for long.
        Raises UsageError for a side cell: an interrupt only ever reaches the kernel's main thread.
        """
        if cell and cell.side:
            raise UsageError("a cell that was run with --side cannot be interrupted", "it has to end by itself")
        if cell and not cell.started_at and (self.foreign.cells or self.record.is_attached):
            await self._see_begin(cell)
            if cell.done.done():
                return True
        main = [mine for mine in self._cells.values() if not mine.side]
        running = [cell] if cell else [*main, *self.foreign.cells]
        for each in running:
            each.interrupted = True
        for seconds in _INTERRUPT_SECONDS:
            if self._process and self.record.interrupt_mode == "signal":
                self._process.signal(signal.SIGINT)
            else:
                await self._send("control", "interrupt_request", {})
            if not running:
                return True
            deadline = time.monotonic() + seconds
            if all([await each.is_answered(deadline - time.monotonic()) for each in running]):
                return True
        return False

    async def _see_begin(self, cell: Cell) -> None:
        """Wait for a cell to begin: what runs before it is somebody else's.

        Raises CellWaits where that takes long, and interrupts it when it begins.
        """
        cell.interrupted = True
        if not await cell.has_begun(_INTERRUPT_SECONDS[0]):
            self._spawn(self._interrupt_once_begun(cell))
            raise CellWaits(
                f"cell {cell.number} has not begun: a cell of another front end runs, and is left alone",
                f"cell {cell.number} is interrupted when its turn comes",
            )

    async def _interrupt_once_begun(self, cell: Cell) -> None:
        await cell.has_begun(UNLIMITED_SECONDS)
        if not cell.done.done():
            await self.interrupt(cell)

    async def ended_beside(self) -> None:
        """Wait until no cell runs beside the others any longer, and all output of those that did is here."""
        ways = [("control", "")]
        if "kernel subshells" in (self.info.get("supported_features") or ()):
            listed = await self.ask("list_subshell_request", {}, channel="control")
            ways = [("shell", str(one)) for one in listed.content.get("subshell_id") or ()]
        for channel, subshell in ways:
            await self.ask("kernel_info_request", {}, channel=channel, subshell=subshell, seconds=UNLIMITED_SECONDS)
            await self.passed(channel, subshell)

    # -- what comes in

    async def _read(self, wire: Wire, channel: str, take: Callable[[Message], None]) -> None:
        since = time.monotonic()
        while True:
            message = await wire.receive(channel)  # which does not let go of the loop while there is a next one
            self._check_kernel(message)
            try:
                take(message)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._note(f"a {message.kind} on {channel} makes no sense: {error!r}")
            if time.monotonic() - since > _TURN_SECONDS:
                await asyncio.sleep(0)
                since = time.monotonic()

    def _check_kernel(self, message: Message) -> None:
        """Notice that another kernel process answers: somebody else has restarted it."""
        if message.kind != "iopub_welcome":
            self._is_up = True
        if not message.session or message.session in (self._kernel_session, message.parent_session):
            return  # some kernels put the session of the request there, as IRkernel and IJulia
        if self._kernel_session and message.kind != "iopub_welcome":
            self._save(generation=self.record.generation + 1)
            self._subshell = None
            self._lose("the kernel was restarted by another front end, and what it held is gone")
            if self._questions:  # they were lost with it
                self._questions.close(KernelLost("the kernel was restarted by another front end", "ask again"))
            self.trouble = (
                "another front end has restarted the kernel: what earlier cells left in it is gone, and this cell did "
                "not run; the next one runs in the new kernel"
            )
        if message.kind != "iopub_welcome":
            self._kernel_session = message.session

    def _take_output(self, message: Message) -> None:
        self._heard.set()
        cell = self._cells.get(message.parent)
        if cell:
            if message.kind == "execute_input" and not cell.side:
                self.foreign.pass_over()
            cell.take_output(message)
        elif message.parent_session != self.record.identity:
            self.foreign.take_output(message, self.record.generation)
        if self._passage:
            self._passage.see(message)

    def _take_reply(self, message: Message) -> None:
        if message.kind == "usage_reply":
            self.memory_bytes = int(message.content.get("kernel_memory") or 0)
        if self._questions and self._questions.take_reply(message):
            return
        if message.kind == "execute_reply" and message.parent in self._cells:
            self._cells[message.parent].take_reply(message)

    def _take_input(self, message: Message) -> None:
        cell = self._cells.get(message.parent)
        if cell and message.kind == "input_request":
            answer = cell.ask_input(str(message.content.get("prompt", "")), bool(message.content.get("password")))
            if answer is not None:
                self._spawn(self.answer_input(cell, answer))
            elif not cell.asks:
                self._spawn(self._refuse_input(cell))

    async def _refuse_input(self, cell: Cell) -> None:
        """Stop a cell that wants input when there is nobody to ask (any longer); it ends as `input`."""
        if cell.side:
            await self.answer_input(cell, "")  # nothing else gets it out of there
        elif not await self.interrupt(cell):
            self._note(f"cell {cell.number} waits for input, and an interrupt does not stop it")

    # -- what is watched

    async def _watch_process(self, process: KernelProcess) -> None:
        how = await see_end(process, lambda: self.memory_bytes)
        if self._passage:
            await self._passage.silent(_LAST_OUTPUT_SECONDS, _LONGEST_LAST_OUTPUT_SECONDS)
        if self._process is process:
            self._died(how)

    async def _watch_connection(self, wire: Wire) -> None:
        """For a kernel that is somebody else's: see it go, or come back as another one."""
        async for is_there in wire.connections():
            if not is_there and self.record.is_attached:
                self._spawn(self._look_for_it())
            elif is_there and self._is_up:
                await self._send("control", "kernel_info_request", {})  # its answer shows whether it is the same

    async def _look_for_it(self) -> None:
        if await comes_back(self.record.connection_file):
            try:
                await self.ask("kernel_info_request", {}, channel="control", seconds=_RESTART_SECONDS)
                return
            except NoAnswer:  # somebody else has got its port
                pass
            except KernelLost:
                return
        self._died("does not listen any longer")

    async def _watch_cells(self) -> None:
        """While a cell runs, see whether the connection is there and how much memory the kernel uses."""
        last = 0.0
        while True:
            self._began.clear()
            if not self._cells and not self._held:
                await self._began.wait()
            await asyncio.sleep(_PRESENCE_SECONDS)
            self._look_at_presence()
            if time.monotonic() - last > _USAGE_SECONDS and "ipython" in str(self.info.get("implementation")):
                last = time.monotonic()
                await self._send("control", "usage_request", {})

    def _look_at_presence(self) -> None:
        now = self.presence()
        if now:
            for cell in [*self._cells.values(), *self._held]:
                cell.see_presence(now)

    def _is_away(self) -> bool:
        now = self.presence()
        return now is not None and not now.connected

    def presence(self) -> Presence | None:
        """Whether the kernel's host is connected; None where nobody says."""
        return read_presence(self._place.kernel_state)

    def _died(self, how: str) -> None:
        what = (
            f"it was not started here: 'rkernel close {self._place.name}' removes the session"
            if self.record.is_attached
            else f"'rkernel restart {self._place.name}' starts a new one"
        )
        self.trouble = f"the kernel {how}; what earlier cells left in it is gone, and {what}"
        self.is_dead = True
        self._note(self.trouble)
        self._lose(f"the kernel {how}; {what}")
        self._process = None
        asyncio.get_running_loop().call_soon(self._disconnect)

    def _lose(self, message: str) -> None:
        for cell in [*self._cells.values(), *self._held]:
            cell.finish("lost", message)
        self.foreign.lose(message)
        self.memory_bytes = 0


class KernelLost(KernelDied):
    """There is no kernel, or it is not the one that was asked for."""

    exit_status = VERDICTS["lost"]


class CellWaits(RemoteKernelError):
    """The cell cannot be interrupted yet."""

    exit_status = VERDICTS["running"]


class ConnectionAway(RemoteKernelError):
    """The kernel's host cannot be reached at the moment."""

    exit_status = VERDICTS["away"]


class _StartFailed(KernelDied):
    """The launcher gave up, and its own exit status says why."""

    def __init__(self, status: int, message: str, *, is_remote: bool) -> None:
        super().__init__(message)
        if status in range(10, 60) and is_remote:
            self.exit_status = status
