r"""Apply what text tells a terminal: `\r`, backspace, erasing, the cursor's moves, colours. One stream of a cell each.

`PlainText` is for readers without a terminal: the lines that a terminal would have been left with, without control
sequences, a progress bar as its last state. A line is held back until its line end comes, or the cell's end; a bar of
several lines moves the cursor up, into lines that have been passed on, so from then on a window of lines is held.
`StreamText` is for a notebook: the whole text, overwritten as JupyterLab stores it; colours and moves stay in it.
`TerminalText` is for a terminal: what colours and moves text passes, and nothing that reaches beyond the text.

Text without any of this, which is nearly all text, is only searched for it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from remote_kernel.terminal_safe import COLOUR, CONTROLS

LONGEST = 65536  # characters of a line that are held back; of a longer one, what has come is passed on
WINDOW = 50  # lines that are held back once the cursor has gone up
_SLICE = 1 << 18  # characters that are parsed at a time
_ASCII_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n")

# A sequence of a terminal: CSI; OSC, DCS, SOS, PM or APC with its string; or a short one. No string goes past its
# line: a stray introducer must not swallow the rest of the output.
SEQUENCE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\a\x1b\n]*(?:\a|\x1b\\)?|[ -/]*[0-OQ-WYZ`-~\\])"
_PLACE = r"(?:\x1b\[[0-9;?]*[ -/]*[@-~])*[^\x1b]|\x1b(?:\[[0-9;?]*[ -/]*[@-~])?"  # a character and its colours
_PARTIAL = r"\x1b(?:\[[0-?]{0,256}[ -/]{0,16}|[ -/]{0,16})\Z"
_OPEN_STRING = r"\x1b[\]PX^_][^\a\x1b\n]*\Z"

# A terminal must not be told to fill the clipboard (OSC 52), to change its title, to type an answer into the shell
# (`\x1b[6n`), to remove what it has shown before, or to stay in another mode. A progress bar goes up, and erases what
# is on and below its lines.
_UNSAFE = rf"(?![\b\r])[{CONTROLS}]"
_MOVES = r"\x1b\[[0-9]*[KABCDEFG]|\x1b\[0?J"


def _has_controls(text: str) -> bool:
    if text.isascii():  # at a third of the regular expression's time
        return len(text.encode().translate(None, _ASCII_CONTROLS)) < len(text)
    return re.search(f"[{CONTROLS}]", text) is not None


class SequenceBuffer:
    """Keep the control sequences of a stream whole whose pieces end anywhere."""

    __slots__ = ("_in_string", "_rest")

    def __init__(self) -> None:
        self._rest = ""
        self._in_string = False

    @property
    def is_empty(self) -> bool:
        """True if the next piece begins outside of any sequence."""
        return not self._rest and not self._in_string

    def feed(self, text: str) -> str:
        """Return the text without a sequence that it only begins: that one comes with the next piece.

        A string, such as a window's title, is left out as far as it has come.
        """
        text = self._rest + text
        self._rest = ""
        if self._in_string:
            text = self._after_string(text)
        start = text.rfind("\x1b")
        if start < 0:
            return text
        if re.match(_PARTIAL, text[start:]):
            self._rest = text[start:]
            return text[:start]
        if re.match(_OPEN_STRING, text[start:]):
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
    """One stream as settled lines without control sequences."""

    __slots__ = ("_held", "_held_size", "_passed_on", "_screen", "_sequences")

    def __init__(self) -> None:
        self._sequences = SequenceBuffer()
        self._held: list[str] = []  # the line that has no end yet, while nothing has moved the cursor in it
        self._held_size = 0
        self._passed_on = False  # the beginning of the line that is held
        self._screen: _Screen | None = None

    def feed(self, text: str) -> str:
        """Return what is settled by this piece: whole lines, and what is too long to be held."""
        if self._screen is None and self._sequences.is_empty and not _has_controls(text):
            return self._plain(text)
        return "".join(self._controlled(text[start : start + _SLICE]) for start in range(0, len(text), _SLICE))

    def finish(self) -> str:
        """Return what is held back, without a line end, and begin anew."""
        text = "".join(self._held) if self._screen is None else self._screen.finish()
        self._screen = None
        self._held, self._held_size, self._passed_on = [], 0, False
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
        self._passed_on = False
        return text + self._hold(rest) if rest else text

    def _hold(self, text: str) -> str:
        self._held.append(text)
        self._held_size += len(text)
        if self._held_size <= LONGEST:
            return ""
        text = "".join(self._held)
        self._held, self._held_size, self._passed_on = [], 0, True
        return text

    def _controlled(self, text: str) -> str:
        text = re.sub(COLOUR, "", self._sequences.feed(text))
        text = text.replace("\r\n", "\n")
        if self._screen is None:
            if not _has_controls(text):
                return self._plain(text)
            self._screen = _Screen("".join(self._held), self._passed_on)
            self._held, self._held_size = [], 0
        settled = self._screen.feed(text)
        if self._screen.is_settled:
            self._passed_on = self._screen.passed_on
            settled += self._hold(self._screen.finish())
            self._screen = None
        return settled


def strip(text: str) -> str:
    """Return what PlainText leaves of a text that is complete."""
    if not _has_controls(text):
        return text
    plain = PlainText()
    return plain.feed(text) + plain.finish()


class _Screen:
    """The lines that are held back, and the cursor in them."""

    __slots__ = ("_column", "_row", "_rows", "_settled", "_since_up", "passed_on")

    def __init__(self, line: str, passed_on: bool) -> None:
        self._rows: list[list[str] | None] = [list(line)]  # None: a line above those held, not written since
        self._row = 0
        self._column = len(line)
        self._since_up = WINDOW + 1  # lines since the cursor last went up; beyond WINDOW one line is held
        self._settled: list[str] = []
        self.passed_on = passed_on

    @property
    def is_settled(self) -> bool:
        """True if it holds one line with the cursor at its end."""
        return len(self._rows) == 1 and self._column == len(self._rows[0] or ())

    def feed(self, text: str) -> str:
        pieces = re.split(rf"({SEQUENCE}|[{CONTROLS}])", text)
        self._write(pieces[0])
        for number in range(1, len(pieces), 2):
            self._control(pieces[number])
            if pieces[number + 1]:
                self._write(pieces[number + 1])
        return self._take()

    def finish(self) -> str:
        rows, self._rows = self._rows, [[]]
        self._settled.append("\n".join(_text(row) for row in rows if row is not None))
        return self._take()

    def _take(self) -> str:
        settled, self._settled = "".join(self._settled), []
        return settled

    def _write(self, text: str) -> None:
        if "\n" not in text:
            self._put(text)
            return
        first, *middle, last = text.split("\n")
        self._put(first)
        self._line_end()
        for line in middle:
            if len(self._rows) == 1 and self._since_up > WINDOW:
                self._settled += (line, "\n")
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
        self._column = _overwrite(row, self._column, text)
        if len(row) > LONGEST:
            self._pass_on()

    def _pass_on(self) -> None:
        """Pass on a line that is too long to be held, with those above it."""
        below = self._rows[self._row + 1 :]
        self._settled.append("\n".join("".join(row) for row in self._rows[: self._row + 1] if row is not None))
        self._rows = [[], *below]
        self._row = self._column = 0
        self.passed_on = True

    def _line_end(self) -> None:
        self._row += 1
        self._column = 0
        if self._row < len(self._rows):
            return
        self._rows.append([])
        self._since_up += 1
        self.passed_on = False
        spare = len(self._rows) - (1 if self._since_up > WINDOW else WINDOW)
        if spare > 0:
            self._settled += (_text(row) + "\n" for row in self._rows[:spare] if row is not None)
            del self._rows[:spare]
            self._row -= spare

    def _control(self, control: str) -> None:
        if control == "\r":
            if self.passed_on:
                self._settled.append("\n")
                self.passed_on = False
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
        _erase(row, self._column, part)


class StreamText:
    """One stream as a notebook's output, in pieces: `settled` ones that no longer change, and the line that may.

    Colours belong to the character that they stand before. Appending is linear in the text: only a line that is
    overwritten is looked at again.
    """

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
        """Take the next text."""
        if self._cursor is None and "\r" not in text and "\x08" not in text:
            self._fresh.append(text)
            self._fresh_characters += len(text)
            if self._fresh_characters > LONGEST:
                self._settle()
        else:
            self._overwrite(text.replace("\r\n", "\n"))

    def _settle(self) -> None:
        text = "".join(self._fresh)
        end = text.rfind("\n") + 1
        if len(text) - end > LONGEST:
            end = len(text)
        at = 0
        while at < end:  # in pieces of whole lines
            stop = end if end - at <= 2 * LONGEST else text.rfind("\n", at, at + LONGEST) + 1
            stop = stop or at + LONGEST
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
            line, _ = _overwrite_line(line, cursor, part)
            lines.append(line + "\n")
            line, cursor = "", None
        line, cursor = _overwrite_line(line, cursor, last)
        self._fresh = [*lines, line]
        self._fresh_characters = sum(map(len, self._fresh))
        self._cursor = cursor
        if self._fresh_characters > LONGEST:
            self._settle()
            if not self._fresh_characters:
                self._cursor = None

    def cut(self, characters: int) -> StreamText:
        """Keep about as many characters only, the first, and return the rest with the line that may change."""
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
        """Remove and return the first piece; empty when only the line that may change is left."""
        if not self._settled:
            return ""
        piece = self._settled.popleft()
        self._settled_characters -= len(piece)
        return piece


class TerminalText:
    """One stream on its way to a terminal; its pieces pass as they come, without what is not safe there."""

    __slots__ = ("_coloured", "_filter", "_sequences")

    def __init__(self, *, moves: bool = True) -> None:
        """Pass the cursor's moves too, unless nothing may be written over but the line itself."""
        self._filter = rf"({COLOUR}{'|' + _MOVES if moves else ''})|{SEQUENCE}|{_UNSAFE}"
        self._sequences = SequenceBuffer()
        self._coloured = False

    def feed(self, text: str) -> str:
        """Return what may pass of this piece; an unfinished sequence waits for the next piece."""
        if self._sequences.is_empty and not re.search(_UNSAFE, text):
            return text
        text = self._sequences.feed(text)
        self._coloured = self._coloured or "\x1b[" in text
        return re.sub(self._filter, lambda found: found[1] or "", text)

    def finish(self) -> str:
        """Return what ends the colours that the stream may have left switched on."""
        coloured, self._coloured = self._coloured, False
        return "\x1b[0m" if coloured else ""


def _overwrite_line(line: str, cursor: int | None, text: str) -> tuple[str, int | None]:
    """Write text without line ends over a line from a place on; return the line and the place, None for its end."""
    if cursor is None and "\r" not in text and "\x08" not in text:
        return line + text, None
    places = _split(line)
    at = len(places) if cursor is None else cursor
    for part in re.split(r"(\r|\x08|\x1b\[[02]?K)", text):
        if part == "\r":
            at = 0
        elif part == "\x08":
            at = max(0, at - 1)
        elif part.endswith("K") and part.startswith("\x1b["):
            _erase(places, at, 2 if "2" in part else 0)
        elif part:
            at = _overwrite(places, at, _split(part))
    return "".join(places), None if at == len(places) else at


def _split(line: str) -> list[str]:
    return re.findall(_PLACE, line) if "\x1b" in line else list(line)


def _overwrite(row: list[str], column: int, places: Sequence[str]) -> int:
    """Write over a row from a column on, and return where the cursor is then."""
    if column > len(row):
        row += " " * (column - len(row))
    end = column + len(places)
    row[column:end] = places
    return end


def _erase(row: list[str], column: int, part: int) -> None:
    """Erase to the row's end (0), from its begin (1), or all of it (2), as `\x1b[K` does."""
    if part == 0:
        del row[column:]
    elif part == 1:
        row[: column + 1] = " " * min(len(row), column + 1)
    else:
        row.clear()


def _text(row: list[str] | None) -> str:
    return "".join(row or ()).rstrip(" ")
