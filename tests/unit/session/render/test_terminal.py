"""What a person sees of a cell in a terminal: the screen, after what was written to it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from remote_kernel.session.events import Clear, Display, Done, Error, Event, Stream, Update
from remote_kernel.session.render.terminal import TerminalRenderer
from remote_kernel.session.render.view import View

COLUMNS, LINES = 20, 6
OK = Done("ok", 1.0)


class Screen(io.StringIO):
    """A terminal of COLUMNS by LINES, as far as it is used here: text, wrapping, `\\r`, cursor up, erasing below."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = [""]
        self.row = self.column = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[\d*[A-Za-z]|[^\x1b]", text):
            self._take(token)
        return len(text)

    def _take(self, token: str) -> None:
        if token == "\n" or (len(token) == 1 and token != "\r" and self.column == COLUMNS):
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        if token == "\r":
            self.column = 0
        elif token.endswith("J"):
            self.rows[self.row :] = [self.rows[self.row][: self.column]]
        elif token.endswith("A"):
            self.row = max(self.row - int(token[2:-1]), len(self.rows) - LINES, 0)
        elif len(token) == 1 and token != "\n":
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + token + line[self.column + 1 :]
            self.column += 1


def screen(folder: Path, *events: Event) -> list[str]:
    shown = Screen()
    files, path = str(folder / "files"), str(folder / "output.txt")
    terminal = TerminalRenderer(shown, shown, View(files, path), size=(COLUMNS, LINES))
    for event in [*events, OK]:
        terminal.feed(event)
    assert shown.rows[-1] == "", "the prompt of the shell begins a line"
    return shown.rows[:-1]


def text(number: int | str, **options: str) -> Display:
    return Display({"text/plain": str(number)}, {}, **options)  # type: ignore[arg-type]


def test_terminal_shows_text_as_it_comes(tmp_path: Path) -> None:
    assert screen(tmp_path, Stream("stdout", "a\nb"), Stream("stderr", "c"), text(42)) == ["a", "bc", "42"]


@pytest.mark.parametrize("line", ["step\n", "st\nep\n", "x" * 20 + "\n", "x" * 21 + "\n", "x" * 45 + "y\nz", "no end"])
def test_cleared_output_is_replaced(tmp_path: Path, line: str) -> None:
    events = [event for number in range(30) for event in (Clear(wait=True), Stream("stdout", f"{number}{line}"))]

    assert screen(tmp_path, *events) == screen(tmp_path, Stream("stdout", f"29{line}"))


def test_output_that_has_scrolled_out_stays(tmp_path: Path) -> None:
    long = Stream("stdout", "line\n" * 20)

    assert screen(tmp_path, long, Clear(), Stream("stdout", "a\n"), Clear(), text("b")) == ["line"] * 20 + ["b"]


def test_updates_of_the_last_display_are_drawn_in_its_place(tmp_path: Path) -> None:
    updates = [Update("d", {"text/plain": f"{number} of 99\n{'#' * (number // 4)}"}, {}) for number in range(100)]

    assert screen(tmp_path, Stream("stdout", "a"), text("?", id="d"), *updates) == ["a", "99 of 99", "#" * 20, "#" * 4]


def test_widget_is_drawn_in_its_place(tmp_path: Path) -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "w"}}
    first, *updates = ({"text/plain": f"{number} %", **view} for number in range(100))

    assert screen(tmp_path, Display(first, {}, "w"), *(Update("w", data, {}) for data in updates)) == ["99 %"]


def test_updates_of_an_earlier_display_come_at_the_end(tmp_path: Path) -> None:
    updates = [Update("d", {"text/plain": str(number)}, {}) for number in range(100)]

    assert screen(tmp_path, text("?", id="d"), Stream("stdout", "a\n"), *updates) == ["?", "a", "99"]


def test_traceback_comes_last(tmp_path: Path) -> None:
    error = Error("ValueError", "no", ("\x1b[31mValueError\x1b[0m: no",))

    assert screen(tmp_path, Stream("stdout", "a"), error) == ["a", "ValueError: no"]
