"""Read code as Python reads a source file: UTF-8, or what its first lines declare (PEP 263), and nothing guessed.

What is no text is refused here, before anything is sent: half a character (U+D800 to U+DFFF, as Python has them for
bytes that it cannot decode) ends IPython's history thread.
"""

from __future__ import annotations

import codecs

from remote_kernel.errors import UsageError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's little-endian mark begins with the first, too


def decode_source(data: bytes, name: str) -> str:
    """Return the text of a file with code, without a byte order mark; `name` is for the error. Raises UsageError."""
    if data.startswith(_WIDE):
        raise UsageError(f"{name} is UTF-16", "save it as UTF-8, as Python wants it")
    encoding = "utf-8-sig"
    if b"coding" in b"".join(data.split(b"\n", 2)[:2]):
        encoding = _declared(data, name)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{name} is not {encoding.removesuffix('-sig').upper()}: byte 0x{data[error.start]:02x} in line {line}",
            "save it as UTF-8, or declare its encoding in the first line, such as '# -*- coding: latin-1 -*-'",
        ) from error
    except LookupError as error:  # a codec that gives no text, such as hex
        raise UsageError(f"cannot read {name}: {error}", "save it as UTF-8, without a declaration") from error
    if "\0" in text:
        raise UsageError(f"{name} is not text: it has zero bytes, as UTF-16 has", "save it as UTF-8")
    return text


def _declared(data: bytes, name: str) -> str:
    """Return the encoding that the first two lines declare, UTF-8 where they only seem to. Raises UsageError."""
    import io
    from tokenize import detect_encoding

    try:
        return detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError as error:  # an encoding that is not known, or a byte that is not of it
        raise UsageError(f"cannot read {name}: {error.msg}", "save it as UTF-8, without a declaration") from error


def check_text(text: str, what: str) -> None:
    """Raise UsageError where a text has half a character; `what` names the text, such as `--code`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise UsageError(
            f"{what} has half a character, U+{ord(text[error.start]):04X}, in line {line}",
            "give it as UTF-8; that is what a byte of another encoding becomes",
        ) from error
