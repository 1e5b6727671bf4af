r"""Make foreign text safe for a terminal: the answers of a remote host, above all.

A terminal obeys control sequences: it would fill the clipboard (OSC 52), change its title, type an answer into the
shell (`\x1b[6n`), or show a line other than it is. In names, paths, versions and error messages a question mark takes
the place of each control character (`terminal_safe`); what a kernel or ssh writes to the launcher's stderr keeps its
colours (`ByteStream`). For a cell's output see `session.render.ansi`.
"""

from __future__ import annotations

import codecs
import io
import re

# Controls that a cell's output may not hold: those of ASCII but tab and line end, those of C1 (U+0080 to U+009F, which
# some terminals obey), and those of bidirectional text.
CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
COLOUR = r"\x1b\[[0-9;:]*m"


# Besides: line ends by other names; halves of characters, which no stream takes.
_UNSAFE = rf"[{CONTROLS}\u2028\u2029\ufeff\ud800-\udfff]"


def terminal_safe(text: str) -> str:
    """Return the text with a question mark for each character that a terminal might obey; line ends and tabs stay."""
    return re.sub(_UNSAFE, "?", text)


def terminal_safe_json(text: str) -> str:
    """Return the JSON text with such characters escaped: they are in its strings, and mean the same."""
    return re.sub(_UNSAFE, lambda found: f"\\u{ord(found[0]):04x}", text)


class ByteStream:
    """Decode a stream of bytes to text that is safe for a terminal: colours stay, and end where their piece does.

    A carriage return becomes a line end. What is not UTF-8 is escaped.
    """

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    def feed(self, data: bytes) -> str:
        """Return the text of the next piece."""
        text = self._decoder.decode(data)
        text = re.sub(f"({COLOUR})|{_UNSAFE}", lambda found: found[1] or "?", text)
        return f"{text}\x1b[0m" if "\x1b" in text else text
