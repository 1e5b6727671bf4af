r"""Let through to a terminal what colours and moves text, and nothing that reaches beyond the text.

A cell's output comes from a remote machine, and from files that the cell prints. The terminal must not be told to fill
the clipboard (OSC 52), to change its title, to type an answer into the shell (`\x1b[6n`), to remove what it has shown
before, or to stay in another mode; nor may the text read in another direction than it is written in.
"""

from __future__ import annotations

import re
from functools import cache

from remote_kernel.session.render.ansi import SEQUENCE, Sequences
from remote_kernel.terminal_safe import COLOUR, CONTROLS


@cache
def _suspect() -> re.Pattern[str]:
    return re.compile(rf"(?![\b\r])[{CONTROLS}]")


@cache
def _filter(moves: bool) -> re.Pattern[str]:
    # A progress bar goes up, and erases what is on and below its lines.
    passes = rf"{COLOUR}|\x1b\[[0-9]*[KABCDEFG]|\x1b\[0?J" if moves else COLOUR
    return re.compile(rf"({passes})|{SEQUENCE}|{_suspect().pattern}")


class TerminalText:
    """One stream on its way to a terminal; pieces pass as they come."""

    __slots__ = ("_coloured", "_moves", "_sequences")

    def __init__(self, *, moves: bool = True) -> None:
        """Make it for one stream; `moves` is false where nothing may be written over but the line itself."""
        self._moves = moves
        self._sequences = Sequences()
        self._coloured = False

    def feed(self, text: str) -> str:
        """Give the piece without what must not pass; an unfinished sequence waits for the next piece."""
        if self._sequences.quiet and not _suspect().search(text):
            return text
        text = self._sequences.whole(text)
        self._coloured = self._coloured or "\x1b[" in text
        return _filter(self._moves).sub(lambda found: found[1] or "", text)

    def finish(self) -> str:
        """Give what ends the colours that the stream may have left switched on."""
        coloured, self._coloured = self._coloured, False
        return "\x1b[0m" if coloured else ""
