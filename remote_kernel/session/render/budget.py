"""Keep a long output's head and tail, and all of it in a file.

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
    """The whole output, to be at `path` after close(): record() takes it in order, and open() begins the file.

    Two clients may follow the same cell: each writes a file of its own, and the last to end leaves it. A disk that is
    full ends the file and not the output: `problem` says so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        self.is_open = False
        self._partial = f"{path}.{os.getpid()}.partial"
        self._descriptor = -1
        self._waiting: list[str] = []  # until the file is open, everything
        self._size = 0

    def record(self, text: str) -> None:
        """Take the next text."""
        self._waiting.append(text)
        self._size += len(text)
        if self.is_open and self._size >= _BLOCK:
            self.flush()

    def open(self) -> None:
        """Make the file, for its owner only, with all that came before; does nothing the second time."""
        if self.is_open:
            return
        self.is_open = True
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        _remove_those_of_the_dead(self.path)
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._partial, flags, 0o600)
        except OSError as error:
            self.problem = f"not written: {error.strerror}"

    def flush(self) -> None:
        """Write what has come so far, if the file is open."""
        if not self.is_open:
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
        """Forget what has come: the cell has removed it."""
        self._waiting, self._size = [], 0
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)

    def close(self) -> None:
        """Put the file, if there is one, to its place."""
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


def _remove_those_of_the_dead(path: str) -> None:
    """Remove what clients that were killed have left of this file."""
    from remote_kernel.process import is_alive  # only here: few outputs are that long

    folder, name = os.path.split(path)
    with suppress(OSError):
        for entry in os.listdir(folder or "."):
            pid = entry.removeprefix(f"{name}.").removesuffix(".partial")
            if entry == f"{name}.{pid}.partial" and pid.isdigit() and not is_alive(int(pid)):
                os.unlink(os.path.join(folder, entry))


class Budget:
    """Pieces of named streams on their way to `write(name, text)`, bounded to `limit` characters, 0 for no bound.

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
        self._live = True
        self._at_line_start = True
        self.truncated = False  # something has been left out
        self._start()

    def _start(self) -> None:
        self._head: list[tuple[str, str]] = []  # only what has not been written
        self._room = self._head_size
        self._tail_size = max(1, self._limit - self._head_size)  # and what the head leaves, as it ends with a line
        self._ring: deque[tuple[str, str]] = deque()
        self._ring_size = 0
        self._left_out = 0  # characters and line ends that have fallen out of the ring
        self._left_out_lines = 0

    def write(self, name: str, text: str) -> None:
        """Take the next piece."""
        if not text:
            return
        if not self._limit and self._live:
            self._pass_on(name, text)
            return
        if self._file:
            self._file.record(text)
        if self._room > 0:
            text = self._into_head(name, text)
        if text:
            self._into_ring(name, text)

    def clear(self) -> None:
        """Drop what has not been written yet; from now on nothing is, until settle(), as more may be cleared.

        A line stream cannot take back what it has given: a cell that shows its progress by clearing and printing leaves
        what it printed first, and what it printed last.
        """
        self._live = False
        self._start()
        if self._file:
            self._file.clear()

    def settle(self) -> None:
        """Write what is held: at the cell's end, or when somebody stops to wait for it."""
        head, ring, left_out, lines = self._head, self._ring, self._left_out, self._left_out_lines
        self._head, self._ring, self._ring_size = [], deque(), 0
        self._left_out = self._left_out_lines = 0
        self._room = 0
        for name, text in head:
            self._pass_on(name, text)
        if left_out:
            self.truncated = True
            self._leave_out(ring, left_out, lines)
        for name, text in ring:
            self._pass_on(name, text)

    def _into_head(self, name: str, text: str) -> str:
        """Give what does not fit; the head ends at a line's end, unless that would leave little of it."""
        if len(text) <= self._room:
            cut = len(text)
            self._room -= cut
        else:
            cut = text.rfind("\n", 0, self._room) + 1
            if self._room - cut > self._head_size // 2:
                cut = self._room
            self._tail_size += self._room - cut
            self._room = 0
        if cut and self._live:
            self._pass_on(name, text[:cut])
        elif cut:
            self._head.append((name, text[:cut]))
        return text[cut:]

    def _pass_on(self, name: str, text: str) -> None:
        self._at_line_start = text.endswith("\n")
        self._write(name, text)

    def _into_ring(self, name: str, text: str) -> None:
        if not self._limit:
            self._flow(name, text)
            return
        ring = self._ring
        if len(text) >= self._tail_size:
            # All before it falls out, and nearly all of a huge piece is never copied.
            self._drop(sum(len(old) for _, old in ring), sum(old.count("\n") for _, old in ring))
            ring.clear()
            cut = len(text) - self._tail_size
            self._drop(cut, text.count("\n", 0, cut))
            text = text[cut:]
            self._ring_size = 0
        ring.append((name, text))
        self._ring_size += len(text)
        while self._ring_size - len(ring[0][1]) >= self._tail_size:
            _, old = ring.popleft()
            self._ring_size -= len(old)
            self._drop(len(old), old.count("\n"))

    def _flow(self, name: str, text: str) -> None:
        """Too much to wait for another Clear: it is given away as it comes."""
        self.settle()
        self._live = True
        self._pass_on(name, text)

    def _drop(self, size: int, lines: int) -> None:
        if size and self._file:
            self._file.open()
        self._left_out += size
        self._left_out_lines += lines

    def _leave_out(self, ring: deque[tuple[str, str]], left_out: int, lines: int) -> None:
        name, text = ring[0]
        cut = max(0, sum(len(piece) for _, piece in ring) - self._tail_size)
        end = text.find("\n", cut, cut + self._tail_size // 2)
        if end >= 0:
            cut = end + 1
        if cut:
            ring[0] = (name, text[cut:])
            left_out += cut
            lines += text.count("\n", 0, cut)
        self._pass_on(name, ("" if self._at_line_start else "\n") + self._note(left_out, lines))

    def _note(self, size: int, lines: int) -> str:
        where = self._hint
        if self._file:
            self._file.flush()
            where = f"all of it: {self._file.path}"
            if self._file.problem:
                where += f" ({self._file.problem})"
        counted = f"{size:,} characters" + (f", {lines:,} lines," if lines else "")
        return f"... {counted} left out; {where} ...\n"
