"""Queue a session's cells that are not done, and run them: one after the other or beside others, each with a journal.

What an earlier host has left without an end comes first: a cell that the kernel has got is followed to its end, and one
that it has not waits its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.events import Answered, Error, Event, Queued
from remote_kernel.session.host import host_log
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.executed_copy import Copies
from remote_kernel.session.host.history import History
from remote_kernel.session.host.input_clients import InputClients, drop_answers, keep_answers, kept_answers
from remote_kernel.session.host.journal import Journal, release_memory
from remote_kernel.session.host.kernel_client import UNLIMITED_SECONDS, NoAnswer, NotInstalled
from remote_kernel.session.host.kernel_side import UNSEEN
from remote_kernel.session.host.recording import AUTHOR, Recording
from remote_kernel.session.paths import Paths
from remote_kernel.session.protocol import Request
from remote_kernel.session.questions import RunNotebook

_MUCH_BYTES = 16 << 20
_MISSED = "its launcher was killed while it ran: a part of its output may be missing"
_UNKNOWN_END = "it is not known how it ended; the kernel and its variables are there"


class CellQueue:
    """The cells of one session's host. `cells` and `journals` are by number, of those that are not done."""

    def __init__(self, paths: Paths, engine: Engine, history: History, notebook: Recording) -> None:
        self.history = history
        self.input_clients = InputClients(engine)
        self.copies = Copies(paths)
        self.waiting: list[Cell] = []
        self.running: Cell | None = None
        self.cells: dict[str, Cell] = {}
        self.journals: dict[str, Journal] = {}
        self._paths, self._engine, self._notebook = paths, engine, notebook
        self._last_of_run: dict[str, Cell] = {}  # that has ended, by the run's first cell
        self._left: list[asyncio.Task[None]] = []  # those that follow what an earlier host has left running
        self._work = asyncio.Event()
        self._is_paused = False
        self._unsent_beside: list[Cell] = []
        self._tasks = host_log.Tasks()

    # -- what an earlier host has left

    def restore(self) -> list[Cell]:
        """Make the cells that an earlier host has left without an end, and return those that the kernel has got.

        Call it before the kernel is found, so that nothing of theirs is missed.
        """
        sent = []
        shared: dict[str, list[str]] = {}
        self.copies.restore()
        for left in self.history.unfinished:
            queued = left.queued
            first = queued.run or queued.cell
            answers = kept_answers(self._paths, first)
            if answers and first not in shared:
                shared[first] = self._left_of(answers, queued)
            cell = self._new_cell(queued, shared.get(first, []), self.history.events(queued.cell))
            cell.allow_stdin = cell.asks or bool(answers)
            if cell.asks and (left.was_sent or not cell.run):
                self._tasks.spawn(self.input_clients.wait_for_return(cell))
            if not left.was_sent:
                (self._unsent_beside if cell.side else self.waiting).append(cell)
                continue
            cell.missed = "the session's host ended while it ran: a part of its output may be missing"
            self._engine.expect(cell)
            sent.append(cell)
            if not cell.side:
                self.running = cell
        return sent

    def _left_of(self, answers: list[str], queued: Queued) -> list[str]:
        """Return the answers that neither this cell nor one before it in its notebook run has got."""
        numbers = range(int(queued.run or queued.cell), int(queued.cell) + 1)
        got = [event for number in numbers for event in self.history.events(str(number)) if isinstance(event, Answered)]
        return answers[len(got) :]

    def follow_restored(self, left: Iterable[Cell]) -> None:
        """Follow what `restore` returned, once the kernel is found, and run what was to run beside it."""
        following = [(cell, self._tasks.spawn(self._follow_to_end(cell))) for cell in left]
        self._left = [task for cell, task in following if not cell.side]
        for cell in self._unsent_beside:
            self._tasks.spawn(self._run(cell))

    async def _follow_to_end(self, cell: Cell) -> None:
        """Follow a cell that may have ended unseen: once the kernel answers something later in its place, it has."""
        following = asyncio.ensure_future(self._engine.follow(cell))
        asking = asyncio.ensure_future(self._wait_until_over(cell))
        await asyncio.wait({following, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if self._engine.kernel.has_released:
            return
        never_began = asking.done() and not asking.exception() and asking.result()
        if never_began and not cell.done.done():
            following.cancel()
            await asyncio.wait({following})
            cell.missed = ""
            if cell.side:
                await self._run(cell)
            else:
                self.waiting.insert(0, cell)
            return
        trouble = self._engine.kernel.trouble
        cell.finish("lost", trouble or _UNKNOWN_END)
        await following
        self.forget(cell)

    async def _wait_until_over(self, cell: Cell) -> bool:
        """Wait until an earlier host's cell cannot run any longer, and end it if the kernel tells how it ended.

        True if it never began, and has to be sent again.
        """
        kernel = self._engine.kernel
        with contextlib.suppress(RemoteKernelError):
            if kernel.is_dead:
                return False
            with contextlib.suppress(NotInstalled):
                return await self._learn_end(cell)
            if cell.side:
                await kernel.require_client().ended_beside()
            else:
                await self._engine.ask("kernel_info_request", {}, seconds=UNLIMITED_SECONDS)
                await self._engine.drained()
        return False

    async def _learn_end(self, cell: Cell) -> bool:
        """End a cell as it has ended; true if it never began, and never will unless it is sent again.

        Waits until the kernel has come to the end of what runs, and all output of that is here. Raises
        RemoteKernelError.
        """
        client = self._engine.kernel.require_client()
        while True:
            try:
                was_there = await client.prepare()
                break
            except NoAnswer:  # the connection to its host is away, say: the cell goes on
                continue
        if cell.side:
            await client.ended_beside()
        channel = "control" if cell.side else "shell"
        end = await client.ask_prepared("end", {"request": cell.request}, channel, UNLIMITED_SECONDS)
        if not cell.side:
            await self._engine.drained()
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

    def handle_gap(self, *, is_over: bool, is_whole: bool = False) -> None:
        """End the cells that run though replies may be lost with their launcher; see GapListener."""
        for cell in self.cells.values():
            if cell.request and not cell.done.done():
                cell.is_reply_due = False
                if is_whole and cell.missed == _MISSED:
                    cell.missed = ""
                elif not is_over:
                    cell.missed = _MISSED
                if is_over:
                    self._tasks.spawn(self._end_unseen(cell))

    async def _end_unseen(self, cell: Cell) -> None:
        never_began = await self._wait_until_over(cell)
        if self._engine.kernel.has_released:
            return
        if never_began and cell.resend and not cell.done.done():
            cell.missed = ""
            self._engine.send_again(cell)
        else:
            cell.finish("lost", self._engine.kernel.trouble or _UNKNOWN_END)

    # -- what clients send

    def submit(self, request: Request) -> str:
        """Queue a client's cell and return its number; a key that was used before gives that cell's number."""
        script = self._script_of(request)
        if request.key and (number := self.history.find_key(request.key, [request.code], script)):
            return number
        self._check_kernel()
        number = self.history.next_number(request.key)
        if request.answers:
            keep_answers(self._paths, number, request.answers)
        author, how = request.author or AUTHOR, (request.side, request.generation, request.asks)
        queued = Queued(number, time.time(), 0, request.code, author, request.key, *how, script)
        self._enqueue(queued, list(request.answers))
        return number

    def submit_run(self, run: RunNotebook) -> list[str]:
        """Queue the cells of a notebook and return their numbers: each runs only if the one before it lets it.

        They share the answers. A key that was used before gives that run's numbers; with `only_known` that is all.
        """
        cells = run.cells
        known = self.history.find_key(run.key, [each.code for each in cells]) if run.key and cells else ""
        if known or run.only_known or not cells:
            return [str(int(known) + at) for at in range(len(cells))] if known else []
        self._check_kernel()
        numbers = [self.history.next_number("" if at else run.key) for at in range(len(cells))]
        if run.answers:
            keep_answers(self._paths, numbers[0], run.answers)
        if run.copy:
            self.copies.begin(numbers[0], run.copy, {each: cell.id for each, cell in zip(numbers, cells, strict=True)})
        answers, author, how = list(run.answers), run.author or AUTHOR, (run.side, run.generation, run.asks)
        for number, each in zip(numbers, cells, strict=True):
            key = run.key if number == numbers[0] else ""
            queued = Queued(number, time.time(), 0, each.code, author, key, *how, (), numbers[0], each.may_fail)
            self._enqueue(queued, answers)
        return numbers

    def _check_kernel(self) -> None:
        """Raise UsageError while the kernel is being restarted."""
        kernel = self._engine.kernel
        if kernel.is_dead and not kernel.trouble:
            raise UsageError("the kernel is being restarted", "try again in a moment")

    def _enqueue(self, queued: Queued, answers: list[str]) -> None:
        """Queue a cell, or run it beside the others, as its client asks."""
        kernel, cell = self._engine.kernel, self._new_cell(queued, answers)
        ahead = len(self.waiting) + (self.running is not None) + bool(self._engine.foreign.cells)
        cell.mark_queued(0 if cell.side or cell.run not in ("", cell.number) else ahead)
        if kernel.is_dead or cell.only not in (0, kernel.record.generation):
            cell.finish("lost", kernel.trouble if kernel.is_dead else self._engine.wrong_kernel(cell))
            self.forget(cell)
        elif cell.side:
            self._tasks.spawn(self._run(cell))
        else:
            self.waiting.append(cell)
            self._work.set()

    def _script_of(self, request: Request) -> tuple[str, ...]:
        """Return what makes a cell a script; nothing for a kernel of a language other than Python."""
        language, script = self._engine.kernel.language, tuple(request.script)
        if language.lower() == "python" and not request.side:
            return script
        if len(script) > 2:
            where = "with --side, whose code shares sys.argv with what runs" if request.side else f"in {language}"
            raise UsageError(f"a file cannot be given arguments {where}", "leave them out")
        return ()

    def _new_cell(self, queued: Queued, answers: list[str], earlier: Iterable[Event] = ()) -> Cell:
        """Make a cell whose events go to its journal and the notebook; `earlier` are those that the journal has."""
        number, cell = queued.cell, Cell(queued, self._engine.kernel.record.generation)
        cell.answers, cell.allow_stdin = answers, cell.asks or bool(answers)
        self._notebook.record(cell)
        for event in earlier:
            cell.replay(event)
        self.journals[number] = journal = Journal(self._paths.journal(number))
        cell.record(journal)
        self.cells[number] = cell
        self.copies.watch(cell)
        return cell

    async def run(self) -> None:
        """Run the cells that wait, one after the other, for ever."""
        if self._left:
            await asyncio.wait(self._left)
        self.running = None
        while True:
            while not self.waiting or self._is_paused:
                self._work.clear()
                await self._work.wait()
            self.running = cell = self.waiting.pop(0)
            cell.missed = self._notebook.trouble
            await self._run(cell)
            self.running = None

    def pause(self) -> None:
        """Start no other cell: the next host does."""
        self._is_paused = True

    async def _run(self, cell: Cell) -> None:
        if cell.run not in ("", cell.number):
            before = str(int(cell.number) - 1)
            if before in self.cells:  # of those beside the others each has a task of its own
                await self.cells[before].done
            last = self._last_of_run.get(cell.run)
            if not (last.allows_next if last and last.number == before else self.history.allows_next(before)):
                cell.finish("aborted", f"it never ran: cell {before} of the same notebook did not end well")
        if cell.run and cell.asks:
            self._tasks.spawn(self.input_clients.wait_for_return(cell))
        try:
            await self._engine.execute(cell)
        except NoAnswer as error:
            cell.finish("aborted", f"it never ran: {error}")
        except RemoteKernelError as error:
            if self._engine.kernel.has_released:
                return
            cell.finish("lost", str(error))
        self.forget(cell)

    # -- ends

    def remove_rest_of_run(self, cell: Cell) -> None:
        """End what waits of the notebook run that this cell belongs to."""
        for other in list(self.waiting):
            if cell.run and other.run == cell.run:
                self.remove(other, "aborted", f"it never ran: cell {cell.number} of the same notebook was interrupted")

    def remove(self, cell: Cell, verdict: str, why: str) -> None:
        """End a cell that is in the queue."""
        self.waiting.remove(cell)
        cell.finish(verdict, why)
        self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Forget a cell that is done."""
        self.cells.pop(cell.number, None)
        run_goes_on = bool(cell.run) and any(other.run == cell.run for other in self.cells.values())
        if run_goes_on:
            self._last_of_run[cell.run] = cell
        else:
            self._last_of_run.pop(cell.run, None)
            if cell.allow_stdin:
                drop_answers(self._paths, cell.run or cell.number)
        journal = self.journals[cell.number]
        journal.close()
        if journal.end > _MUCH_BYTES:
            release_memory()
        if journal.is_held:  # the disk is full: it is read from memory as long as this host lives
            host_log.write(f"no room for the output of cell {cell.number}: {self._paths.cells} is on a full disk")
        else:
            del self.journals[cell.number]
