"""Log a session to a notebook while it goes: what runs is there within a second, and a person may edit it meanwhile.

The host process tells what happens to its cells; a thread of the log's own writes. The caller never waits for a disk:
it holds the lock only to fold an event into a cell's outputs. Cells that have ended are kept as encoded bytes, not in
memory but in a file without a name; a version is those bytes joined, and each is written whole (see notebook_file).

A write that takes t seconds is followed by a pause of 10 t: at most a tenth of one core and of the disk's time goes
into the log, whatever its size.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from remote_kernel.session.document import (
    NotANotebook,
    NotebookError,
    execution_times,
    is_cell_id,
    iso,
    parse_notebook,
)
from remote_kernel.session.events import Display, Done, Event, Started, Stream, Update
from remote_kernel.session.notebook_file import NotebookFile, Stamp
from remote_kernel.session.outputs import LIMIT_CHARACTERS, Outputs
from remote_kernel.session.page import KEY, Page

SHORTEST_PAUSE = 0.5  # seconds between two writes of a cell's outputs
URGENT_PAUSE = 0.5  # at most, before a cell that has begun or ended is written
LONGEST_PAUSE = 30.0
_RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_SETTLE_SECONDS = 5.0  # for how long what is no notebook may be one that is being written
_SETTLE_EMPTY_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 2.0  # after a write: somebody may have been writing into the file that it replaced

# Verdicts after which the cell's outputs say what happened; the others' message is shown as an output.
_PLAIN = ("ok", "error", "interrupted")


class LogFacts(NamedTuple):
    """What the notebook says of the session.

    `kernel` is the kernelspec's name. `language_info` is that of the kernel's kernel_info_reply.
    """

    session: str
    host: str = ""
    kernel: str = ""
    display_name: str = ""
    language_info: dict[str, Any] = {"name": "python"}  # noqa: RUF012  nobody changes it


class _Cell:
    """A cell that runs, or has ended and is not written yet."""

    def __init__(self, code: str, author: str, generation: int, at: float, outputs: Outputs) -> None:
        self.code, self.author, self.generation, self.at = code, author, generation, at
        self.outputs = outputs
        self.started: float | None = None
        self.done: Done | None = None


class NotebookLog:
    """The notebook at `path`. Use it as a context manager, or call `open` and `close`.

    `tell` is called with one sentence, in the log's thread, when the file cannot be written, when it can again, and
    when something in its place was moved aside. `limit` is that of a cell's outputs, in characters.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        facts: LogFacts,
        tell: Callable[[str], None] = lambda sentence: None,
        *,
        limit: int = LIMIT_CHARACTERS,
    ) -> None:
        self.path = os.fspath(path)
        self._facts, self._tell, self._limit = facts, tell, limit
        self._file = NotebookFile(self.path)
        self._page = Page(facts.session)  # the writer's alone, once it runs
        self._cells: dict[str, _Cell] = {}
        self._touched: set[str] = set()  # cells to be written
        self._displays: dict[str, set[str]] = {}  # cells by display id
        self._late: dict[str, dict[str, Update]] = {}  # updates for cells that have ended, by cell and display id
        self._changed = threading.Condition()
        self._count = self._saved = 0  # changes made, and those that are in the file
        self._urgent = self._closing = self._sleeping = False
        self._give_up_at = float("inf")
        self._trouble = ""
        self._doubt: tuple[Stamp, float] | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Read what is there, or begin anew, and start writing. Blocks for 0.4 s per 10 MB.

        Raises NotebookError where the file is no notebook, or its folder is missing.
        """
        try:
            self._file.clean()
            data, stamp = self._file.read()
            if data.strip():
                self._page.load(parse_notebook(data))
            self._file.accept(stamp)
            os.stat(os.path.dirname(self._file.path))
        except OSError as error:
            raise NotebookError(f"cannot log to {self.path}: {error.strerror}", "name another file") from error
        except NotANotebook as error:
            raise NotebookError(f"cannot log to {self.path}: {error}", "name another file") from error
        self._thread = threading.Thread(target=self._run, name="notebook-log", daemon=True)
        self._thread.start()

    def begin(
        self,
        cell_id: str,
        code: str,
        author: str = "",
        generation: int = 1,
        at: float | None = None,
        *,
        whole: str = "",
    ) -> None:
        """Show a cell that runs now, or that the kernel is about to run. `at` is Unix time in seconds.

        `author` is empty for a cell of our own, and otherwise says which other front end ran it. `whole` is where all
        of its output is, for the note that stands for what is left out of the notebook. A cell of this id that the
        notebook has already, from an earlier host process, is begun again in its place. Raises ValueError for an id
        that nbformat does not take.
        """
        if not is_cell_id(cell_id):
            raise ValueError(f"{cell_id!r} is no cell id of nbformat")
        began = time.time() if at is None else at
        with self._changed:
            self._cells[cell_id] = _Cell(code, author, generation, began, Outputs(self._limit, whole))
            self._note(cell_id, urgent=True)

    def add(self, cell_id: str, event: Event) -> None:
        """Take an event of a cell that has begun. A cell that is not known, or has ended, is left as it is."""
        with self._changed:
            cell = self._cells.get(cell_id)
            if isinstance(event, Update):
                self._update(event)
            elif cell is None or cell.done:
                return
            elif isinstance(event, Done):
                self._end(cell_id, cell, event)
            elif cell.outputs.add(event):
                if isinstance(event, Started):
                    cell.started, cell.generation = event.at, event.generation
                elif isinstance(event, Display) and event.id:
                    self._displays.setdefault(event.id, set()).add(cell_id)
                self._note(cell_id)

    def end(self, cell_id: str, done: Done) -> None:
        """Say what became of a cell; nothing is added to it afterwards, but updates of what it has displayed."""
        self.add(cell_id, done)

    def describe(self, facts: LogFacts) -> None:
        """Replace what the notebook says of the session, but its name."""
        with self._changed:
            self._facts = facts._replace(session=self._facts.session)
            self._note("")

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all that was told before is in the file; false if it is not by then."""
        with self._changed:
            wanted = self._count
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._saved >= wanted or not self._alive, timeout_seconds)

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Write what is left and end the thread; false if not all is in the file. Idempotent."""
        with self._changed:
            self._closing = True
            self._give_up_at = time.monotonic() + timeout_seconds
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout_seconds + 1)
        if not self._alive:
            self._file.close()
            self._page.close()
        return self._saved == self._count

    def __enter__(self) -> NotebookLog:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What follows is called with the lock held.

    def _note(self, cell_id: str, *, urgent: bool = False) -> None:
        self._count += 1
        if cell_id:
            self._touched.add(cell_id)
        if self._sleeping or (urgent and not self._urgent):
            self._changed.notify_all()
        self._urgent = self._urgent or urgent

    def _update(self, event: Update) -> None:
        for cell_id in self._displays.get(event.id, ()):
            cell = self._cells.get(cell_id)
            if cell is None:
                self._late.setdefault(cell_id, {})[event.id] = event
                self._note("")
            elif cell.outputs.update(event):
                self._note(cell_id)

    def _end(self, cell_id: str, cell: _Cell, done: Done) -> None:
        cell.done, cell.generation = done, done.generation
        if done.execution_count is not None:
            cell.outputs.execution_count = done.execution_count
        if done.message and done.verdict not in _PLAIN:
            cell.outputs.add(Stream("stderr", f"[{done.message}]\n"))
        self._note(cell_id, urgent=True)

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # What follows is the writer's thread.

    def _run(self) -> None:
        try:
            self._loop()
        except Exception:
            self._tell(f"the notebook {self.path} is written no longer: {traceback.format_exc()}")
        finally:
            with self._changed:
                self._changed.notify_all()

    def _loop(self) -> None:
        ended, pause, failures = 0.0, 0.0, 0
        while self._wait(ended, pause, failures):
            began = time.monotonic()
            written = self._try()
            ended = time.monotonic()
            pause = 10 * (ended - began)
            failures = 0 if written else failures + 1
            if self._closing and ((written and self._saved == self._count) or ended > self._give_up_at):
                return

    def _wait(self, ended: float, pause: float, failures: int) -> bool:
        """Wait until it is time to write; false when there is nothing left to write."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._count == self._saved:
                    if self._closing:
                        return False
                    at = ended + _LOOK_AGAIN_SECONDS if self._file.watches else float("inf")
                    if now >= at and not self._look_again():
                        continue
                elif failures:
                    at = ended + (0.25 if self._closing else _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1])
                elif self._closing:
                    return True
                elif self._urgent:
                    at = ended + min(pause, URGENT_PAUSE)
                else:
                    at = ended + min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
                if now >= at:
                    return True
                self._sleeping = self._count == self._saved
                self._changed.wait(None if at == float("inf") else at - now)
                self._sleeping = False

    def _look_again(self) -> bool:
        """Whether somebody wrote into the file that was replaced; if not, let go of it."""
        with contextlib.suppress(OSError):
            if self._file.foreign():
                self._count += 1
                return True
        self._file.close()
        return False

    def _try(self) -> bool:
        """Write a version; false if that must be tried again."""
        count = self._collect()
        try:
            written = self._merge() and self._file.replace(self._pieces())
        except OSError as error:
            self._say(f"the notebook {self.path} cannot be written: {error.strerror}; it will be tried again")
            return False
        if written:
            with self._changed:
                self._saved = count
                self._changed.notify_all()
            if self._trouble:
                self._trouble = ""
                self._tell(f"the notebook {self.path} is written again, and complete")
        return written

    def _say(self, sentence: str) -> None:
        if sentence != self._trouble:
            self._trouble = sentence
            self._tell(sentence)

    def _collect(self) -> int:
        """Bring what has changed onto the page, and give the count of changes that it then holds."""
        with self._changed:
            count, self._urgent = self._count, False
            late, self._late = self._late, {}
            drafts = []
            for cell_id in self._cells:
                if cell_id in self._touched:
                    cell = self._cells[cell_id]
                    outputs = cell.outputs
                    drafts.append((cell_id, self._draft(cell_id, cell), outputs.display_ids, cell.done is not None))
            self._touched.clear()
            for cell_id, *_, ended in drafts:
                if ended:
                    del self._cells[cell_id]
        self._page.revision += 1
        for cell_id, draft, displays, ended in drafts:
            try:
                self._page.put(cell_id, draft, displays, final=ended)
            except (TypeError, ValueError, RecursionError) as error:
                draft["outputs"] = Outputs.of_text(f"[what this cell gave cannot be written to a notebook: {error}]\n")
                self._page.put(cell_id, draft, {}, final=ended)
        for cell_id, updates in late.items():
            self._page.update(cell_id, {name: (update.data, update.metadata) for name, update in updates.items()})
        return count

    def _draft(self, cell_id: str, cell: _Cell) -> dict[str, Any]:
        facts, done = self._facts, cell.done
        own: dict[str, Any] = {
            "session": facts.session,
            "host": facts.host,
            "author": cell.author,
            "generation": cell.generation,
            "start": iso(cell.started or cell.at),
            "verdict": done.verdict if done else "running",
        }
        if done:
            own |= {"end": iso(done.at), "duration": done.seconds, "message": done.message}
        return {
            "id": cell_id,
            "cell_type": "code",
            "execution_count": cell.outputs.execution_count,
            "metadata": {KEY: own, "execution": execution_times(cell.started, done.at if done else None)},
            "outputs": cell.outputs.as_list(),
            "source": cell.code,
        }

    def _pieces(self) -> Any:
        facts = self._facts
        language = {"name": "python", **facts.language_info}
        kernel = facts.kernel or str(language["name"])
        metadata = {
            "kernelspec": {
                "name": kernel,
                "display_name": facts.display_name or kernel,
                "language": language["name"],
            },
            "language_info": language,
        }
        self._page.describe(metadata, {"host": facts.host, "kernel": facts.kernel})
        return self._page.pieces()

    def _merge(self) -> bool:
        """Take over what somebody else has written; false while that is half-written. Raises OSError."""
        with self._changed:
            running = set(self._cells)
        while found := self._file.foreign():
            data, stamp = found
            settled = self._seconds_as_it_is(stamp)
            try:
                if data.strip():
                    self._page.merge(data, running)
                elif settled < _SETTLE_EMPTY_SECONDS:
                    return False
            except NotANotebook:
                if settled < _SETTLE_SECONDS:
                    return False
                path = self._file.set_aside(data, stamp)
                self._tell(f"what was in the place of the notebook {self.path} is no notebook; it is now {path}")
            else:
                self._file.accept_foreign(stamp)
        return True

    def _seconds_as_it_is(self, stamp: Stamp) -> float:
        """For how long a file that may be half-written has not changed. Not by its time: that is a server's, maybe."""
        now = time.monotonic()
        if self._doubt is None or self._doubt[0] != stamp:
            self._doubt = stamp, now
        return now - self._doubt[1]
