"""Show a cell's output to a reader: text, as it comes."""

from __future__ import annotations

from typing import Any

from remote_kernel.session.events import (
    Away,
    Back,
    Clear,
    Display,
    Done,
    Error,
    Event,
    InputWanted,
    Queued,
    Started,
    Stream,
    Update,
)
from remote_kernel.session.render.ansi import PlainText, TerminalText
from remote_kernel.session.render.artifacts import represent
from remote_kernel.session.render.budget import DEFAULT, Budget, OutputFile
from remote_kernel.session.render.view import TextFile, TextWriter, View, ends_line
from remote_kernel.terminal_safe import terminal_safe


class TextRenderer:
    """A cell's output for a reader: stdout and results on `out`; stderr, tracebacks and notes on `err`.

    A terminal gets text as it comes, with colours. Anything else gets settled lines without control sequences, at most
    the view's budget of them, of which the rest is in its file; the end of a traceback comes on top.
    """

    def __init__(self, out: TextFile, err: TextFile, view: View) -> None:
        """Make it for one cell. Without a budget the bound is DEFAULT, or none where `out` is a terminal."""
        self._writers = {"stdout": TextWriter(out), "stderr": TextWriter(err)}
        self._texts: dict[str, PlainText | TerminalText] = {
            name: _text_for(file.isatty()) for name, file in (("stdout", out), ("stderr", err))
        }
        limit = view.budget if view.budget is not None else 0 if out.isatty() else DEFAULT
        self._colours = err.isatty()
        self._file = OutputFile(view.output_file)
        self._budget = Budget(self._write, limit, self._file)
        self._view = view
        self._shown: dict[str, str] = {}  # the text of each display that has an id
        self._updates: dict[str, Update] = {}  # the last of each id
        self._error: Error | None = None  # held, as the last one is shown whatever the budget
        self._clears = False  # the next output clears
        self._waits = False  # the cell has not begun
        self._closed = False
        self._latest = "stdout"  # where the last text went
        self._ends_line = {"stdout": True, "stderr": True}  # of what went into the budget

    def feed(self, event: Event) -> None:
        """Write what the event shows, or hold it until it is known to stay."""
        if isinstance(event, Stream):
            self._stream(event)
        elif isinstance(event, Display):
            self._display(event)
        elif isinstance(event, Update):
            self._update(event)
        elif isinstance(event, Clear):
            self._clears = True
            if not event.wait:
                self._apply_held()
            return
        elif isinstance(event, Error):
            self._apply_held()
            self._error = event
            return
        elif isinstance(event, Done):
            self._finish()
            self._note(event.message)
            self._end_last_line()
            self._end()
        else:
            self._show_state(event)
        self._flush()

    def close(self) -> None:
        """Write what is held, and close the file of the whole output."""
        if self._closed:
            return
        self._finish()
        self._start_line()  # what comes next is about the cell
        self._end()

    def _end_last_line(self) -> None:
        """End the line of a progress bar; stdout stays as the code wrote it."""
        if not self._writers["stderr"].at_line_start:
            self._write("stderr", "\n")

    def _end(self) -> None:
        self._closed = True
        self._flush()
        self._file.close()

    def _stream(self, event: Stream) -> None:
        self._apply_held()
        name = event.name if event.name in self._texts else "stdout"
        self._write_bounded(name, self._texts[name].feed(event.text))

    def _display(self, event: Display) -> None:
        self._apply_held()
        text = self._text_of(event.data)
        if event.id:
            self._shown[event.id] = text
            self._updates.pop(event.id, None)
        self._write_display(event.id, text)

    def _write_display(self, identity: str, text: str) -> None:
        self._write_block("stdout", text)

    def _update(self, event: Update) -> None:
        """Hold the update: a stream of lines shows the last for each id, at the end."""
        self._updates[event.id] = event

    def _text_of(self, data: dict[str, Any]) -> str:
        return str(represent(data, self._view.files))

    def _apply_held(self) -> None:
        """Apply a Clear that waited for the next output, and put an error that was not the last into the budget."""
        if self._clears:
            self._clears = False
            for text in self._texts.values():
                text.finish()
            self._error = None
            self._updates.clear()
            self._shown.clear()
            self._clear()
        if self._error:
            error, self._error = self._error, None
            self._write_block("stderr", self._traceback(error))

    def _clear(self) -> None:
        self._budget.clear()

    def _finish(self) -> None:
        """Write all that is held, the error last."""
        for update in self._updates.values():
            text = self._text_of(update.data)
            if text != self._shown.get(update.id):
                self._shown[update.id] = text
                self._write_block("stdout", text)
        self._updates.clear()
        for name, stream in self._texts.items():
            self._write_bounded(name, stream.finish())
        self._budget.settle()
        if self._error:
            error, self._error = self._error, None
            self._start_line()
            self._write("stderr", self._traceback(error) + "\n")

    def _traceback(self, error: Error) -> str:
        from remote_kernel.session.render.traceback import trim

        texts = trim(error.traceback, full=self._view.full_traceback, cell_of=self._view.cell_of)
        texts = texts or [f"{error.name}: {error.value}"]
        text = "\n".join(part.rstrip("\n") for part in texts)
        return _fit(text, terminal=self._colours)

    def _show_state(self, event: Event) -> None:
        if isinstance(event, (Queued, Started)):
            self._waits = isinstance(event, Queued)
        if isinstance(event, Queued) and event.ahead:
            self._note(f"waits behind {event.ahead} {'cell' if event.ahead == 1 else 'cells'}")
        elif isinstance(event, Away):
            what = "the cell runs when it is back" if self._waits else "the cell goes on"
            self._note(f"the connection is away; {what}" + (f" ({event.reason})" if event.reason else ""))
        elif isinstance(event, Back):
            self._note("the connection is back")
        elif isinstance(event, InputWanted):
            for name, text in self._texts.items():
                self._write_bounded(name, text.finish())

    def _note(self, message: str) -> None:
        if message:
            self._start_line()
            self._write("stderr", terminal_safe(f"rkernel: {message}\n"))

    def _start_line(self) -> None:
        """End a line that is open on either, as both may go to the same place."""
        for name, writer in self._writers.items():
            if not writer.at_line_start:
                self._write(name, "\n")

    def _write_block(self, name: str, text: str) -> None:
        """Write a text on lines of its own."""
        if not text:
            return
        self._end_lines()
        self._write_bounded(name, _fit(text, terminal=isinstance(self._texts[name], TerminalText)) + "\n")

    def _end_lines(self) -> None:
        """End a line that is open in what goes through the budget."""
        for name, stream in self._texts.items():
            self._write_bounded(name, stream.finish())
            if not self._ends_line[name]:
                self._write_bounded(name, "\n")

    def _write_bounded(self, name: str, text: str) -> None:
        if text:
            self._ends_line[name] = ends_line(text, self._ends_line[name])
            self._budget.write(name, text)

    def _write(self, name: str, text: str) -> None:
        """Write the text; what went to the other file before is there before, as both may be the same place."""
        if name != self._latest:
            self._writers[self._latest].flush()
            self._latest = name
        self._writers[name].write(text)

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def _text_for(terminal: bool) -> PlainText | TerminalText:
    return TerminalText() if terminal else PlainText()


def _fit(text: str, *, terminal: bool) -> str:
    """Return a text that is complete as a terminal, or another reader, may have it."""
    stream = _text_for(terminal)
    return stream.feed(text) + stream.finish()
