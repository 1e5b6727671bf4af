"""Put a session's cells into its notebook, each from the moment at which it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from remote_kernel.session.cell import Cell
from remote_kernel.session.events import Event, Started
from remote_kernel.session.notebook import LogFacts, NotebookLog
from remote_kernel.session.place import Place
from remote_kernel.session.record import Record

AUTHOR = "rkernel"  # who sends a cell when nobody says who


class Recording:
    """A session's notebook as its host sees it; without a path in the record it takes everything and does nothing."""

    def __init__(self, place: Place, record: Record, tell: Callable[[str], None]) -> None:
        self._place = place
        self._stamp = f"{int(record.created):x}"
        self._log = NotebookLog(record.log, LogFacts(place.name), tell) if record.log else None

    def open(self) -> None:
        """Open the notebook. Raises NotebookError where there is something else, or no folder for it."""
        if self._log:
            self._log.open()

    def describe(self, record: Record, info: Mapping[str, Any]) -> None:
        """Say what kernel it is, once it has answered with this kernel_info_reply."""
        if self._log:
            language = dict(info.get("language_info") or {"name": record.language or "python"})
            facts = LogFacts(self._place.name, record.host, record.kernelspec, record.display_name, language)
            self._log.describe(facts)

    def record(self, cell: Cell) -> None:
        """Have a cell's events from now on."""
        if self._log:
            cell.record(_CellRecorder(self._log, cell, f"{self._stamp}-{cell.number}", self._place))

    def close(self) -> None:
        """Write what is left; takes up to ten seconds where the disk is slow. Idempotent."""
        if self._log:
            self._log.close()


class _CellRecorder:
    """One cell on its way into the notebook."""

    def __init__(self, log: NotebookLog, cell: Cell, identity: str, place: Place) -> None:
        self._log, self._cell, self._id, self._place = log, cell, identity, place

    def append(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Started):
            cell = self._cell
            author = "" if cell.author == AUTHOR else cell.author
            whole = self._place.journal(cell.number) if cell.number.isdigit() else ""
            self._log.begin(self._id, cell.code, author, event.generation, event.at, whole=whole)
        self._log.add(self._id, event)
