"""Show how far a transfer is: a bar on a terminal, a line now and then elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remote_kernel.cli.edge import complain, note
from remote_kernel.errors import RemoteKernelError

LINE_SECONDS = 10.0
_FIRST_SECONDS = 0.5  # what takes no longer needs no bar
_UNITS = ("B", "kB", "MB", "GB", "TB")


class ProgressLines:
    """Tells in plain lines, every LINE_SECONDS."""

    def __init__(self) -> None:
        self._size = self._files = self._done_size = self._done_files = 0
        self._begun = self._told = time.monotonic()

    def planned(self, size: int, files: int) -> None:
        """Start to count."""
        self._size, self._files, self._done_size, self._done_files = size, files, 0, 0
        self._begun = self._told = time.monotonic()

    def moved(self, size: int, files: int) -> None:
        """Count, and print that if it is time."""
        self._done_size += size
        self._done_files += files
        now = time.monotonic()
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        rate = self._done_size / (now - self._begun)
        left = f", {time_text((self._size - self._done_size) / rate)} left" if rate else ""
        note(
            f"{self._done_files} of {counted(self._files, 'file')}, {size_text(self._done_size)} of "
            f"{size_text(self._size)}, {size_text(rate)}/s{left}"
        )

    def interrupted(self, error: RemoteKernelError) -> None:
        """Print that the connection was lost and is tried again."""
        complain("remote_kernel", f"{error.message}; trying again")

    def fell_back(self, error: RemoteKernelError) -> None:
        """Print that it goes over SFTP, and why."""
        complain("remote_kernel", f"{error.message}; copying over SFTP instead")


class ProgressBar(ProgressLines):
    """Draws a bar with rate and time left, by rich, once there is something to wait for."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._bar: Any = None
        self._task: Any = None

    def planned(self, size: int, files: int) -> None:
        """Start to count."""
        self.close()
        super().planned(size, files)

    def moved(self, size: int, files: int) -> None:
        """Move the bar."""
        self._done_size += size
        self._done_files += files
        if self._bar is None and time.monotonic() - self._begun > _FIRST_SECONDS:
            self._open()
        now = time.monotonic()
        if self._bar is not None and (now - self._told > 0.1 or self._done_size >= self._size):
            self._told = now
            self._bar.update(self._task, completed=self._done_size, files=f"{self._done_files}/{self._files}")

    def interrupted(self, error: RemoteKernelError) -> None:
        """Print that the connection was lost and is tried again."""
        self.close()
        super().interrupted(error)

    def close(self) -> None:
        """Stop the bar as it is. Idempotent."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        self._bar = Progress(
            TextColumn("{task.fields[files]}", markup=False),
            BarColumn(),
            DownloadColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._title, total=self._size, files="")
        self._bar.start()


@contextmanager
def reporter(title: str) -> Iterator[ProgressLines]:
    """Yield what shows progress: a bar if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield ProgressLines()
        return
    bar = ProgressBar(title)
    try:
        yield bar
    finally:
        bar.close()


def counted(count: int, noun: str, plural: str = "s") -> str:
    """Return `1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{plural}"


def size_text(size: float) -> str:
    """Return a size with its unit, in powers of 1000."""
    at = 0
    while size >= 999.5 and at < len(_UNITS) - 1:
        size, at = size / 1000, at + 1
    return f"{size:.0f} B" if at == 0 else f"{size:.3g} {_UNITS[at]}"


def time_text(seconds: float) -> str:
    """Return a time as 8 s, 2:05 or 1:02:05."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def shown(path: str) -> str:
    """Return a path on one line, without what could steer a terminal."""
    return "".join(
        sign
        if sign.isprintable()
        else sign.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode("ascii")
        for sign in path
    )
