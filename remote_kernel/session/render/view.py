"""What a renderer of a cell's events is: where it writes, how much it shows, and what it does with each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from remote_kernel.session.events import Event


class Renderer(Protocol):
    """What every form does with a cell's events. A file whose reader has gone away raises BrokenPipeError."""

    def feed(self, event: Event) -> None:
        """Handle the next event. Done is the last: it writes all that is held."""

    def close(self) -> None:
        """Write what is held, where nobody waits for the end; does nothing after Done, or the second time."""


class View(NamedTuple):
    """How much of one cell's output is shown, and where the rest goes.

    `files` is the folder for images and large data; `output_file` the path for the whole of an output that is longer
    than `budget` characters, None for the form's own bound and 0 for none. Neither is made before it is needed. A part
    of a cell's output (what came since some place) needs an `output_file` of its own. For `cell_of` see traceback.trim.
    """

    files: str
    output_file: str
    budget: int | None = None
    full_traceback: bool = False
    cell_of: Callable[[int], str] = lambda count: ""


class TextFile(Protocol):
    """The part of a text file that renderers use: sys.stdout is one."""

    def write(self, text: str, /) -> Any:
        """Write the text."""

    def flush(self) -> Any:
        """Pass on what is buffered."""

    def isatty(self) -> bool:
        """True if a terminal shows it."""


class TextWriter:
    """Write every string to a text file: what its encoding lacks is written as `\\ud83d`."""

    def __init__(self, file: TextFile) -> None:
        self._file = file
        self.at_line_start = True
        self._is_flushed = True

    def write(self, text: str) -> None:
        """Write the text."""
        if not text:
            return
        try:
            self._file.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._file, "encoding", None) or "utf-8"
            self._file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self.at_line_start = ends_line(text, self.at_line_start)
        self._is_flushed = False

    def flush(self) -> None:
        """Pass on what is written."""
        if not self._is_flushed:
            self._is_flushed = True
            self._file.flush()


def ends_line(text: str, before: bool) -> bool:
    """True if the text leaves a stream at a line's start; `before` says whether it was at one."""
    text = text.removesuffix("\x1b[0m")
    return text.endswith("\n") if text else before
