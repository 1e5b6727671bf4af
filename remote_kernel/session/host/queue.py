"""Keep a session's cells that are not done: taken, queued, run one after the other or beside that, each with a journal.

What an earlier host has left without an end comes first: a cell that the kernel has got is followed to its end, and one
that it has not waits its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.events import Answered, Event, Queued
from remote_kernel.session.host.answers import drop_answers, keep_answers, kept_answers
from remote_kernel.session.host.asking import UNLIMITED_SECONDS
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.executed_copy import Copies
from remote_kernel.session.host.history import Past
from remote_kernel.session.host.input_clients import Askers
from remote_kernel.session.host.installing import NotInstalled
from remote_kernel.session.host.journal import Journal
from remote_kernel.session.host.memory import give_back
from remote_kernel.session.host.questions import NoAnswer
from remote_kernel.session.host.recording import AUTHOR, Recording
from remote_kernel.session.host.recovered import learn_end
from remote_kernel.session.host.tasks import Tasks
from remote_kernel.session.paths import Place

_MUCH_BYTES = 16 << 20
_MISSED = "its launcher was killed while it ran: a part of its output may be missing"
_UNKNOWN_END = "it is not known how it ended; the kernel and its variables are there"


class Agenda:
    """The cells of one session's host. `cells` and `journals` are by number, of those that are not done."""

    def __init__(
        self, place: Place, engine: Engine, past: Past, notebook: Recording, note: Callable[[str], None]
    ) -> None:
        self.past = past
        self.askers = Askers(engine)
        self.copies = Copies(place, note)
        self.queue: list[Cell] = []
        self.running: Cell | None = None
        self.cells: dict[str, Cell] = {}
        self.journals: dict[str, Journal] = {}
        self._place, self._engine, self._notebook, self._note = place, engine, notebook, note
        self._last_of_run: dict[str, Cell] = {}  # that has ended, by the run's first cell
        self._left: list[asyncio.Task[None]] = []  # those that follow what an earlier host has left running
        self._work = asyncio.Event()
        self._is_paused = False
        self._unsent_beside: list[Cell] = []
        self._tasks = Tasks(note)

    # -- what an earlier host has left

    def take_up(self) -> list[Cell]:
        """Take up the cells that an earlier host has left without an end, and give those that the kernel has got.

        Call it before the kernel is found, so that nothing of theirs is missed.
        """
        sent = []
        shared: dict[str, list[str]] = {}
        self.copies.take_up()
        for left in self.past.unfinished():
            queued = left.queued
            past = self.past.events(queued.cell)
            cell = self._new_cell(queued.cell, queued.code, queued.author, queued.key, past)
            cell.side, cell.only, cell.script = queued.side, queued.only, queued.script
            cell.run, cell.may_fail = queued.run, queued.may_fail
            first = queued.run or queued.cell
            answers = kept_answers(self._place, first)
            if answers and first not in shared:
                shared[first] = self._left_of(answers, queued)
            cell.answers = shared.get(first, [])
            self.copies.watch(cell)
            cell.asks, cell.allow_stdin = queued.asks, queued.asks or bool(answers)
            if cell.asks and (left.was_sent or not cell.run):
                self._tasks.spawn(self.askers.see_return(cell))
            if not left.was_sent:
                (self._unsent_beside if cell.side else self.queue).append(cell)
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
        got = [event for number in numbers for event in self.past.events(str(number)) if isinstance(event, Answered)]
        return answers[len(got) :]

    def follow_up(self, left: Iterable[Cell]) -> None:
        """Follow what `take_up` gave, once the kernel is found, and run what was to run beside it."""
        following = [(cell, self._tasks.spawn(self._see_to_its_end(cell))) for cell in left]
        self._left = [task for cell, task in following if not cell.side]
        for cell in self._unsent_beside:
            self._tasks.spawn(self._run(cell))

    async def _see_to_its_end(self, cell: Cell) -> None:
        """Follow a cell that may have ended unseen: once the kernel answers something later in its place, it has."""
        following = asyncio.ensure_future(self._engine.follow(cell))
        asking = asyncio.ensure_future(self._see_it_over(cell))
        await asyncio.wait({following, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if self._engine.life.has_let_go:
            return
        never_began = asking.done() and not asking.exception() and asking.result()
        if never_began and not cell.done.done():
            following.cancel()
            await asyncio.wait({following})
            cell.missed = ""
            if cell.side:
                await self._run(cell)
            else:
                self.queue.insert(0, cell)
            return
        trouble = self._engine.life.trouble
        cell.finish("lost", trouble or _UNKNOWN_END)
        await following
        self.forget(cell)

    async def _see_it_over(self, cell: Cell) -> bool:
        """Wait until an earlier host's cell cannot run any longer, and end it if the kernel tells how it ended.

        True if it never began, and has to be sent again.
        """
        life = self._engine.life
        with contextlib.suppress(RemoteKernelError):
            if life.is_dead:
                return False
            with contextlib.suppress(NotInstalled):
                return await learn_end(cell, self._engine)
            if cell.side:
                await self._engine.ended_beside()
            else:
                await self._engine.ask("kernel_info_request", {}, seconds=UNLIMITED_SECONDS)
                await self._engine.passed()
        return False

    def see_gap(self, *, is_over: bool, is_whole: bool = False) -> None:
        """See to it that the cells that run come to an end though replies may be lost with their launcher; see Gap."""
        for cell in self.cells.values():
            if cell.request and not cell.done.done():
                if is_whole and cell.missed == _MISSED:
                    cell.missed = ""
                elif not is_over:
                    cell.missed = _MISSED
                if is_over:
                    self._tasks.spawn(self._end_unseen(cell))

    async def _end_unseen(self, cell: Cell) -> None:
        never_began = await self._see_it_over(cell)
        if self._engine.life.has_let_go:
            return
        if never_began and cell.resend and not cell.done.done():
            cell.missed = ""
            self._engine.send_again(cell)
        else:
            cell.finish("lost", self._engine.life.trouble or _UNKNOWN_END)

    # -- what clients send

    def take(self, fields: Mapping[str, Any]) -> str:
        """Take a client's cell and give its number; a key that was used before gives that cell's number."""
        key = str(fields.get("key") or "")
        script = self._script(fields)
        if key and (number := self.past.with_key(key, [str(fields["code"])], script)):
            return number
        self._check_kernel()
        number = self.past.next_number(key)
        cell = self._new_cell(number, str(fields["code"]), str(fields.get("author") or AUTHOR), key)
        cell.script = script
        answers = [str(text) for text in fields.get("answers") or ()]
        if answers:
            keep_answers(self._place, number, answers)
        self._queue(cell, fields, answers)
        return number

    def take_run(self, fields: Mapping[str, Any]) -> list[str]:
        """Take the cells of a notebook and give their numbers: each runs only if the one before it lets it.

        They share the answers. A key that was used before gives that run's numbers; with `only_known` that is all.
        """
        key, cells = str(fields.get("key") or ""), list(fields["cells"])
        known = self.past.with_key(key, [str(each["code"]) for each in cells]) if key and cells else ""
        if known or fields.get("only_known") or not cells:
            return [str(int(known) + at) for at in range(len(cells))] if known else []
        self._check_kernel()
        numbers = [self.past.next_number("" if at else key) for at in range(len(cells))]
        answers = [str(text) for text in fields.get("answers") or ()]
        if answers:
            keep_answers(self._place, numbers[0], answers)
        if copy := str(fields.get("copy") or ""):
            ids = {number: str(each["id"]) for number, each in zip(numbers, cells, strict=True)}
            self.copies.begin(numbers[0], copy, ids)
        for number, each in zip(numbers, cells, strict=True):
            first_key = key if number == numbers[0] else ""
            cell = self._new_cell(number, str(each["code"]), str(fields.get("author") or AUTHOR), first_key)
            cell.run, cell.may_fail = numbers[0], bool(each.get("may_fail"))
            self._queue(cell, fields, answers)
        return numbers

    def _check_kernel(self) -> None:
        """Raise UsageError while the kernel is being restarted."""
        life = self._engine.life
        if life.is_dead and not life.trouble:
            raise UsageError("the kernel is being restarted", "try again in a moment")

    def _queue(self, cell: Cell, fields: Mapping[str, Any], answers: list[str]) -> None:
        """Queue a cell, or run it beside the others, as its client says."""
        life = self._engine.life
        cell.answers, cell.asks = answers, bool(fields.get("asks"))
        cell.allow_stdin = cell.asks or bool(answers)
        cell.side, cell.only = bool(fields.get("side")), int(fields.get("generation") or 0)
        self.copies.watch(cell)
        ahead = len(self.queue) + (self.running is not None) + bool(self._engine.foreign.cells)
        cell.queue(0 if cell.side or cell.run not in ("", cell.number) else ahead)
        if life.is_dead or cell.only not in (0, life.record.generation):
            cell.finish("lost", life.trouble if life.is_dead else self._engine.wrong_kernel(cell))
            self.forget(cell)
        elif cell.side:
            self._tasks.spawn(self._run(cell))
        else:
            self.queue.append(cell)
            self._work.set()

    def _script(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what makes a cell a script; nothing for a kernel of a language other than Python."""
        script = tuple(map(str, fields.get("script") or ()))
        language = (self._engine.life.info.get("language_info") or {}).get("name") or self._engine.life.record.language
        if str(language).lower() == "python" and not fields.get("side"):
            return script
        if len(script) > 2:
            why = "with --side, whose code shares sys.argv with what runs" if fields.get("side") else f"in {language}"
            raise UsageError(f"a file cannot be given arguments {why}", "leave them out")
        return ()

    def _new_cell(self, number: str, code: str, author: str, key: str, past: Iterable[Event] = ()) -> Cell:
        """Make a cell whose events go to its journal and the notebook; `past` are those that the journal has."""
        cell = Cell(number, code, author=author, generation=self._engine.life.record.generation, key=key)
        self._notebook.record(cell)
        for event in past:
            cell.replay(event)
        self.journals[number] = journal = Journal(self._place.journal(number))
        cell.record(journal)
        self.cells[number] = cell
        return cell

    async def run(self) -> None:
        """Run the cells that wait, one after the other, for ever."""
        if self._left:
            await asyncio.wait(self._left)
        self.running = None
        while True:
            while not self.queue or self._is_paused:
                self._work.clear()
                await self._work.wait()
            self.running = cell = self.queue.pop(0)
            cell.missed = self._notebook.trouble
            await self._run(cell)
            self.running = None

    def pause(self) -> None:
        """Begin no other cell: the next host does."""
        self._is_paused = True

    async def _run(self, cell: Cell) -> None:
        if cell.run not in ("", cell.number):
            before = str(int(cell.number) - 1)
            if before in self.cells:  # of those beside the others each has a task of its own
                await self.cells[before].done
            last = self._last_of_run.get(cell.run)
            if not (last.lets_go_on if last and last.number == before else self.past.lets_go_on(before)):
                cell.finish("aborted", f"it never ran: cell {before} of the same notebook did not end well")
        if cell.run and cell.asks:
            self._tasks.spawn(self.askers.see_return(cell))
        try:
            await self._engine.execute(cell)
        except NoAnswer as error:
            cell.finish("aborted", f"it never ran: {error}")
        except RemoteKernelError as error:
            if self._engine.life.has_let_go:
                return
            cell.finish("lost", str(error))
        self.forget(cell)

    # -- ends

    def take_out_rest(self, cell: Cell) -> None:
        """End what waits of the notebook run that this cell belongs to."""
        for other in list(self.queue):
            if cell.run and other.run == cell.run:
                self.take_out(
                    other, "aborted", f"it never ran: cell {cell.number} of the same notebook was interrupted"
                )

    def take_out(self, cell: Cell, verdict: str, why: str) -> None:
        """End a cell that is in the queue."""
        self.queue.remove(cell)
        cell.finish(verdict, why)
        self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Let go of a cell that is done."""
        self.cells.pop(cell.number, None)
        run_goes_on = bool(cell.run) and any(other.run == cell.run for other in self.cells.values())
        if run_goes_on:
            self._last_of_run[cell.run] = cell
        else:
            self._last_of_run.pop(cell.run, None)
            if cell.allow_stdin:
                drop_answers(self._place, cell.run or cell.number)
        journal = self.journals[cell.number]
        journal.close()
        if journal.end > _MUCH_BYTES:
            give_back()
        if journal.is_held:  # the disk is full: it is read from memory as long as this host lives
            self._note(f"no room for the output of cell {cell.number}: {self._place.cells} is on a full disk")
        else:
            del self.journals[cell.number]
