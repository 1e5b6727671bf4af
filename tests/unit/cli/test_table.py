"""Tables on a terminal of any width, without colours, and elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from remote_kernel.cli.table import print_rows

COLUMNS = ("SLUG", "HOST", "WHERE")
ROWS = [
    ("remote_cuda", "gpu1", "/opt/conda/bin/python"),
    ("b", "me@gpu1.cluster.example.org", "~ and all that lies below it"),
]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Return what a terminal of some columns shows."""

    def show(columns: int) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True)
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm-256color")
            print_rows(COLUMNS, ROWS)
        return capsys.readouterr().out

    return show


def test_names_in_any_script_leave_the_columns_straight(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(
        ("SLUG", "NAME", "HOST"), [("a", "日本語", "gpu1"), ("b", "Ju\u0308rgens", "gpu2"), ("c", "plain", "gpu3")]
    )
    assert capsys.readouterr().out.splitlines() == [
        "SLUG  NAME     HOST",
        "a     日本語   gpu1",
        "b     Ju\u0308rgens  gpu2",
        "c     plain    gpu3",
    ]


def test_a_wide_terminal_has_one_line_for_a_row(shown: Callable[[int], str]) -> None:
    lines = shown(100).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == list(ROWS[0])


@pytest.mark.parametrize("columns", range(20, 90))
def test_no_terminal_breaks_a_word(shown: Callable[[int], str], columns: int) -> None:
    text = shown(columns)
    words = [word for row in [COLUMNS, *ROWS] for cell in row for word in cell.split()]
    assert set(words) <= set(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def test_a_narrower_one_wraps_between_words(shown: Callable[[int], str]) -> None:
    lines = shown(68).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines[1:])) <= 68
    assert lines[1].startswith("remote_cuda  gpu1")


def test_a_narrow_one_has_a_line_for_each_value(shown: Callable[[int], str]) -> None:
    text = shown(30)
    assert "SLUG   remote_cuda" in text
    assert "\nWHERE  /opt/conda/bin/python\n" in text


def test_other_programs_get_one_line_for_a_row_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert [line.split(maxsplit=2) for line in out.splitlines()] == [list(COLUMNS), *map(list, ROWS)]


@pytest.mark.parametrize("columns", [100, 30])
def test_no_color_means_none(shown: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(columns)
    assert not any(f"\x1b[3{colour}m" in text for colour in range(1, 8))
