"""Remember a session's earlier cells: their numbers, the keys they came with, and which of them have no end yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from remote_kernel.errors import UsageError
from remote_kernel.session.events import Done, Event, Queued, Sent, Started, read_done, read_journal
from remote_kernel.session.paths import Paths


class UnfinishedCell(NamedTuple):
    """A cell whose end no host has seen. One that was not sent has never run."""

    queued: Queued
    was_sent: bool


class History:
    """The earlier cells, as the journals on disk tell; read once, when a host starts."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._keys: dict[str, str] = {}
        self.unfinished: list[UnfinishedCell] = []  # whose end no host has seen, the oldest first
        numbers = [name.removesuffix(".jsonl") for name in os.listdir(paths.cells)]
        self._known = {number for number in numbers if number.isdigit()}
        self._last = max(map(int, self._known), default=0)
        for number in sorted(self._known, key=int):
            self._look_at(number)

    def _look_at(self, number: str) -> None:
        first, done = _ends(self._paths.journal(number))
        queued = next((event for event in first if isinstance(event, Queued)), None)
        if queued and queued.key:
            self._keys[queued.key] = number
        if queued and not done:
            self.unfinished.append(UnfinishedCell(queued, any(isinstance(event, (Sent, Started)) for event in first)))

    @property
    def is_empty(self) -> bool:
        """True if no cell was ever sent."""
        return not self._known

    def events(self, number: str) -> Iterator[Event]:
        """Yield what a cell's journal holds, as it is read; nothing where there is no such cell."""
        return read_journal(self._paths.journal(number)) if self.knows(number) else iter(())

    def newest_first(self) -> list[str]:
        """Return the numbers of all cells, the newest first."""
        return sorted(self._known, key=int, reverse=True)

    def knows(self, number: str) -> bool:
        """True if there is, or was, a cell of this number."""
        return number in self._known

    def check(self, number: str) -> None:
        """Raise UsageError where there is, and was, no cell of this number."""
        if not self.knows(number):
            raise UsageError(f"there is no cell {number} in this session", f"see 'rkernel status {self._paths.name}'")

    def find_key(self, key: str, codes: Sequence[str], script: tuple[str, ...] = ()) -> str:
        """Return the number of the cell that came with this key; empty where there is none, or none that ever ran.

        `codes` are those of a notebook run's cells, in order, or the one of a cell.

        Raises UsageError where that cell has other code or arguments: one of the two would be taken for the other.
        """
        number = self._keys.get(key, "")
        if not number:
            return ""
        numbers = [str(int(number) + at) for at in range(len(codes))]
        try:
            found = [self.queued(each) for each in [*numbers, str(int(number) + len(codes))]]
            first, done = _ends(self._paths.journal(number))
        except OSError:  # the disk is full, and it is in memory
            return number
        run = found[0].run if found[0] else ""
        same = [
            each is not None and (each.code, each.run) == (code, run) for each, code in zip(found, codes, strict=False)
        ]
        is_longer = bool(run and found[-1] and found[-1].run == run)
        if is_longer or not all(same) or (found[0] and found[0].script != script):
            raise UsageError(
                f"the key '{key}' is that of cell {number}, which has other code or arguments", "give another --key"
            )
        return "" if done and _never_ran(first, done) else number

    def queued(self, number: str) -> Queued | None:
        """Return how a cell was queued; None where there is no such cell. Raises OSError."""
        first = next(self.events(number), None)
        return first if isinstance(first, Queued) else None

    def allows_next(self, number: str) -> bool:
        """True if the cell of a notebook after this one may run: this one has ended well, or was allowed to fail."""
        try:
            queued, done = self.queued(number), read_done(self._paths.journal(number))
        except OSError:  # the disk is full: its own host has seen the end
            return True
        may_fail = queued is not None and queued.may_fail
        return done is not None and (done.verdict == "ok" or (done.verdict == "error" and may_fail))

    def next_number(self, key: str) -> str:
        """Return the next cell's number, and remember its key."""
        self._last += 1
        number = str(self._last)
        self._known.add(number)
        if key:
            self._keys[key] = number
        return number


def _never_ran(first: list[Event], done: Done) -> bool:
    """True if a cell surely did not run: the kernel dropped it, or never got it."""
    begun = any(isinstance(event, Started) for event in first)
    sent = any(isinstance(event, Sent) for event in first)
    return not begun and (done.verdict == "aborted" or (done.verdict == "lost" and not sent))


def _ends(path: str) -> tuple[list[Event], Done | None]:
    """Return a journal's first events, up to Started, and its last if that is Done. Raises OSError."""
    return list(islice(read_journal(path), 3)), read_done(path)
