"""Keep what a cell wrote on one stream as a notebook shows it: a progress bar is its last state.

A carriage return goes back to the line's beginning and a backspace one place, and what comes then overwrites, as on
paper; JupyterLab stores its outputs so too. Colours stay, and belong to the character that they stand before.
Appending is linear in the text: only a line that is overwritten is looked at again.
"""

from __future__ import annotations

import re
from collections import deque

PIECE_CHARACTERS = 64 << 10  # settled text is cut into such pieces, and a longer line counts as settled

_MOVES = re.compile(r"(\r|\x08|\x1b\[[02]?K)")
_PLACES = re.compile(r"(?:\x1b\[[0-9;?]*[ -/]*[@-~])*[^\x1b]|\x1b(?:\[[0-9;?]*[ -/]*[@-~])?")


class StreamText:
    """One stream output's text, in pieces: `settled` ones that no longer change, and the line that may."""

    __slots__ = ("_cursor", "_fresh", "_fresh_characters", "_settled", "_settled_characters")

    def __init__(self) -> None:
        self._settled: deque[str] = deque()
        self._settled_characters = 0
        self._fresh: list[str] = []  # the line that may be overwritten, and perhaps lines before it
        self._fresh_characters = 0
        self._cursor: int | None = None  # the place in that line, None at its end

    def __len__(self) -> int:
        return self._settled_characters + self._fresh_characters

    def __str__(self) -> str:
        return "".join((*self._settled, *self._fresh))

    def append(self, text: str) -> None:
        """Write on."""
        if self._cursor is None and "\r" not in text and "\x08" not in text:
            self._fresh.append(text)
            self._fresh_characters += len(text)
            if self._fresh_characters > PIECE_CHARACTERS:
                self._settle()
        else:
            self._overwrite(text.replace("\r\n", "\n"))

    def _settle(self) -> None:
        text = "".join(self._fresh)
        end = text.rfind("\n") + 1
        if len(text) - end > PIECE_CHARACTERS:
            end = len(text)
        at = 0
        while at < end:  # in pieces of whole lines
            stop = end if end - at <= 2 * PIECE_CHARACTERS else text.rfind("\n", at, at + PIECE_CHARACTERS) + 1
            stop = stop or at + PIECE_CHARACTERS
            self._settled.append(text[at:stop])
            at = stop
        self._settled_characters += end
        self._fresh = [text[end:]]
        self._fresh_characters = len(text) - end

    def _overwrite(self, text: str) -> None:
        before, line_end, line = "".join(self._fresh).rpartition("\n")
        *ended, last = text.split("\n")
        lines = [before + line_end] if line_end else []
        cursor = self._cursor
        for part in ended:
            line, _ = _type(line, cursor, part)
            lines.append(line + "\n")
            line, cursor = "", None
        line, cursor = _type(line, cursor, last)
        self._fresh = [*lines, line]
        self._fresh_characters = sum(map(len, self._fresh))
        self._cursor = cursor
        if self._fresh_characters > PIECE_CHARACTERS:
            self._settle()
            if not self._fresh_characters:
                self._cursor = None

    def cut(self, characters: int) -> StreamText:
        """Keep the first characters only, about as many, and give the rest, with the line that may change."""
        rest = StreamText()
        rest._fresh, rest._fresh_characters, rest._cursor = self._fresh, self._fresh_characters, self._cursor
        self._fresh, self._fresh_characters, self._cursor = [], 0, None
        while self._settled and self._settled_characters > characters:
            piece = self._settled.pop()
            self._settled_characters -= len(piece)
            rest._settled.appendleft(piece)
            rest._settled_characters += len(piece)
        return rest

    def drop_piece(self) -> str:
        """Take the first piece away and give it; empty when only the line that may change is left."""
        if not self._settled:
            return ""
        piece = self._settled.popleft()
        self._settled_characters -= len(piece)
        return piece


def _type(line: str, cursor: int | None, text: str) -> tuple[str, int | None]:
    """Write text without line ends over a line from a place on; give the line and the place, None for its end."""
    if cursor is None and "\r" not in text and "\x08" not in text:
        return line + text, None
    places = _split(line)
    at = len(places) if cursor is None else cursor
    for part in _MOVES.split(text):
        if part == "\r":
            at = 0
        elif part == "\x08":
            at = max(0, at - 1)
        elif part.endswith("K") and part.startswith("\x1b["):
            places = [" "] * at if "2" in part else places[:at]
        elif part:
            fresh = _split(part)
            places[at : at + len(fresh)] = fresh
            at += len(fresh)
    return "".join(places), None if at == len(places) else at


def _split(line: str) -> list[str]:
    return _PLACES.findall(line) if "\x1b" in line else list(line)
