"""Split a kernel's long text while it is still JSON: 50 MB that a cell has printed come as one message.

In pieces it reaches the reader while the rest is still on its way to the journal and the notebook. No piece is larger
than what a processor keeps at hand: decoding 50 MB at once takes two and a half times as long as in pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

PIECE_BYTES = 1 << 18
LONG_BYTES = 2 * PIECE_BYTES  # from here on a text is long

_HEAD = re.compile(rb'\{\s*"name"\s*:\s*"\w+"\s*,\s*"text"\s*:\s*"')
_END = b'"}'


def is_long(raw: bytes | memoryview) -> bool:
    """True if a stream message's content, as JSON text, is to be split."""
    return len(raw) >= LONG_BYTES and bytes(raw[-2:]) == _END and _HEAD.match(raw) is not None


def pieces(raw: bytes | memoryview) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Yield contents, each as JSON text and decoded, whose texts together are that of this long one.

    Raises ValueError where it is no JSON.
    """
    head = _HEAD.match(raw)
    assert head
    beginning, at, end, given = bytes(head[0]), head.end(), len(raw) - len(_END), 0
    while at < end:
        text = bytes(raw[at : min(end, at + PIECE_BYTES)])
        if at + len(text) < end:
            text = _whole(text)
        piece = b"".join((beginning, text, _END))
        try:
            content = json.loads(piece)
        except ValueError:  # a quote: the text has ended before, and other fields follow
            whole = json.loads(bytes(raw))
            content = {"name": str(whole["name"]), "text": str(whole["text"])[given:]}
            yield json.dumps(content).encode(), content
            return
        yield piece, content
        given += len(content["text"])
        at += len(text)


def _whole(text: bytes) -> bytes:
    """Return the text without a character or an escape sequence at its end that it may only begin.

    JSON writes a character as up to twelve bytes: two escapes of six, the halves of a surrogate pair.
    """
    lead = next((back for back in range(1, 5) if text[-back] & 0xC0 != 0x80), 1)
    if text[-lead] >= 0xC0:
        return text[:-lead]
    return _whole_escape(_whole_escape(text))  # what stands before an unfinished one may be the first half of a pair


def _whole_escape(text: bytes) -> bytes:
    slash = text.rfind(b"\\", len(text) - 6)
    if slash < 0 or (slash + 1 - len(text[: slash + 1].rstrip(b"\\"))) % 2 == 0:
        return text
    length = 6 if text[slash + 1 : slash + 2] == b"u" else 2
    is_half = text[slash : slash + 4].lower() in (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb")
    return text[:slash] if is_half or slash + length > len(text) else text
