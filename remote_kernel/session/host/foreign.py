"""Follow the cells that other front ends run in the same kernel: their requests are not seen, what they give is."""

from __future__ import annotations

import time
from collections.abc import Callable

from remote_kernel.session.events import Error, Event, Line, Queued
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.kernel_sockets import Message


class ForeignCells:
    """The foreign cells that run. `on_begin` gets each when it begins, and may have its events recorded."""

    def __init__(self) -> None:
        self.on_begin: Callable[[Cell], None] = lambda cell: None
        self._cells: dict[str, tuple[Cell, _Outcome]] = {}

    @property
    def cells(self) -> list[Cell]:
        """Those that run now."""
        return [cell for cell, _ in self._cells.values()]

    def find(self, request: str) -> Cell | None:
        """Return the cell that runs by this request, if one does."""
        known = self._cells.get(request)
        return known[0] if known else None

    def handle_output(self, message: Message, generation: int) -> bool:
        """Handle a message of iopub that belongs to no cell of ours; false where it belongs to none that runs."""
        known = self._cells.get(message.parent)
        if known:
            self._go_on(message, known[0])
        elif message.kind == "execute_input":
            code, author = str(message.content["code"]), message.parent_user
            cell = Cell(Queued(number_of(message), time.time(), code=code, author=author), generation)
            outcome = _Outcome(is_main=not message.parent_subshell)
            if outcome.is_main:
                self.end_in_main_thread()
            self._cells[message.parent] = cell, outcome
            self.on_begin(cell)
            cell.record(outcome)
            cell.handle_output(message)
        else:
            return False
        return True

    def _go_on(self, message: Message, cell: Cell) -> None:
        cell.handle_output(message)
        if message.kind == "status" and message.content.get("execution_state") == "idle":
            self._end(message.parent)

    def end_in_main_thread(self) -> None:
        """End those in the kernel's main thread, where the next cell has begun: their own `idle` got lost."""
        for request, (_, outcome) in list(self._cells.items()):
            if outcome.is_main:
                self._end(request)

    def _end(self, request: str) -> None:
        cell, outcome = self._cells.pop(request)
        cell.finish("error" if outcome.failed else "ok")

    def kernel_lost(self, message: str) -> None:
        """End them all: the kernel is gone."""
        for cell in self.cells:
            cell.finish("lost", message)
        self._cells.clear()


def number_of(message: Message) -> str:
    """Return what stands for the number of the foreign cell that a message belongs to."""
    return f"other-{message.parent[-16:]}"


class _Outcome:
    """A recorder that notices whether a cell failed: its reply goes to somebody else."""

    def __init__(self, *, is_main: bool) -> None:
        self.failed = False
        self.is_main = is_main  # it runs in the kernel's main thread, as far as is known

    def append(self, event: Event, line: Line | None = None) -> None:
        """Append the next event."""
        self.failed = self.failed or isinstance(event, Error)
