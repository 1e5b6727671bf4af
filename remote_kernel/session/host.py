"""Stay with one session: hold its kernel, run its cells one after the other, and answer on its Unix socket.

A client sends one line of JSON, `{"protocol": 1, "do": ..., ...}`, and gets lines back:

    execute, follow       {"host": {...}}, then the cell's events (events.py) up to Done
    everything else       {"answer": ...}
    what cannot be done   {"problem": {"error": class, "message": ..., "hint": ..., "status": ...}}

While a cell waits for input, `{"do": "answer", "text": ...}` on the connection that follows it answers.

The host is started by the first client and belongs to nobody: it ends with `close`. Killed, it takes nothing with it;
the kernel lives, and the next client starts the next host, which finds the kernel by session.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from remote_kernel import __version__
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.process import birth
from remote_kernel.session.answers import drop_answers, keep_answers, kept_answers
from remote_kernel.session.cell import Cell
from remote_kernel.session.document import NotebookError
from remote_kernel.session.engine import UNLIMITED_SECONDS, Engine
from remote_kernel.session.events import VERSION, Answered, Event
from remote_kernel.session.hindsight import can_tell, learn_end
from remote_kernel.session.journal import Journal, is_place
from remote_kernel.session.past import Past
from remote_kernel.session.place import Place
from remote_kernel.session.record import read_record
from remote_kernel.session.recording import AUTHOR, Recording
from remote_kernel.session.variables import list_variables
from remote_kernel.session.wire import Message

_LINE_BYTES = 1 << 31
_Fields = dict[str, Any]


class Host:
    """One session's host. `run` lasts as long as the session, or until somebody asks the host to leave."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._engine = Engine(place, read_record(place), self._note)
        self._past = Past(place)
        self._notebook = Recording(place, self._engine.record, self._note)
        self._engine.foreign.tell = self._notebook.record
        self._queue: list[Cell] = []
        self._running: Cell | None = None
        self._left: list[asyncio.Task[None]] = []  # those that follow what an earlier host has left running
        self._cells: dict[str, Cell] = {}  # those that are not done
        self._journals: dict[str, Journal] = {}
        self._work = asyncio.Event()
        self._leave = asyncio.Event()
        self._since = time.time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._does: dict[str, Callable[[_Fields], Coroutine[Any, Any, object]]] = {
            "status": self._status,
            "interrupt": self._interrupt,
            "restart": self._restart,
            "close": self._close,
            "leave": self._retire,
            "variables": self._variables,
            "inspect": self._inspect,
            "complete": self._complete,
        }

    def _note(self, text: str) -> None:
        """Write a line to host.log, which is this process's stderr. Its disk may be full: nothing depends on it."""
        with contextlib.suppress(OSError, ValueError):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until `close`; call `ready` when clients may come. Raises RemoteKernelError where no kernel starts."""
        engine = self._engine
        path = self._place.socket()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        try:
            self._notebook.open()
        except NotebookError as error:
            if self._past.is_empty:
                raise
            self._notebook.give_up(str(error))
        self._notebook.catch_up(self._past)
        left = self._take_up()
        await self._find_kernel()
        self._notebook.describe(engine.record, engine.info)
        following = [(cell, self._spawn(self._see_to_its_end(cell))) for cell in left]
        self._left = [task for cell, task in following if not cell.side]
        server = await asyncio.start_unix_server(self._serve, path, limit=_LINE_BYTES)
        os.chmod(path, 0o600)
        runner = asyncio.ensure_future(self._run_cells())
        try:
            ready()
            leaving = asyncio.ensure_future(self._leave.wait())
            await asyncio.wait({leaving, runner}, return_when=asyncio.FIRST_COMPLETED)
            if runner.done():
                runner.result()  # raises what ended it
        finally:
            runner.cancel()
            server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            await asyncio.sleep(0.05)  # for the last answers to go out
            await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)

    async def _find_kernel(self) -> None:
        """Find the kernel, or start the session's first. Raises RemoteKernelError in a session that has run nothing.

        Any other is served without a kernel too: what its cells gave is still there to be looked at.
        """
        engine = self._engine
        try:
            if engine.record.is_attached or engine.record.pid:
                await engine.adopt()
            elif engine.record.generation == 1 and self._past.is_empty:
                await engine.start()
            else:
                engine.trouble = (
                    "there is no kernel: it did not start again when it was restarted; "
                    f"'rkernel restart {self._place.name}' tries once more"
                )
        except RemoteKernelError:
            if self._past.is_empty:
                raise

    def _take_up(self) -> list[Cell]:
        """Take up the cells that an earlier host has left without an end, and give those that the kernel has got.

        The others have never run, and wait their turn.
        """
        sent = []
        for left in self._past.unfinished():
            queued = left.queued
            past = self._past.events(queued.cell)
            cell = self._new_cell(queued.cell, queued.code, queued.author, queued.key, past)
            cell.side, cell.only = queued.side, queued.only
            if answers := kept_answers(self._place, queued.cell):
                got = sum(isinstance(event, Answered) for event in self._past.events(queued.cell))
                cell.answers, cell.allow_stdin = answers[got:], True
            if not left.was_sent and not cell.side:
                self._queue.append(cell)
                self._work.set()
                continue
            cell.missed = "the session's host ended while it ran: a part of its output may be missing"
            self._engine.expect(cell)
            sent.append(cell)
            if not cell.side:
                self._running = cell
        return sent

    async def _see_to_its_end(self, cell: Cell) -> None:
        """Follow a cell that may have ended unseen: once the kernel answers something later in its place, it has."""
        following = asyncio.ensure_future(self._engine.follow(cell))
        asking = asyncio.ensure_future(self._see_it_over(cell))
        await asyncio.wait({following, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        cell.finish(
            "lost", self._engine.trouble or "it is not known how it ended; the kernel and its variables are there"
        )
        await following
        self._forget(cell)

    async def _see_it_over(self, cell: Cell) -> None:
        """Wait until an earlier host's cell cannot run any longer, and end it if the kernel tells how it ended."""
        with contextlib.suppress(RemoteKernelError):
            if self._engine.is_dead:
                return
            if cell.side:
                await self._engine.ended_beside()
            elif can_tell(self._engine.info):
                await learn_end(cell, self._ask_after_all)
            else:
                await self._ask_after_all("kernel_info_request", {})

    async def _ask_after_all(self, kind: str, content: _Fields) -> Message:
        """Ask the kernel's shell, which answers when what runs has ended, and wait for the last output of that.

        However long it takes.
        """
        reply = await self._engine.ask(kind, content, seconds=UNLIMITED_SECONDS)
        await self._engine.passed()
        return reply

    # -- cells

    def _new_cell(self, number: str, code: str, author: str, key: str, past: Iterable[Event] = ()) -> Cell:
        """Make a cell whose events go to its journal and the notebook; `past` are those that the journal has."""
        cell = Cell(number, code, author=author, generation=self._engine.record.generation, key=key)
        self._notebook.record(cell)
        for event in past:
            cell.replay(event)
        self._journals[number] = journal = Journal(self._place.journal(number))
        cell.record(journal)
        self._cells[number] = cell
        return cell

    async def _run_cells(self) -> None:
        if self._left:
            await asyncio.wait(self._left)
        self._running = None
        while True:
            while not self._queue:
                self._work.clear()
                await self._work.wait()
            self._running = cell = self._queue.pop(0)
            cell.missed = self._notebook.trouble
            try:
                await self._engine.execute(cell)
            except RemoteKernelError as error:
                cell.finish("lost", str(error))
            self._running = None
            self._forget(cell)

    async def _run_beside(self, cell: Cell) -> None:
        try:
            await self._engine.execute(cell)
        except RemoteKernelError as error:
            cell.finish("lost", str(error))
        self._forget(cell)

    def _forget(self, cell: Cell) -> None:
        self._cells.pop(cell.number, None)
        if cell.allow_stdin:
            drop_answers(self._place, cell.number)
        journal = self._journals[cell.number]
        journal.close()
        if journal.is_held:  # the disk is full: it is read from memory as long as this host lives
            self._note(f"no room for the output of cell {cell.number}: {self._place.cells} is on a full disk")
        else:
            del self._journals[cell.number]

    def _take(self, fields: _Fields) -> str:
        """Take a client's cell and give its number; a key that was used before gives that cell's number."""
        key = str(fields.get("key") or "")
        if key and (number := self._past.with_key(key, str(fields["code"]))):
            return number
        if self._engine.is_dead and not self._engine.trouble:
            raise UsageError("the kernel is being restarted", "try again in a moment")
        number = self._past.next_number(key)
        cell = self._new_cell(number, str(fields["code"]), str(fields.get("author") or AUTHOR), key)
        cell.answers = [str(text) for text in fields.get("answers") or ()]
        cell.asks = bool(fields.get("asks"))
        cell.allow_stdin = cell.asks or bool(cell.answers)
        if cell.answers:
            keep_answers(self._place, number, cell.answers)
        cell.side, cell.only = bool(fields.get("side")), int(fields.get("generation") or 0)
        ahead = len(self._queue) + (self._running is not None) + bool(self._engine.foreign.cells)
        cell.queue(0 if cell.side else ahead)
        if cell.only not in (0, self._engine.record.generation):
            cell.finish("lost", self._engine.wrong_kernel(cell))
            self._forget(cell)
        elif cell.side:
            self._spawn(self._run_beside(cell))
        else:
            self._queue.append(cell)
            self._work.set()
        return number

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- clients

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line:
                await self._obey(json.loads(line), reader, writer)
        except RemoteKernelError as error:
            _send(writer, problem=_problem(error))
        except (ValueError, KeyError, TypeError) as error:
            _send(writer, problem=_problem(UsageError(f"the host does not understand the request: {error!r}")))
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()  # a client that is stopped would never take the rest
        except Exception as error:  # the top of a task
            self._note(f"unexpected {error!r}")
            _send(writer, problem=_problem(RemoteKernelError(f"unexpected {error!r}", f"see {self._place.host_log}")))
        finally:
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

    async def _obey(self, fields: _Fields, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fields.get("protocol") != VERSION and fields.get("do") not in ("close", "leave", "status"):
            raise UsageError(
                f"the session's host is of remote_kernel {__version__}, and speaks protocol {VERSION}",
                f"'rkernel refresh {self._place.name}' replaces it; the kernel and its variables stay",
            )
        do = str(fields.get("do"))
        if do in ("execute", "follow"):
            number = self._take(fields) if do == "execute" else str(fields["cell"])
            answers = do == "execute" and bool(fields.get("asks"))
            await self._follow(number, int(fields.get("since") or 0), reader if answers else None, writer)
        elif do in self._does:
            _send(writer, answer=await self._does[do](fields))
        else:
            raise UsageError(f"the host knows no request '{do}'")

    async def _follow(
        self, number: str, since: int, reader: asyncio.StreamReader | None, writer: asyncio.StreamWriter
    ) -> None:
        """Send a cell's events from a byte of its journal on; `reader` is given where its client answers input()."""
        journal = self._journals.get(number)
        if journal is None and not self._past.knows(number):
            raise self._no_cell(number)
        if not is_place(self._place.journal(number), since) and not (journal and journal.holds(since)):
            raise UsageError(
                f"cell {number} has no place {since} to go on from", "give the number that 'tail' has said"
            )
        _send(writer, host={"version": __version__, "cell": number, "generation": self._engine.record.generation})
        if journal is None:
            with open(self._place.journal(number), "rb") as file:
                file.seek(since)
                while piece := file.read(1 << 18):
                    writer.write(piece)
                    await writer.drain()
            return
        listening = asyncio.ensure_future(self._listen(number, reader)) if reader else None
        try:
            async for piece in journal.follow(since):
                writer.write(piece)
                await writer.drain()
        finally:
            if listening:
                listening.cancel()

    def _no_cell(self, number: str) -> UsageError:
        return UsageError(f"there is no cell {number} in this session", f"see 'rkernel status {self._place.name}'")

    async def _listen(self, number: str, reader: asyncio.StreamReader) -> None:
        """Take the answers to input() from the client that sent the cell; when it leaves, there is nobody to ask."""
        cell = self._cells.get(number)
        with contextlib.suppress(ValueError, KeyError, ConnectionError):
            while line := await reader.readline():
                text = str(json.loads(line)["text"])
                if cell and cell.wants_input:
                    await self._engine.answer_input(cell, text)
        if cell and cell.asks:
            cell.asks = False
            if cell.wants_input:
                await self._engine.interrupt(cell)

    # -- requests

    async def _status(self, fields: _Fields) -> object:
        record, engine = self._engine.record, self._engine
        presence = engine.presence()
        memory = engine.memory_bytes
        is_away = presence is not None and not presence.connected
        if fields.get("memory") and not engine.is_dead and not is_away:
            with contextlib.suppress(RemoteKernelError):
                usage = await engine.ask("usage_request", {}, channel="control", seconds=2.0)
                memory = engine.memory_bytes = int(usage.content.get("kernel_memory") or 0)
        return {
            "session": self._place.name,
            "version": __version__,
            "kernelspec": record.kernelspec,
            "display_name": record.display_name,
            "host": record.host,
            "state": "dead" if engine.is_dead else "busy" if engine.is_busy else "idle",
            "connected": presence.connected if presence else None,
            "away_for": presence.reason if presence and is_away else "",
            "trouble": engine.trouble,
            "generation": record.generation,
            "memory_bytes": memory,
            "running": _describe(self._running or next(iter(engine.foreign.cells), None)),
            "queued": [cell.number for cell in self._queue],
            "log": record.log,
            "log_trouble": self._notebook.trouble,
            "connection_file": record.connection_file,
            "since": self._since,
            "pid": os.getpid(),
            "attached": record.is_attached,
        }

    async def _interrupt(self, fields: _Fields) -> object:
        number = str(fields.get("cell") or "")
        dropped = []
        for cell in list(self._queue):
            if cell.number == number or fields.get("all"):
                self._queue.remove(cell)
                cell.interrupted = True
                cell.finish("aborted", "it was taken out of the queue")
                self._forget(cell)
                dropped.append(cell.number)
        if number and dropped:
            return {"stopped": True, "dropped": dropped}
        target = self._cells.get(number) if number else self._running
        if target and self._engine.take_back(target):
            return {"stopped": True, "dropped": [*dropped, target.number]}
        if number and target is None:
            if not self._past.knows(number):
                raise self._no_cell(number)
            return {"stopped": True, "dropped": [], "ended": True}
        if target is None and not self._engine.is_busy:
            return {"stopped": True, "dropped": dropped, "idle": True}
        return {"stopped": await self._engine.interrupt(target), "dropped": dropped}

    async def _restart(self, _: _Fields) -> object:
        if self._engine.record.is_attached:
            raise UsageError("this kernel was started elsewhere", "restart it there")
        for cell in [*self._queue]:
            self._queue.remove(cell)
            cell.finish("lost", "it never ran: the kernel was restarted")
            self._forget(cell)
        await self._engine.restart()
        return {"generation": self._engine.record.generation}

    async def _close(self, _: _Fields) -> object:
        await self._engine.end()
        for cell in list(self._cells.values()):
            cell.finish("lost", "the session was closed")
        is_complete = await asyncio.get_running_loop().run_in_executor(None, self._notebook.close)
        self._leave.set()
        return {"log_trouble": "" if is_complete else self._notebook.trouble or "it took too long"}

    async def _retire(self, _: _Fields) -> object:
        self._engine.release()
        self._leave.set()
        return {}

    async def _variables(self, fields: _Fields) -> object:
        return await list_variables(self._engine, str(fields.get("pattern") or ""))

    async def _inspect(self, fields: _Fields) -> object:
        name = str(fields["name"])
        content = {"code": name, "cursor_pos": len(name), "detail_level": int(fields.get("detail") or 0)}
        return (await self._engine.ask_beside("inspect_request", content)).content

    async def _complete(self, fields: _Fields) -> object:
        code = str(fields["code"])
        at = int(fields.get("at", len(code)))
        return (await self._engine.ask_beside("complete_request", {"code": code, "cursor_pos": at})).content


def _describe(cell: Cell | None) -> object:
    if cell is None:
        return None
    return {"cell": cell.number, "code": cell.code[:200], "author": cell.author, "since": cell.started_at}


def _send(writer: asyncio.StreamWriter, **fields: object) -> None:
    writer.write((json.dumps(fields) + "\n").encode())


def _problem(error: RemoteKernelError) -> dict[str, object]:
    return {
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "status": error.exit_status,
    }


def main(arguments: list[str]) -> int:
    """Be the host of the session named first; then come descriptors: to report to when ready, and host.lock, locked."""
    name, report, lock = arguments[0], int(arguments[1]), int(arguments[2])
    os.set_inheritable(lock, False)
    with contextlib.suppress(OSError):  # the disk may be full
        os.pwrite(lock, f"{os.getpid()} {birth(os.getpid())}".encode(), 0)
    place = Place(name)

    def ready() -> None:
        with contextlib.suppress(OSError):  # the client may have been interrupted: the next one finds us
            os.write(report, b'{"answer": {}}\n')
        os.close(report)

    try:
        asyncio.run(Host(place).run(ready))
    except RemoteKernelError as error:
        print(error, file=sys.stderr)
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"problem": _problem(error)}).encode() + b"\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
