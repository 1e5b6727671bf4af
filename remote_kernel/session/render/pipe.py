"""The files that renderers write to: the caller's, which take any string here."""

from __future__ import annotations

from typing import Any, Protocol


class Writer(Protocol):
    """The part of a text file that is used: sys.stdout is one."""

    def write(self, text: str, /) -> Any:
        """Write the text."""

    def flush(self) -> Any:
        """Pass on what is buffered."""

    def isatty(self) -> bool:
        """Tell whether a terminal shows it."""


class Pipe:
    """A text file that takes every string: what its encoding lacks is written as `\\ud83d`."""

    def __init__(self, file: Writer) -> None:
        self._file = file
        self.at_line_start = True
        self._dirty = False

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
        self._dirty = True

    def flush(self) -> None:
        """Pass it on."""
        if self._dirty:
            self._dirty = False
            self._file.flush()


def ends_line(text: str, before: bool) -> bool:
    """Tell whether the text leaves the stream at a line's start; `before` tells whether it was at one."""
    text = text.removesuffix("\x1b[0m")
    return text.endswith("\n") if text else before
