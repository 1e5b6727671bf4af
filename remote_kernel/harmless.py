r"""Make text that somebody else has written harmless to show: a remote host's answers, above all.

A terminal obeys what stands between the letters: it would fill the clipboard (OSC 52), change its title, type an answer
into the shell (`\x1b[6n`), or show a line other than it is. `session.terminal_text` lets the colours of a kernel's
output through; names, paths, versions and error messages need none.
"""

from __future__ import annotations

import re
from functools import cache


@cache
def _unsafe() -> re.Pattern[str]:
    # Control characters, U+0080 to U+009F too, which some terminals obey; what turns the direction of writing; line
    # ends by other names; halves of characters, which no stream takes.
    return re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def harmless(text: str) -> str:
    """Give a text with a question mark for each sign that a terminal might obey. Line ends and tabs stay."""
    return _unsafe().sub("?", text)


def harmless_json(text: str) -> str:
    """Give a JSON text with such signs written out: they are in its strings, and mean the same."""
    return _unsafe().sub(lambda found: f"\\u{ord(found[0]):04x}", text)
