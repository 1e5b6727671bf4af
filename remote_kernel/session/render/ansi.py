r"""Apply what text tells a terminal: `\r`, backspace, erasing, the cursor's moves, colours. One stream of a cell each.

`PlainText` is for readers without a terminal: the lines that a terminal would have been left with, without control
sequences, a progress bar as its last state. A line is held back until its line end comes, or the cell's end; a bar of
several lines moves the cursor up, into lines that have been passed on, so from then on a window of lines is held.
`StreamText` is for a notebook: the same, but the whole text, and colours stay in it.
`TerminalText` is for a terminal: what colours and moves text passes, and nothing that reaches beyond the text.

Text without any of this, which is nearly all text, is only searched for it.
"""

from __future__ import annotations

import re
from collections import deque

from remote_kernel.terminal_safe import COLOUR, CONTROLS

LONGEST = 65536  # characters of a line that are held back; of a longer one, what has come is passed on
WINDOW = 50  # lines that are held back once the cursor has gone up
_SLICE = 1 << 18  # characters that are parsed at a time
_ASCII_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n")

# A sequence of a terminal: CSI; OSC, DCS, SOS, PM or APC with its string; or a short one. No string goes past its
# line: a stray introducer must not swallow the rest of the output.
SEQUENCE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\a\x1b\n]*(?:\a|\x1b\\)?|[ -/]*[0-OQ-WYZ`-~\\])"
_CSI = r"\x1b\[[0-9;?]*[ -/]*[@-~]"
_PLACE = rf"(?:{_CSI})*[^\x1b]|{_CSI}|\x1b"  # a character, colours before it
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
    """One stream as the settled lines that a terminal would be left with, without control sequences."""

    __slots__ = ("_column", "_is_cut", "_row", "_rows", "_sequences", "_settled", "_since_up")

    def __init__(self) -> None:
        self._sequences = SequenceBuffer()
        self._settled: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._rows: list[str | None] = [""]  # None: a line above those held, not written since
        self._row = 0
        self._column: int | None = None  # None: at the row's end
        self._since_up = WINDOW + 1  # lines since the cursor last went up; beyond WINDOW one line is held
        self._is_cut = False  # the beginning of the line that is held is passed on

    def feed(self, text: str) -> str:
        """Return what is settled by this piece: whole lines, and what is too long to be held."""
        if self._sequences.is_empty and not _has_controls(text):
            self._write(text)
        else:
            for start in range(0, len(text), _SLICE):
                piece = re.sub(COLOUR, "", self._sequences.feed(text[start : start + _SLICE]))
                self._obey(re.split(rf"({SEQUENCE}|[{CONTROLS}])", piece.replace("\r\n", "\n")))
        return self._take()

    def finish(self) -> str:
        """Return what is held back, without a line end, and begin anew."""
        held = self.held
        self._begin()
        return held

    @property
    def held(self) -> str:
        """Return the lines that may change yet, the last of them without its end."""
        if len(self._rows) == 1:
            return self._rows[0] or ""
        return "\n".join(_without_padding(row) for row in self._rows if row is not None)

    def _take(self) -> str:
        settled, self._settled = self._settled, []
        return "".join(settled)

    def _obey(self, parts: list[str]) -> None:
        """Add text and, between its parts, controls."""
        self._write(parts[0])
        for number in range(1, len(parts), 2):
            self._control(parts[number])
            self._write(parts[number + 1])

    def _write(self, text: str) -> None:
        if self._column is not None or len(self._rows) > 1:
            first, *rest = text.split("\n")
            self._put(first)
            for line in rest:
                self._end_line()
                self._put(line)
            return
        line = (self._rows[0] or "") + text
        if end := text.rfind("\n") + 1:  # nothing can change those lines any longer
            end += len(line) - len(text)
            self._settled.append(line[:end])
            self._since_up, self._is_cut = WINDOW + 1, False
            line = line[end:]
        self._rows[0] = line
        if len(line) > LONGEST:
            self._cut()

    def _put(self, text: str) -> None:
        if not text:
            return
        row = self._rows[self._row] or ""
        if self._column is None:
            row += text
        else:
            before, _ = _split(row, self._column)
            before += " " * (self._column - _width(before))
            self._column += _width(text)
            _, after = _split(row, self._column)
            row = before + text + after
            if not after:
                self._column = None
        self._rows[self._row] = row
        if len(row) > LONGEST:
            self._cut()

    def _cut(self) -> None:
        """Pass on a line that is too long to be held, with those above it."""
        self._settled.append("\n".join(row for row in self._rows[: self._row + 1] if row is not None))
        self._rows = ["", *self._rows[self._row + 1 :]]
        self._row, self._column, self._is_cut = 0, None, True

    def _end_line(self) -> None:
        self._row += 1
        self._column = 0
        if self._row < len(self._rows):
            return
        self._rows.append("")
        self._column = None
        self._since_up += 1
        self._is_cut = False
        spare = len(self._rows) - (1 if self._since_up > WINDOW else WINDOW)
        if spare > 0:
            self._settled += (_without_padding(row) + "\n" for row in self._rows[:spare] if row is not None)
            del self._rows[:spare]
            self._row -= spare

    def _control(self, control: str) -> None:
        column = _width(self._rows[self._row] or "") if self._column is None else self._column
        if control == "\r":
            if self._is_cut:
                self._settled.append("\n")
                self._is_cut = False
            self._column = 0
        elif control == "\b":
            self._column = max(0, column - 1)
        elif control.startswith("\x1b["):
            self._move(control, column)

    def _move(self, control: str, column: int) -> None:
        final, argument = control[-1], control[2:-1].split(";")[0]
        count = int(argument) if argument.isdecimal() and len(argument) < 6 else 0
        steps = max(1, count)
        if final in "AF":
            self._go_up(min(steps, WINDOW - 1))
        elif final in "BE":
            self._row = min(self._row + steps, len(self._rows) - 1)
        elif final == "C":
            column = min(column + steps, LONGEST)
        elif final == "D":
            column = max(0, column - steps)
        elif final == "G":
            column = min(steps - 1, LONGEST)
        elif final in "KJ":
            self._erase(column, count)
            if final == "J":
                del self._rows[self._row + 1 :]
        else:
            return
        self._column = 0 if final in "EF" else column

    def _go_up(self, steps: int) -> None:
        self._since_up = 0
        self._row -= steps
        if self._row < 0:  # no further than the window, as a terminal stops at its top
            self._rows[:0] = [None] * min(-self._row, WINDOW - len(self._rows))
            self._row = 0

    def _erase(self, column: int, part: int) -> None:
        """Erase from the cursor to the row's end (0), from its begin (1), or all of it (2)."""
        row = self._rows[self._row] or ""
        if part == 0:
            row = _split(row, column)[0]
        else:
            row = " " * (column + 1) + _split(row, column + 1)[1] if part == 1 else ""
        self._rows[self._row] = row


def _split(row: str, column: int) -> tuple[str, str]:
    """Return what is before and from a column on; colours are with the character that they stand before."""
    if "\x1b" not in row:
        return row[:column], row[column:]
    places = re.findall(_PLACE, row)
    after = "".join(places[column:])
    return "".join(places[:column]), after if _width(after) else ""


def _width(text: str) -> int:
    return len(re.sub(_CSI, "", text)) if "\x1b" in text else len(text)


def _without_padding(row: str | None) -> str:
    return (row or "").rstrip(" ")


def strip(text: str) -> str:
    """Return what PlainText leaves of a text that is complete."""
    if not _has_controls(text):
        return text
    plain = PlainText()
    return plain.feed(text) + plain.finish()


class _ColouredText(PlainText):
    """One stream in which all stays that neither moves the cursor nor erases: colours above all."""

    __slots__ = ("_colours",)

    def __init__(self) -> None:
        super().__init__()
        self._colours = ""  # those that the last piece ended with: they belong to the next character

    def feed(self, text: str) -> str:
        text = self._colours + text
        self._colours = ""
        if "\r" in text or "\b" in text or "\x1b" in text:
            if found := re.search(rf"(?:{COLOUR})+\Z", text):
                text, self._colours = text[: found.start()], found[0]
            self._obey(re.split(r"(\r|\x08|\x1b\[[0-9;]*[A-GJK])", text.replace("\r\n", "\n")))
        else:
            self._write(text)
        return self._take()

    @property
    def held(self) -> str:
        return super().held + self._colours


class StreamText:
    """One stream as a notebook's output: `settled` pieces that no longer change, and the lines that may.

    Appending is linear in the text: only lines that are overwritten are looked at again.
    """

    __slots__ = ("_fresh", "_fresh_characters", "_lines", "_settled", "_settled_characters")

    def __init__(self) -> None:
        self._settled: deque[str] = deque()
        self._settled_characters = 0
        self._fresh: list[str] = []  # what is settled and not yet in a piece
        self._fresh_characters = 0
        self._lines = _ColouredText()

    def __len__(self) -> int:
        return self._settled_characters + self._fresh_characters + len(self._lines.held)

    def __str__(self) -> str:
        return "".join((*self._settled, *self._fresh, self._lines.held))

    def append(self, text: str) -> None:
        """Add the next text."""
        if settled := self._lines.feed(text):
            self._fresh.append(settled)
            self._fresh_characters += len(settled)
            if self._fresh_characters > LONGEST:
                self._settle()

    def _settle(self) -> None:
        """Make pieces of whole lines, about LONGEST each."""
        text, at = "".join(self._fresh), 0
        while at < len(text):
            stop = len(text) if len(text) - at <= 2 * LONGEST else text.rfind("\n", at, at + LONGEST) + 1
            stop = stop or at + LONGEST
            self._settled.append(text[at:stop])
            at = stop
        self._settled_characters += len(text)
        self._fresh, self._fresh_characters = [], 0

    def cut(self, characters: int) -> StreamText:
        """Keep about as many characters only, the first, and return the rest with the lines that may change."""
        rest = StreamText()
        rest._fresh, rest._fresh_characters, rest._lines = self._fresh, self._fresh_characters, self._lines
        self._fresh, self._fresh_characters, self._lines = [], 0, _ColouredText()
        while self._settled and self._settled_characters > characters:
            piece = self._settled.pop()
            self._settled_characters -= len(piece)
            rest._settled.appendleft(piece)
            rest._settled_characters += len(piece)
        return rest

    def drop_piece(self) -> str:
        """Remove and return the first piece; empty when only what may change, or is short, is left."""
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
