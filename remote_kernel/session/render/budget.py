"""Bound a long output to its head and tail, with all of it in a file.

An agent reads every character that a command prints, so a loop that prints 50 MB must not reach it; but its beginning
says what ran and its end says how it went. The head is written as it comes. What follows is kept in a ring, and at the
end either all of it is written, or one line that says how much was left out and where it is, and then the tail.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

DEFAULT = 8000  # characters, head and tail together
_HEAD_SHARE = 3 / 8  # the end is what is asked for more often
_BLOCK = 1 << 16  # characters that are written to the file at a time
_HELD = 1_000_000  # characters that wait for another Clear where nothing bounds the output


class OutputFile:
    """The whole output, to be at `path` after close(): record() adds to it, and open() begins the file.

    Two clients may follow the same cell: each writes a file of its own, and the last to end leaves it. A disk that is
    full ends the file and not the output: `problem` says so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        self._is_open = False
        self._partial = f"{path}.{os.getpid()}.partial"
        self._descriptor = -1
        self._waiting: list[str] = []  # until the file is open, everything
        self._size = 0

    def record(self, text: str) -> None:
        """Add the next text."""
        self._waiting.append(text)
        self._size += len(text)
        if self._is_open and self._size >= _BLOCK:
            self.flush()

    def open(self) -> None:
        """Make the file, for its owner only, with all that came before; does nothing the second time."""
        if self._is_open:
            return
        self._is_open = True
        _remove_abandoned(self.path)
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            self.problem = f"not written: {error.strerror}"

    def flush(self) -> None:
        """Write what has come so far, if the file is open."""
        if not self._is_open:
            return
        text = "".join(self._waiting)
        self._waiting, self._size = [], 0
        if self._descriptor < 0:
            return
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self.problem = f"incomplete: {error.strerror}"
            self._put_in_place()

    def clear(self) -> None:
        """Drop what has come: the cell has cleared it."""
        self._waiting, self._size = [], 0
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)

    def close(self) -> None:
        """Move the file, if there is one, to its place."""
        self.flush()
        self._put_in_place()

    def _put_in_place(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            try:
                os.replace(self._partial, self.path)
            except OSError as error:  # the session was closed, and its folder is gone: what the cell gave counts
                self.problem = f"gone: {error.strerror}"


def _remove_abandoned(path: str) -> None:
    """Remove what clients that were killed have left of this file."""
    from remote_kernel.process import is_alive  # only here: few outputs are that long

    folder, name = os.path.split(path)
    with suppress(OSError):
        for entry in os.listdir(folder or "."):
            pid = entry.removeprefix(f"{name}.").removesuffix(".partial")
            if entry == f"{name}.{pid}.partial" and pid.isdigit() and not is_alive(int(pid)):
                os.unlink(os.path.join(folder, entry))


class Budget:
    """Pass pieces of named streams to `write(name, text)`, bounded to `limit` characters, 0 for no bound.

    `file` gets all of them, and is only made where some are left out; without one, `hint` says how to see the rest.
    """

    def __init__(
        self,
        write: Callable[[str, str], None],
        limit: int,
        file: OutputFile | None = None,
        hint: str = "--budget 0 shows all",
    ) -> None:
        self._write = write
        self._file = file if limit else None
        self._hint = hint
        self._limit = limit
        self._head_size = int(limit * _HEAD_SHARE) if limit else _HELD
        self._is_live = True  # the head is written as it comes
        self._at_line_start = True
        self.truncated = False  # something has been left out
        self._start()

    def _start(self) -> None:
        self._head: list[tuple[str, str]] = []  # only what has not been written
        self._room = self._head_size
        self._tail_size = max(1, self._limit - self._head_size)  # and what the head leaves, as it ends with a line
        self._tail: deque[tuple[str, str]] = deque()
        self._tail_held = 0  # characters
        self._left_out = self._left_out_lines = 0

    def write(self, name: str, text: str) -> None:
        """Add the next piece."""
        if not text:
            return
        if not self._limit and self._is_live:
            self._pass_on(name, text)
            return
        if self._file:
            self._file.record(text)
        if self._room > 0:
            text = self._fill_head(name, text)
        if text and self._limit:
            self._fill_tail(name, text)
        elif text:  # too much to wait for another Clear
            self.settle()
            self._is_live = True
            self._pass_on(name, text)

    def clear(self) -> None:
        """Drop what has not been written yet; from now on nothing is, until settle(), as more may be cleared.

        A line stream cannot take back what it has written: a cell that shows its progress by clearing and printing
        leaves what it printed first, and what it printed last.
        """
        self._is_live = False
        self._start()
        if self._file:
            self._file.clear()

    def settle(self) -> None:
        """Write what is held: at the cell's end, or when somebody stops to wait for it."""
        for name, text in self._head:
            self._pass_on(name, text)
        if self._left_out or self._tail_held > self._tail_size:
            self.truncated = True
            name, text = self._tail.popleft()
            cut = max(0, self._tail_held - self._tail_size)
            cut = text.find("\n", cut, cut + self._tail_size // 2) + 1 or cut
            self._leave_out(text[:cut])
            self._pass_on(name, ("" if self._at_line_start else "\n") + self._note())
            self._tail.appendleft((name, text[cut:]))
        for name, text in self._tail:
            self._pass_on(name, text)
        self._start()
        self._room = 0

    def _fill_head(self, name: str, text: str) -> str:
        """Return what does not fit; the head ends at a line's end, unless that would leave little of it."""
        cut = len(text)
        if cut > self._room:
            cut = text.rfind("\n", 0, self._room) + 1
            if self._room - cut > self._head_size // 2:
                cut = self._room
            self._tail_size += self._room - cut
            self._room = cut
        self._room -= cut
        if self._is_live:
            self._pass_on(name, text[:cut])
        else:
            self._head.append((name, text[:cut]))
        return text[cut:]

    def _fill_tail(self, name: str, text: str) -> None:
        self._tail.append((name, text))
        self._tail_held += len(text)
        while self._tail_held - len(self._tail[0][1]) >= self._tail_size:
            _, old = self._tail.popleft()
            self._tail_held -= len(old)
            self._leave_out(old)

    def _leave_out(self, text: str) -> None:
        if text and self._file:
            self._file.open()
        self._left_out += len(text)
        self._left_out_lines += text.count("\n")

    def _pass_on(self, name: str, text: str) -> None:
        if text:
            self._at_line_start = text.endswith("\n")
            self._write(name, text)

    def _note(self) -> str:
        where = self._hint
        if self._file:
            self._file.flush()
            where = f"all of it: {self._file.path}"
            if self._file.problem:
                where += f" ({self._file.problem})"
        lines = f", {self._left_out_lines:,} lines," if self._left_out_lines else ""
        return f"... {self._left_out:,} characters{lines} left out; {where} ...\n"


def bounded(text: str, limit: int, hint: str = "--budget 0 shows all") -> str:
    """Return the head and tail of a text that is complete; all of it for a limit of 0."""
    parts: list[str] = []
    budget = Budget(lambda _, part: parts.append(part), limit, hint=hint)
    budget.write("", text)
    budget.settle()
    return "".join(parts)
