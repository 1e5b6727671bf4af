"""Find which cell of a session a kernel's traceback means by `In[13]`.

The kernel counts the cells that it has run since it was started; a session counts all, also those beside others, those
that never ran, and those of earlier kernels. `rkernel wait 13` may so mean another cell than the traceback does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from remote_kernel.session.events import Queued, Started, read_journal
from remote_kernel.session.paths import Paths

_BEGIN = 8  # events within which a cell's Started is: the connection may have been away before it


class CellNumbers:
    """The cells that the same kernel has run as one cell, looked up in the journals as far as they are asked for."""

    def __init__(self, paths: Paths, cell: str) -> None:
        """`cell` is its number. Nothing is read yet."""
        self._paths, self._cell = paths, cell
        self._known: dict[int | None, str] = {}
        self._unread: Iterator[str] | None = None
        self._generation = 0

    def find(self, count: int) -> str:
        """Return the number of the cell that the kernel counted so; empty where it is another front end's."""
        if self._unread is None:
            started = self._start_of(self._cell)
            self._generation = started.generation if started else 0  # of one beside others the count means nothing
            self._unread = iter(self._newest_first() if started else ())
        while count not in self._known and (number := next(self._unread, "")):
            found = self._start_of(number)
            if found and found.generation == self._generation:
                self._known.setdefault(found.execution_count, number)
        return self._known.get(count, "")

    def _newest_first(self) -> list[str]:
        numbers = [stem for name in os.listdir(self._paths.cells) if (stem := name.partition(".")[0]).isdigit()]
        return sorted(set(numbers), key=int, reverse=True)

    def _start_of(self, number: str) -> Started | None:
        """Return how a cell began; None for one that did not, and for one that ran beside others."""
        try:
            first = list(islice(read_journal(self._paths.journal(number)), _BEGIN))
        except OSError:  # it went to a disk that is full
            return None
        if any(isinstance(event, Queued) and event.side for event in first):
            return None
        return next((event for event in first if isinstance(event, Started)), None)
