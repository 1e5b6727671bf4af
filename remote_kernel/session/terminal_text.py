r"""Let through to a terminal what colours and moves text, and nothing that reaches beyond the text.

A cell's output comes from a remote machine, and from files that the cell prints. The terminal must not be told to fill
the clipboard (OSC 52), to change its title, to type an answer into the shell (`\x1b[6n`), or to stay in another mode.
"""

from __future__ import annotations

import re
from functools import cache

from remote_kernel.session.plain_text import SEQUENCE, Sequences

# The sequences that pass: colours, the cursor's moves, erasing.
_HARMLESS = r"\x1b\[[0-9;:]*[mKJABCDEFGHf]"


@cache
def _suspect() -> re.Pattern[str]:
    # U+0080 to U+009F: the same controls in one character each; some terminals obey them.
    return re.compile(r"[\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f]")


@cache
def _filter() -> re.Pattern[str]:
    return re.compile(rf"({_HARMLESS})|{SEQUENCE}|{_suspect().pattern}")


class TerminalText:
    """One stream on its way to a terminal; pieces pass as they come."""

    __slots__ = ("_coloured", "_sequences")

    def __init__(self) -> None:
        self._sequences = Sequences()
        self._coloured = False

    def feed(self, text: str) -> str:
        """Give the piece without what must not pass; an unfinished sequence waits for the next piece."""
        if self._sequences.quiet and not _suspect().search(text):
            return text
        text = self._sequences.whole(text)
        self._coloured = self._coloured or "\x1b[" in text
        return _filter().sub(lambda found: found[1] or "", text)

    def finish(self) -> str:
        """Give what ends the colours that the stream may have left switched on."""
        coloured, self._coloured = self._coloured, False
        return "\x1b[0m" if coloured else ""
