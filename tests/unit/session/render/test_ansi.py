"""What a line stream and a terminal get of text that was meant for a terminal."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_kernel.session.render.ansi import LONGEST, PlainText, TerminalText, strip
from remote_kernel.terminal_safe import CONTROLS


def plain(*pieces: str) -> str:
    """Give what is left of a stream in these pieces, with `|` before what was held back to the end."""
    text = PlainText()
    return "".join(text.feed(piece) for piece in pieces) + "|" + text.finish()


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        (["a\nb"], "a\n|b"),
        (["a", "b", "\n"], "ab\n|"),
        (["10%\r20%\r", "30%\n"], "30%\n|"),
        (["10%\r20%\r"], "|20%"),
        (["long line\rab\n"], "abng line\n|"),
        (["long line\r\x1b[Kab\n"], "ab\n|"),
        (["a\r\nb\r", "\nc\n"], "a\nb\nc\n|"),
        (["abc\b\bX\n"], "aXc\n|"),
        (["\x1b[1;31mred\x1b[0m\n"], "red\n|"),
        (["\x1b", "[3", "1mred", "\x1b[0", "m\n"], "red\n|"),
        (["\x1b]0;title\a", "\x1b]52;c;aGk=\x1b\\text\n"], "text\n|"),
        (["\x1b]52;c;", "aGk=" * 100, "\x1b", "\\text\n"], "text\n|"),
        (["\x1bPsixel", "data\x1b", "\\after\n"], "after\n|"),
        (["a\x1b]lost\nkept\n"], "a\nkept\n|"),
        (["a\x1b[", "?25lb\x1b7\x1b(Bc\n"], "abc\n|"),
        (["\abell\0\n"], "bell\n|"),
        (["\x9b6n\x01a\x0bb\x0c\x7fc\x85\n"], "6nabc\n|"),
        (["a\u202e\u2066b\u200f\u061c\n"], "ab\n|"),
        (
            ["gr\u00fc\u00dfe 5\xa0\u2030 \u2028 \U0001f469\u200d\U0001f4bb\n"],
            "gr\u00fc\u00dfe 5\xa0\u2030 \u2028 \U0001f469\u200d\U0001f4bb\n|",
        ),
        (["\x1b[99999999999Cfar\x1b[5Gx\n"], " farx\n|"),
    ],
)
def test_plain_text_is_what_a_terminal_would_be_left_with(pieces: list[str], left: str) -> None:
    assert plain(*pieces) == left


def test_plain_text_keeps_the_last_state_of_nested_progress_bars() -> None:
    refreshes = [f"\n\rinner {done}%\x1b[A\router {done}%" for done in range(0, 101, 10)]

    assert plain("outer 0%", *refreshes, "\n\n", "done\n") == "outer 0%\n|outer 100%\ninner 100%\ndone\n"


def test_plain_text_flows_again_after_a_progress_bar_that_moved_up() -> None:
    text = PlainText()
    text.feed("a\nb\x1b[A\rB\n")
    given_away = "".join(text.feed(f"line {number}\n") for number in range(200))

    assert "line 199" in given_away


def test_plain_text_gives_a_line_away_that_is_too_long_to_hold() -> None:
    text = PlainText()
    given_away = "".join(text.feed("x" * 1000) for _ in range(1000))

    assert len(given_away) > 1_000_000 - 2 * LONGEST
    assert len(given_away) + len(text.finish()) == 1_000_000


@given(st.text(alphabet="ab\n\r\b\x1b[]mKA;1\a\\é\ud83d", max_size=60), st.data())
def test_plain_text_does_not_depend_on_where_the_pieces_end(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert plain(*pieces).replace("|", "") == plain(text).replace("|", "")


@given(st.text(max_size=200))
def test_plain_text_has_no_control_sequences(text: str) -> None:
    assert not re.search(f"[{CONTROLS}]", plain(text))


@pytest.mark.parametrize("line", ["x" * 99 + "\n", "\x1b[31mr\x1b[0m\n", "\r 10%|#####     |", "\x1b]", "ab\b"])
def test_plain_text_takes_floods_in_linear_time(line: str) -> None:
    text = PlainText()
    start = time.process_time()
    text.feed(line * (400_000 // len(line)))
    for _ in range(100_000 // len(line)):
        text.feed(line)

    assert time.process_time() - start < 10  # 0.4 s where it is slow; an hour were it quadratic


def test_strip_leaves_the_text() -> None:
    assert strip("\x1b[0;31mValueError\x1b[0m: \x1b]8;;x\ano\x1b\r\n") == "ValueError: no\n"


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        (["\x1b[31mred\x1b[0m\r\x1b[K\x1b[A"], "\x1b[31mred\x1b[0m\r\x1b[K\x1b[A"),
        (["\x1b]52;c;aGk=\a", "\x1b]0;title\x1b\\", "a"], "a"),
        (["\x1b[6n\x1b[c\x1b[?1049h\x1bc\x1b[>c", "a"], "a"),
        (["\x1b[H\x1b[2J\x1b[3J\x1b[1;1f", "a\u202e\u2067b"], "ab"),
        (["\x1b", "]52;c;", "aGk=", "\a", "a"], "a"),
        (["\x9b6n\x9d52;c;x\x9c", "a"], "6n52;c;xa"),
        (["a\a\0\tb\n"], "a\tb\n"),
    ],
)
def test_terminal_gets_colours_and_moves_and_nothing_else(pieces: list[str], left: str) -> None:
    text = TerminalText()

    assert "".join(map(text.feed, pieces)) == left


def test_terminal_is_left_without_colours() -> None:
    text = TerminalText()
    text.feed("\x1b[31mred")

    assert text.finish() == "\x1b[0m"
    assert text.finish() == ""


def test_cursor_that_goes_up_for_ever_costs_nothing() -> None:
    assert plain("one\n", "\x1b[A" * 300_000, "\ntwo\n") == "one\n|two\n"
