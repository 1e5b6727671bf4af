"""Code from files, as Python reads it, and what is refused before anything is sent."""

from __future__ import annotations

import codecs

import pytest

from remote_kernel.errors import UsageError
from remote_kernel.session.notebook.source import check_text, decode_source


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("x = 'é'\n".encode(), "x = 'é'\n"),
        (codecs.BOM_UTF8 + "x = 'é'\n".encode(), "x = 'é'\n"),
        ("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"), "# -*- coding: latin-1 -*-\nx = 'é'\n"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n'€'".encode("cp1252"), "€"),
        ("# encoding is decoded here\nx = 'é'\n".encode(), "x = 'é'\n"),
        ("#\n#\n# coding: latin-1\n'é'".encode(), "'é'"),  # only the first two lines count
        (b"", ""),
    ],
    ids=["plain", "mark", "latin-1", "second line", "no declaration", "third line", "empty"],
)
def test_source_is_decoded_as_python_does(data: bytes, text: str) -> None:
    decoded = decode_source(data, "a.py")
    assert decoded.endswith(text) or text in decoded
    assert not decoded.startswith("\ufeff")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"ok = 1\nx = '\xe9'\n", "a.py is not UTF-8: byte 0xe9 in line 2; save it as UTF-8, or declare its encoding"),
        ("x = 1\n".encode("utf-16"), "a.py is UTF-16; save it as UTF-8"),
        ("x = 1\n".encode("utf-16-le"), "it has zero bytes, as UTF-16 has; save it as UTF-8"),
        (b"# coding: no-such\n", "cannot read a.py: unknown encoding"),
        (b"# coding: hex\n", "cannot read a.py: .*not a text encoding"),
        (codecs.BOM_UTF8 + b"# coding: latin-1\n", "cannot read a.py: encoding problem"),
        (b"\xed\xa0\x80", "a.py is not UTF-8: byte 0xed in line 1"),
    ],
    ids=["byte", "utf-16", "no mark", "unknown", "no text", "both", "half"],
)
def test_what_is_no_text_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        decode_source(data, "a.py")


def test_half_a_character_is_refused() -> None:
    check_text("é€😀", "--code")
    with pytest.raises(UsageError, match=r"--code has half a character, U\+DCFF, in line 2"):
        check_text("x\n'\udcff'", "--code")
