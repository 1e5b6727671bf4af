"""Remember a session's earlier cells: their numbers, the keys they came with, and which of them have no end yet."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from remote_kernel.session.events import Event, Queued, Sent, Started, from_fields
from remote_kernel.session.journal import read_journal
from remote_kernel.session.place import Place

_TAIL_BYTES = 1 << 16


class Left(NamedTuple):
    """A cell whose end no host has seen. One that was not sent has never run."""

    queued: Queued
    was_sent: bool


class Past:
    """What the journals on disk tell; read once, when a host starts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keys: dict[str, str] = {}
        self._unfinished: list[Left] = []
        numbers = [name.removesuffix(".jsonl") for name in os.listdir(place.cells)]
        self._known = {number for number in numbers if number.isdigit()}
        self._last = max(map(int, self._known), default=0)
        for number in sorted(self._known, key=int):
            self._look_at(number)

    def _look_at(self, number: str) -> None:
        first, is_done = _ends(self._place.journal(number))
        queued = next((event for event in first if isinstance(event, Queued)), None)
        if queued and queued.key:
            self._keys[queued.key] = number
        if queued and not is_done:
            self._unfinished.append(Left(queued, any(isinstance(event, (Sent, Started)) for event in first)))

    def unfinished(self) -> list[Left]:
        """Give the cells whose end no host has seen, the oldest first."""
        return self._unfinished

    def events(self, number: str) -> list[Event]:
        """Give what a cell's journal holds; nothing where there is no such cell."""
        return list(read_journal(self._place.journal(number))) if self.knows(number) else []

    def newest_first(self) -> list[str]:
        """Give the numbers of all cells, the newest first."""
        return sorted(self._known, key=int, reverse=True)

    def knows(self, number: str) -> bool:
        """Whether there is, or was, a cell of this number."""
        return number in self._known

    def with_key(self, key: str) -> str:
        """Give the number of the cell that came with this key; empty where there is none."""
        return self._keys.get(key, "")

    def next_number(self, key: str) -> str:
        """Give the next cell's number, and remember its key."""
        self._last += 1
        number = str(self._last)
        self._known.add(number)
        if key:
            self._keys[key] = number
        return number


def _ends(path: str) -> tuple[list[Event], bool]:
    """Give a journal's first events, up to Started, and whether its last is Done."""
    first: list[Event] = []
    with open(path, "rb") as file:
        for line in islice(file, 3):
            with suppress(ValueError):
                event = from_fields(json.loads(line))
                if event:
                    first.append(event)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL_BYTES))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    return first, last.startswith(b'{"event": "done"')
