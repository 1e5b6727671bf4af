"""Show a cell's output on a terminal: text as it comes, and what is cleared or updated is redrawn in its place.

Counts the rows that the output takes, as a terminal that wraps lines shows it. What has scrolled out cannot be taken
back, nor what follows text that moves the cursor up by itself: there the new output goes below the old.
"""

from __future__ import annotations

import os
import re

from remote_kernel.session.events import Update
from remote_kernel.session.render.ansi import SEQUENCE
from remote_kernel.session.render.artifacts import is_for_browsers
from remote_kernel.session.render.text import TextRenderer
from remote_kernel.session.render.view import TextFile, View, ends_line

_MEDIA = ("image/", "audio/", "video/", "application/")
_MOVES = ("\x1b[A", "\x1b[1A", "\x1b[F")


class Rows:
    """The rows between the output's begin, which is at a line's start, and the cursor."""

    def __init__(self, columns: int, lines: int) -> None:
        """Start with the terminal's size."""
        self.number = 0
        self._column = 0
        self._columns = max(1, columns)
        self._lines = lines
        self._lost = False

    def add(self, text: str) -> None:
        """Count a text that is written."""
        self._lost = self._lost or any(move in text for move in _MOVES)
        ends = text.count("\n")
        if ends >= self._lines:
            self.number += ends  # too far to come back to, however its lines wrap
            text = text[text.rfind("\n") + 1 :]
            self._column = 0
        for number, line in enumerate(re.sub(SEQUENCE, "", text).split("\n")):
            if number:
                self.number += 1
                self._column = 0
            _, moved, rest = line.rpartition("\r")
            end = (0 if moved else self._column) + len(rest)
            self.number += max(0, end - 1) // self._columns  # a full row wraps when the next character comes
            self._column = end - max(0, end - 1) // self._columns * self._columns

    def erase(self, number: int = 0) -> str:
        """Return what removes all from this row on, empty where it cannot; the output then goes on from there."""
        up = self.number - number
        if not up and not self._column:
            return ""
        if self._lost or up >= self._lines:
            self.number = self._column = 0
            self._lost = False
            return ""
        self.number, self._column = number, 0
        return (f"\x1b[{up}A" if up else "") + "\r\x1b[J"


class TerminalRenderer(TextRenderer):
    """A cell's output where both files are terminals, and nothing bounds it."""

    def __init__(self, out: TextFile, err: TextFile, view: View, size: tuple[int, int] | None = None) -> None:
        """Make it for one cell; `size` is the terminal's columns and lines, else it is asked for."""
        super().__init__(out, err, view)
        self._rows = Rows(*(size or _size(out)))
        self._last_id = ""  # the display that nothing has followed
        self._last_row = 0
        self._at_line_start = True  # for both files, as they are one place

    def _write(self, name: str, text: str) -> None:
        super()._write(name, text)
        self._rows.add(text)
        self._at_line_start = ends_line(text, self._at_line_start)
        self._last_id = ""

    def _clear(self) -> None:
        self._erase(0)

    def _erase(self, row: int) -> None:
        """Remove what is below the row, or go on below it."""
        erasing = self._rows.erase(row)
        if erasing:
            super()._write("stdout", erasing)
            self._at_line_start = True
        else:
            self._start_line()
        self._last_id = ""

    def _start_line(self) -> None:
        if not self._at_line_start:
            self._write("stdout", "\n")

    def _end_lines(self) -> None:
        for name, stream in self._texts.items():
            self._write_bounded(name, stream.finish())
        self._start_line()

    def _write_display(self, identity: str, text: str) -> None:
        self._end_lines()
        row = self._rows.number
        super()._write_display(identity, text)
        self._last_id, self._last_row = identity, row

    def _update(self, event: Update) -> None:
        is_media = any(mime.startswith(_MEDIA) and not is_for_browsers(mime) for mime in event.data)
        if not event.id or event.id != self._last_id or is_media:
            super()._update(event)
            return
        self._erase(self._last_row)
        text = self._text_of(event.data)
        self._shown[event.id] = text
        self._write_display(event.id, text)

    def _end_last_line(self) -> None:
        self._start_line()


def _size(file: TextFile) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(file.fileno())  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        return 80, 24
    return columns or 80, lines or 24
