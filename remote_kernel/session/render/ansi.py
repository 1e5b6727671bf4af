r"""Turn what was meant for a terminal into the lines that a terminal would have been left with.

A stream that is no terminal gets no control sequences, and of a progress bar only the last state: `\r`, `\b` and the
cursor's moves are applied to a line that is held back until its line end comes, or the cell's end. A bar of several
lines moves the cursor up, into lines that have been given away; from then on a window of lines is held.

What else a terminal may obey, or what turns the direction of writing, is left out: whoever reads the lines may be at a
terminal. Text without any of this, which is nearly all text, is only searched for it.
"""

from __future__ import annotations

import re
from functools import cache

from remote_kernel.terminal_safe import COLOUR, CONTROLS

LONGEST = 65536  # characters of a line that are held back; of a longer one, what has come is given away
WINDOW = 50  # lines that are held back once the cursor has gone up
_SLICE = 1 << 18  # characters that are taken apart at a time
_ASCII_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n")

# A sequence of a terminal: CSI; OSC, DCS, SOS, PM or APC with its string; or a short one. No string goes past its
# line: a stray introducer must not swallow the rest of the output.
SEQUENCE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\a\x1b\n]*(?:\a|\x1b\\)?|[ -/]*[0-OQ-WYZ`-~\\])"


@cache
def _colour() -> re.Pattern[str]:
    return re.compile(COLOUR)


@cache
def _token() -> re.Pattern[str]:
    return re.compile(rf"({SEQUENCE}|[{CONTROLS}])")


@cache
def _control() -> re.Pattern[str]:
    return re.compile(f"[{CONTROLS}]")


@cache
def _partial() -> re.Pattern[str]:
    return re.compile(r"\x1b(?:\[[0-?]{0,256}[ -/]{0,16}|[ -/]{0,16})\Z")


@cache
def _open_string() -> re.Pattern[str]:
    return re.compile(r"\x1b[\]PX^_][^\a\x1b\n]*\Z")


def _has_controls(text: str) -> bool:
    if text.isascii():  # at a third of the regular expression's time
        return len(text.encode().translate(None, _ASCII_CONTROLS)) < len(text)
    return _control().search(text) is not None


class Sequences:
    """Keeps the control sequences of a stream whole whose pieces end anywhere."""

    __slots__ = ("_in_string", "_rest")

    def __init__(self) -> None:
        self._rest = ""
        self._in_string = False

    @property
    def quiet(self) -> bool:
        """Tell whether the next piece begins outside of any sequence."""
        return not self._rest and not self._in_string

    def whole(self, text: str) -> str:
        """Give the text without a sequence that it only begins: that one comes with the next piece.

        A string, such as a window's title, is left out as far as it has come.
        """
        text = self._rest + text
        self._rest = ""
        if self._in_string:
            text = self._after_string(text)
        start = text.rfind("\x1b")
        if start < 0:
            return text
        if _partial().match(text, start):
            self._rest = text[start:]
            return text[:start]
        if _open_string().match(text, start):
            self._in_string = True
            return text[:start]
        return text

    def _after_string(self, text: str) -> str:
        ends = [place for place in map(text.find, "\a\x1b\n") if place >= 0]
        if not ends:
            return ""
        self._in_string = False
        end = min(ends)
        return text[end + 1 :] if text[end] == "\a" else text[end:]


class PlainText:
    """One stream: feed() takes its pieces and gives lines; finish() gives what is held back."""

    __slots__ = ("_held", "_held_size", "_screen", "_sequences", "_spilled")

    def __init__(self) -> None:
        self._sequences = Sequences()
        self._held: list[str] = []  # the line that has no end yet, while nothing has moved the cursor in it
        self._held_size = 0
        self._spilled = False  # the line's beginning has been given away
        self._screen: _Screen | None = None

    def feed(self, text: str) -> str:
        """Give what is settled by this piece: whole lines, and what is too long to be held."""
        if self._screen is None and self._sequences.quiet and not _has_controls(text):
            return self._plain(text)
        given = []
        for start in range(0, len(text), _SLICE):
            given.append(self._controlled(text[start : start + _SLICE]))
        return "".join(given)

    def finish(self) -> str:
        """Give what is held back, without a line end, and begin anew."""
        text = "".join(self._held) if self._screen is None else self._screen.finish()
        self._screen = None
        self._held, self._held_size, self._spilled = [], 0, False
        return text

    def _plain(self, text: str) -> str:
        end = text.rfind("\n") + 1
        if not end:
            return self._hold(text)
        rest = text[end:]
        if rest:
            text = text[:end]
        if self._held:
            text = "".join((*self._held, text))
            self._held, self._held_size = [], 0
        self._spilled = False
        return text + self._hold(rest) if rest else text

    def _hold(self, text: str) -> str:
        self._held.append(text)
        self._held_size += len(text)
        if self._held_size <= LONGEST:
            return ""
        text = "".join(self._held)
        self._held, self._held_size, self._spilled = [], 0, True
        return text

    def _controlled(self, text: str) -> str:
        text = _colour().sub("", self._sequences.whole(text))
        if "\r\n" in text:
            text = text.replace("\r\n", "\n")
        if self._screen is None:
            if not _has_controls(text):
                return self._plain(text)
            self._screen = _Screen("".join(self._held), self._spilled)
            self._held, self._held_size = [], 0
        given = self._screen.feed(text)
        if self._screen.is_settled:
            self._spilled = self._screen.spilled
            given += self._hold(self._screen.finish())
            self._screen = None
        return given


def strip(text: str) -> str:
    """Give what PlainText leaves of a text that is complete."""
    if not _has_controls(text):
        return text
    plain = PlainText()
    return plain.feed(text) + plain.finish()


class _Screen:
    """The lines that are held back, and the cursor in them."""

    __slots__ = ("_column", "_given", "_row", "_rows", "_since_up", "spilled")

    def __init__(self, line: str, spilled: bool) -> None:
        self._rows: list[list[str] | None] = [list(line)]  # None: a line above those held, not written since
        self._row = 0
        self._column = len(line)
        self._since_up = WINDOW + 1  # lines since the cursor last went up; beyond WINDOW one line is held
        self._given: list[str] = []
        self.spilled = spilled

    @property
    def is_settled(self) -> bool:
        """Tell whether it holds one line with the cursor at its end."""
        return len(self._rows) == 1 and self._column == len(self._rows[0] or ())

    def feed(self, text: str) -> str:
        pieces = _token().split(text)
        self._write(pieces[0])
        for number in range(1, len(pieces), 2):
            self._control(pieces[number])
            if pieces[number + 1]:
                self._write(pieces[number + 1])
        return self._take()

    def finish(self) -> str:
        rows, self._rows = self._rows, [[]]
        self._given.append("\n".join(_text(row) for row in rows if row is not None))
        return self._take()

    def _take(self) -> str:
        given, self._given = "".join(self._given), []
        return given

    def _write(self, text: str) -> None:
        if "\n" not in text:
            self._put(text)
            return
        first, *middle, last = text.split("\n")
        self._put(first)
        self._line_end()
        for line in middle:
            if len(self._rows) == 1 and self._since_up > WINDOW:
                self._given += (line, "\n")
            else:
                self._put(line)
                self._line_end()
        self._put(last)

    def _put(self, text: str) -> None:
        if not text:
            return
        row = self._rows[self._row]
        if row is None:
            row = self._rows[self._row] = []
        if self._column > len(row):
            row += " " * (self._column - len(row))
        row[self._column : self._column + len(text)] = text
        self._column += len(text)
        if len(row) > LONGEST:
            self._given_away()

    def _given_away(self) -> None:
        """Give a line away that is too long to be held, with those above it."""
        below = self._rows[self._row + 1 :]
        self._given.append("\n".join("".join(row) for row in self._rows[: self._row + 1] if row is not None))
        self._rows = [[], *below]
        self._row = self._column = 0
        self.spilled = True

    def _line_end(self) -> None:
        self._row += 1
        self._column = 0
        if self._row < len(self._rows):
            return
        self._rows.append([])
        self._since_up += 1
        self.spilled = False
        spare = len(self._rows) - (1 if self._since_up > WINDOW else WINDOW)
        if spare > 0:
            self._given += (_text(row) + "\n" for row in self._rows[:spare] if row is not None)
            del self._rows[:spare]
            self._row -= spare

    def _control(self, control: str) -> None:
        if control == "\r":
            if self.spilled:
                self._given.append("\n")
                self.spilled = False
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)
        elif control.startswith("\x1b["):
            self._move(control)

    def _move(self, control: str) -> None:
        final, argument = control[-1], control[2:-1].split(";")[0]
        count = int(argument) if argument.isdecimal() and len(argument) < 6 else 0
        steps = max(1, count)
        if final in "AF":
            self._up(min(steps, WINDOW - 1))
        elif final in "BE":
            self._row = min(self._row + steps, len(self._rows) - 1)
        elif final == "C":
            self._column = min(self._column + steps, LONGEST)
        elif final == "D":
            self._column = max(0, self._column - steps)
        elif final == "G":
            self._column = min(steps - 1, LONGEST)
        elif final == "K":
            self._erase(count)
        elif final == "J":
            self._erase(count)
            del self._rows[self._row + 1 :]
        if final in "EF":
            self._column = 0

    def _up(self, steps: int) -> None:
        self._since_up = 0
        self._row -= steps
        if self._row < 0:  # no further than the window, as a terminal stops at its top
            self._rows[:0] = [None] * min(-self._row, WINDOW - len(self._rows))
            self._row = 0

    def _erase(self, part: int) -> None:
        row = self._rows[self._row]
        if row is None:
            row = self._rows[self._row] = []
        if part == 0:
            del row[self._column :]
        elif part == 1:
            row[: self._column + 1] = " " * min(len(row), self._column + 1)
        else:
            row.clear()


def _text(row: list[str] | None) -> str:
    return "".join(row or ()).rstrip(" ")
