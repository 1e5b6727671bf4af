"""Write the notebook log's file in a thread of its own, at a pace that the file's size sets.

A write that takes t seconds is followed by a pause of 10 t: at most a tenth of one core and of the disk's time goes
into the log. Where writing fails it is tried again until it works, and one sentence says so. While there is nothing to
write the file is looked at now and then: a person may have saved a version that lacks what came meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from remote_kernel.session.notebook.file import NotebookFile, Stamp
from remote_kernel.session.notebook.merge import MergedNotebook
from remote_kernel.session.notebook.nbformat import NotANotebook, NotebookError, parse_notebook

SHORTEST_PAUSE = 0.5  # seconds between two writes of a cell's outputs
URGENT_PAUSE = 0.5  # at most, before a cell that has begun or ended is written
_LONGEST_PAUSE = 30.0
_RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LOOK_SECONDS = (2.0, 2.0, 3.0, 5.0)  # between looks while there is nothing to write
_SETTLE_SECONDS = 5.0  # for how long what is no notebook may be one that is being written
_SETTLE_EMPTY_SECONDS = 1.0


class NotebookWriter(ABC):
    """The thread, the merged notebook that it alone touches while it runs, and the file.

    A subclass changes things under the lock `_changed`, and then calls `_touch`. `tell` is called with one sentence, in
    the thread, when the file cannot be written, when it can again, and when something in its place was moved aside.
    """

    def __init__(self, path: str, session: str, tell: Callable[[str], None]) -> None:
        self.path = path
        self._notebook = MergedNotebook(session)
        self._file = NotebookFile(path)
        self._changed, self._tell = threading.Condition(), tell
        self._count = self._saved = 0  # changes made, and those that are in the file
        self._urgent = self._closing = self._sleeping = False
        self._ended = self._pause = 0.0  # when the last write or look was over, and ten times what the write took
        self._failures = self._looks = 0  # in a row
        self._give_up_at = float("inf")
        self.trouble = ""  # why what is in the file is not all, empty when it is
        self._doubt: tuple[Stamp, float] | None = None
        self.found: dict[str, bool] = {}  # this session's cells when it was opened, and whether each had an end
        self.found_at = 0.0  # when that was written, Unix time in seconds; 0.0 where there was nothing
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _collect(self, notebook: MergedNotebook) -> set[str]:
        """Put what has changed into the notebook, and return the cells that run. Called in the thread."""

    def open(self) -> None:
        """Read what is there, or begin anew, and start writing. Blocks for 0.4 s per 10 MB.

        Raises NotebookError where the file is no notebook, or its folder is missing.
        """
        try:
            self._file.clean()
            data, stamp = self._file.read()
            if data.strip():
                self.found = self._notebook.load(parse_notebook(data))
                self.found_at = os.stat(self._file.path).st_mtime
            self._file.accept(stamp)
            os.stat(os.path.dirname(self._file.path))
        except OSError as error:
            raise NotebookError(f"cannot log to {self.path}: {error.strerror}", "name another file") from error
        except NotANotebook as error:
            raise NotebookError(f"cannot log to {self.path}: {error}", "name another file") from error
        self._thread = threading.Thread(target=self._run, name="notebook-log", daemon=True)
        self._thread.start()

    def _touch(self, *, urgent: bool = False) -> None:
        """Request a write, with the lock held; what is urgent is written within a second."""
        self._count += 1
        if self._sleeping or (urgent and not self._urgent):
            self._changed.notify_all()
        self._urgent = self._urgent or urgent

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all changes made before are in the file; false if they are not by then."""
        with self._changed:
            wanted = self._count
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._saved >= wanted or not self._is_alive, timeout_seconds)
            return self._saved >= wanted

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Write what is left and end the thread; false if not all is in the file. Idempotent."""
        with self._changed:
            self._closing = True
            self._give_up_at = time.monotonic() + timeout_seconds
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout_seconds + 1)
        if not self._is_alive:
            self._file.release()
            self._notebook.close()
        return self._saved == self._count

    @property
    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # What follows is the thread.

    def _run(self) -> None:
        while self._wait():
            try:
                self._step()
            except Exception:
                # Whatever it is, the cells to come should still be logged.
                self._say(f"the notebook {self.path} is not written: {traceback.format_exc()}")
                self._failures += 1
                self._ended = time.monotonic()
        with self._changed:
            self._changed.notify_all()

    def _say(self, sentence: str) -> None:
        if sentence != self.trouble:
            self.trouble = sentence
            self._tell(sentence)

    def _wait(self) -> bool:
        """Wait until it is time to write or to look; false when it is over."""
        with self._changed:
            while True:
                is_idle = self._count == self._saved
                now = time.monotonic()
                if self._closing and (is_idle or now > self._give_up_at):
                    return False
                at = self._ended + self._rest(is_idle)
                if now >= at:
                    return True
                self._sleeping = is_idle
                self._changed.wait(at - now)
                self._sleeping = False

    def _rest(self, is_idle: bool) -> float:
        """Return for how many seconds there is nothing to do after the last write or look."""
        if is_idle:
            return _LOOK_SECONDS[min(self._looks, len(_LOOK_SECONDS) - 1)]
        if self._failures:
            return _RETRY_SECONDS[0 if self._closing else min(self._failures, len(_RETRY_SECONDS)) - 1]
        if self._closing:
            return 0.0
        if self._urgent:
            return min(self._pause, URGENT_PAUSE)
        return min(max(self._pause, SHORTEST_PAUSE), _LONGEST_PAUSE)

    def _step(self) -> None:
        """Write, or look whether there is something to write."""
        began = time.monotonic()
        with self._changed:
            count, self._urgent = self._count, False
            is_idle = count == self._saved
        if is_idle:
            self._looks += 1
            self._look()
        else:
            self._looks = 0
            written = self._write()
            self._failures = 0 if written else self._failures + 1
            if written:
                with self._changed:
                    self._saved = count
                    self._changed.notify_all()
        self._ended = time.monotonic()
        self._pause = 0.0 if is_idle else 10 * (self._ended - began)

    def _look(self) -> None:
        """Merge what a person has saved, and have it written again if it lacks anything of ours."""
        with contextlib.suppress(OSError):
            if not self._file.foreign():
                self._file.release()
            elif self._merge(self._fill(), patient=True):
                with self._changed:
                    self._touch()

    def _fill(self) -> set[str]:
        """Put what has changed into the notebook as a new revision; return the cells that run."""
        self._notebook.revision += 1
        return self._collect(self._notebook)

    def _write(self) -> bool:
        """Write a version; false if that must be tried again."""
        running = self._fill()
        try:
            written = self._merge(running) is not None and self._file.replace(self._notebook.encode())
        except OSError as error:
            self._say(f"the notebook {self.path} cannot be written: {error.strerror}; it will be tried again")
            return False
        if written and self.trouble:
            self.trouble = ""
            self._tell(f"the notebook {self.path} is written again, and complete")
        return written

    def _merge(self, running: set[str], *, patient: bool = False) -> bool | None:
        """Merge what somebody else has written; true if that lacks something.

        None while what is there is half-written; it may stay so for as long as it likes if we are `patient`. Raises
        OSError.
        """
        lacks = False
        while found := self._file.foreign():
            data, stamp = found
            settled = self._seconds_as_it_is(stamp)
            try:
                if data.strip():
                    lacks |= self._notebook.merge(data, running) or self._file.is_replaced(stamp)
                elif settled < _SETTLE_EMPTY_SECONDS:
                    return None
            except NotANotebook:
                if patient or settled < _SETTLE_SECONDS:
                    return None
                path = self._file.set_aside(data)
                self._tell(f"what was in the place of the notebook {self.path} is no notebook; it is now {path}")
            self._file.accept_foreign(stamp)
        return lacks

    def _seconds_as_it_is(self, stamp: Stamp) -> float:
        """Return for how long a file that may be half-written has not changed. Its own time may be a server's."""
        now = time.monotonic()
        if self._doubt is None or self._doubt[0] != stamp:
            self._doubt = stamp, now
        return now - self._doubt[1]
