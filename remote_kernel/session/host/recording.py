"""Record a session's cells in its notebook, each from the moment at which it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from remote_kernel.session.events import Event, Line, Queued, Started
from remote_kernel.session.host import host_log
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.history import History
from remote_kernel.session.notebook.log import LogFacts, NotebookLog
from remote_kernel.session.paths import Paths
from remote_kernel.session.record import Record

AUTHOR = "rkernel"  # who sends a cell when nobody says who
_SEEN_SECONDS = 1.0  # within which a cell that was sent may not have been in the version that was written


class Recording:
    """A session's notebook as its host sees it; without a path in the record it takes everything and does nothing."""

    def __init__(self, paths: Paths, record: Record) -> None:
        self._paths = paths
        self._stamp = f"{int(record.created):x}"
        self._given_up = ""
        self._log = NotebookLog(record.log, LogFacts(paths.name), host_log.write) if record.log else None

    def open(self) -> None:
        """Open the notebook. Raises NotebookError where there is something else, or no folder for it."""
        if self._log:
            self._log.open()

    def describe(self, record: Record, info: Mapping[str, Any]) -> None:
        """Describe the kernel in the notebook, once it has answered with this kernel_info_reply."""
        if self._log:
            language = dict(info.get("language_info") or {"name": record.language or "python"})
            facts = LogFacts(self._paths.name, record.host, record.kernelspec, record.display_name, language)
            self._log.describe(facts)

    def catch_up(self, history: History) -> None:
        """Write what an earlier host has seen, and was killed before it could write: ends, and whole cells.

        A cell that the notebook lacks and that is older than its last version was removed by somebody, and stays so.
        Cells without an end are left to whoever takes them up. Call it after `open`.
        """
        if not self._log:
            return
        found, written_at = self._log.found, self._log.found_at
        numbers = {identity.removeprefix(f"{self._stamp}-") for identity, has_end in found.items() if not has_end}
        for number in history.newest_first():
            queued = next(history.events(number), None)
            if not isinstance(queued, Queued) or queued.at < written_at - _SEEN_SECONDS:
                break
            if f"{self._stamp}-{number}" not in found:
                numbers.add(number)
        numbers -= {left.queued.cell for left in history.unfinished}
        for number in sorted(filter(str.isdigit, numbers), key=int):
            self._replay(number, history.events(number))

    def _replay(self, number: str, events: Iterator[Event]) -> None:
        queued = next(events, None)
        if self._log and isinstance(queued, Queued):
            identity = f"{self._stamp}-{number}"
            recorder = _CellRecorder(self._log, identity, number, queued.code, queued.author, self._paths)
            for event in events:
                recorder.append(event)

    def record(self, cell: Cell) -> None:
        """Record a cell's events from now on."""
        if self._log:
            identity = f"{self._stamp}-{cell.number}"
            cell.record(_CellRecorder(self._log, identity, cell.number, cell.code, cell.author, self._paths))

    def add_after(self, number: str, event: Event) -> None:
        """Record what a cell's threads and tasks give after its end."""
        if self._log:
            self._log.add_after(f"{self._stamp}-{number}", event)

    def close(self) -> bool:
        """Write what is left; false where not all could be, after up to ten seconds. Idempotent."""
        return not self._given_up and (self._log is None or self._log.close())

    def give_up(self, why: str) -> None:
        """Write nothing: the notebook is gone, say, and the session must be of use all the same."""
        self._log, self._given_up = None, why

    @property
    def trouble(self) -> str:
        """Why the notebook lacks something at the moment; empty where it does not."""
        return self._log.trouble if self._log else self._given_up


class _CellRecorder:
    """One cell on its way into the notebook."""

    def __init__(self, log: NotebookLog, identity: str, number: str, code: str, author: str, paths: Paths) -> None:
        self._log, self._id, self._code = log, identity, code
        self._author = "" if author == AUTHOR else author
        self._whole = paths.journal(number) if number.isdigit() else ""

    def append(self, event: Event, line: Line | None = None) -> None:
        """Append the next event."""
        if isinstance(event, Started):
            self._log.begin(self._id, self._code, self._author, event.generation, event.at, whole=self._whole)
        self._log.add(self._id, event)
