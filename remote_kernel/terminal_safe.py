r"""Make text that somebody else has written harmless to show: a remote host's answers, above all.

A terminal obeys what stands between the letters: it would fill the clipboard (OSC 52), change its title, type an answer
into the shell (`\x1b[6n`), or show a line other than it is. Names, paths, versions and error messages get a question
mark in its place (`harmless`); what a kernel or ssh writes to the launcher's stderr keeps its colours besides
(`ByteStream`). `session.plain_text` and `session.terminal_text` do the same for a cell's output.
"""

from __future__ import annotations

import codecs
import io
import re
from functools import cache

# Controls that a cell's output may not hold: those of ASCII but tab and line end, the same again in one character each
# (U+0080 to U+009F, which some terminals obey), and what turns the direction of writing.
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
COLOUR = r"\x1b\[[0-9;:]*m"


@cache
def _unsafe() -> re.Pattern[str]:
    # Besides: line ends by other names; halves of characters, which no stream takes.
    return re.compile(rf"[{CONTROLS}\u2028\u2029\ufeff\ud800-\udfff]")


@cache
def _unsafe_but_colours() -> re.Pattern[str]:
    return re.compile(rf"({COLOUR})|{_unsafe().pattern}")


def harmless(text: str) -> str:
    """Give a text with a question mark for each sign that a terminal might obey. Line ends and tabs stay."""
    return _unsafe().sub("?", text)


def harmless_json(text: str) -> str:
    """Give a JSON text with such signs written out: they are in its strings, and mean the same."""
    return _unsafe().sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class ByteStream:
    """Decode a stream of bytes, and make it harmless: colours stay, and end where its piece does.

    A carriage return becomes a line end. What is not UTF-8 is written out.
    """

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    def feed(self, data: bytes) -> str:
        """Return the text of the next piece."""
        text = self._decoder.decode(data)
        text = _unsafe_but_colours().sub(lambda found: found[1] or "?", text)
        return f"{text}\x1b[0m" if "\x1b" in text else text
