"""A text that comes as one long message, taken apart while it is JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remote_kernel.session.host import long_text

TEXT = st.text(st.sampled_from('ab\\\n"\x1bé€😀\ud83d\ude00')) | st.text()


@pytest.fixture(autouse=True, scope="module")
def _short_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", 16)
        patch.setattr(long_text, "LONG_BYTES", 0)
        yield


@given(text=TEXT.map(lambda text: text * 7), ascii_only=st.booleans())
@example(text="\\" * 100, ascii_only=True)
@example(text="😀" * 100, ascii_only=True)
@example(text="😀" * 100, ascii_only=False)
@example(text="x\ud83d" * 100, ascii_only=True)
def test_pieces_together_are_the_text(text: str, ascii_only: bool) -> None:
    raw = json.dumps({"name": "stderr", "text": text}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert long_text.is_long(raw)
    found = list(long_text.pieces(memoryview(raw)))
    assert "".join(content["text"] for _, content in found) == json.loads(raw)["text"]
    for piece, content in found:
        assert json.loads(piece) == content
        assert content["name"] == "stderr"
        assert len(piece) < 60


def test_fields_behind_the_text_are_no_text() -> None:
    text = 'a "quoted" word, ' * 9
    raw = json.dumps({"name": "stdout", "text": text, "more": "b"}).encode()
    assert long_text.is_long(raw)
    assert "".join(content["text"] for _, content in long_text.pieces(raw)) == text


@pytest.mark.parametrize("raw", [b'{"text": "a", "name": "stdout"}', b'{"name": "stdout", "text": "a", "n": 1}', b"{}"])
def test_another_form_is_not_taken_apart(raw: bytes) -> None:
    assert not long_text.is_long(raw)
