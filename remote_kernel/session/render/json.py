"""Write a cell's outcome for a script: one JSON document at the end, or one JSON line for each event.

Both say `"version": 1`. Within a version fields are added, never taken away or given another meaning.
"""

from __future__ import annotations

import json
from typing import Any

from remote_kernel.session.events import (
    VERSION,
    Away,
    Back,
    Clear,
    Display,
    Done,
    Error,
    Event,
    Queued,
    Started,
    Stream,
    Update,
    to_fields,
)
from remote_kernel.session.render.ansi import PlainText, strip
from remote_kernel.session.render.artifacts import Artifact, is_json, is_text, represent, save
from remote_kernel.session.render.budget import DEFAULT, Budget, OutputFile, bounded
from remote_kernel.session.render.traceback import trim
from remote_kernel.session.render.view import TextFile, TextWriter, View

_FIRST_DISPLAYS, _LAST_DISPLAYS = 20, 80  # of more, those between are left out of the document
_LONGEST_INLINE = 20_000  # characters of a representation that a line holds; a longer one is a file


class _StreamField:
    """A stream's text in the document, bounded like the output of TextRenderer."""

    def __init__(self, limit: int, file: OutputFile) -> None:
        self._parts: list[str] = []
        self._text = PlainText()
        self.budget = Budget(lambda _, text: self._parts.append(text), limit, file)

    def feed(self, text: str) -> None:
        self.budget.write("", self._text.feed(text))

    def clear(self) -> None:
        self._text.finish()
        self._parts.clear()
        self.budget.clear()

    def finish(self) -> str:
        self.budget.write("", self._text.finish())
        self.budget.settle()
        return "".join(self._parts)


class JsonRenderer:
    """One JSON document on `out`, at the cell's end or where nobody waits for it any longer.

    Each text is bounded to the view's budget; `truncated` names those that were cut, and `output_file` is then the path
    of everything, in order.
    """

    def __init__(self, out: TextFile, view: View) -> None:
        """Make it for one cell. Without a budget each text's bound is DEFAULT."""
        self._out, self._view = TextWriter(out), view
        self._limit = DEFAULT if view.budget is None else view.budget
        self._file = OutputFile(view.output_file)
        self._streams = {name: _StreamField(self._limit, self._file) for name in ("stdout", "stderr")}
        self._queued = Queued("", 0.0)
        self._started = Started(0.0)
        self._unfinished = "running"  # the verdict where nobody waits for the end
        self._clears = False
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._error: Error | None = None
        self._shown: list[dict[str, Any]] = []  # displays and results
        self._result: dict[str, Any] | None = None  # the last of those
        self._left_out = 0  # displays
        self._truncated: list[str] = []
        self._updates: dict[str, Update] = {}

    def feed(self, event: Event) -> None:
        """Handle the next event; Done writes the document."""
        if isinstance(event, (Stream, Display, Error)) and self._clears:
            self._clear()
        if isinstance(event, Stream):
            self._streams.get(event.name, self._streams["stdout"]).feed(event.text)
        elif isinstance(event, Display):
            self._display(event)
        elif isinstance(event, Update):
            self._updates[event.id] = event
        elif isinstance(event, Error):
            self._error = event
        elif isinstance(event, Clear):
            self._clears = True
            if not event.wait:
                self._clear()
        elif isinstance(event, Queued):
            self._queued = event
        elif isinstance(event, Started):
            self._started = event
        elif isinstance(event, (Away, Back)):
            self._unfinished = "away" if isinstance(event, Away) else "running"
        elif isinstance(event, Done):
            self._write(event)

    def close(self) -> None:
        """Write the document with the verdict `running`, or `away`, unless Done has written it."""
        if not self._closed:
            self._write(Done(self._unfinished, 0.0, generation=self._started.generation))

    def _clear(self) -> None:
        self._clears = False
        for field in self._streams.values():
            field.clear()
        self._begin()

    def _display(self, event: Display) -> None:
        self._updates.pop(event.id, None)
        shown = {**self._represent(event.data), "id": event.id}
        self._shown.append(shown)
        if event.result:
            self._result = shown
        displays = self._displays
        if self._limit and len(displays) > _FIRST_DISPLAYS + _LAST_DISPLAYS:
            self._shown.remove(displays[_FIRST_DISPLAYS])
            self._left_out += 1
            self._file.open()

    @property
    def _displays(self) -> list[dict[str, Any]]:
        return [shown for shown in self._shown if shown is not self._result]

    def _represent(self, data: dict[str, Any]) -> dict[str, Any]:
        shown = represent(data, self._view.files)
        text = strip(shown.text)
        if text and self._limit:
            self._file.record(text + "\n")
        return {"text": text, "files": [_file(artifact) for artifact in shown.files], "notes": shown.notes}

    def _write(self, done: Done) -> None:
        self._closed = True
        for shown in self._shown:
            if update := self._updates.get(shown["id"]):
                shown.update(self._represent(update.data))
        document = self._document(done)
        self._file.close()
        self._out.write(json.dumps(document) + "\n")
        self._out.flush()

    def _document(self, done: Done) -> dict[str, Any]:
        streams = {name: field.finish() for name, field in self._streams.items()}
        self._truncated = ["displays"] if self._left_out else []
        self._truncated += [name for name, field in self._streams.items() if field.budget.truncated]
        if self._result:
            self._result["text"] = self._cut("result", self._result["text"])
        for number, shown in enumerate(self._displays):
            shown["text"] = self._cut(f"displays[{number}]", shown["text"])
        error = self._error_fields()
        count = done.execution_count if done.execution_count is not None else self._started.execution_count
        return {
            "version": VERSION,
            "cell": self._queued.cell,
            "verdict": done.verdict,
            "status": done.status,
            "message": done.message,
            "execution_count": count,
            "generation": done.generation,
            "seconds": round(done.seconds, 6),
            **streams,
            "result": self._result,
            "displays": self._displays,
            "displays_left_out": self._left_out,
            "error": error,
            "truncated": self._truncated,
            "output_file": self._file.path if self._truncated else None,
        }

    def _error_fields(self) -> dict[str, Any] | None:
        if not self._error:
            return None
        texts = trim(self._error.traceback, full=self._view.full_traceback, cell_of=self._view.cell_of)
        traceback = strip("\n".join(text.rstrip("\n") for text in texts))
        value = self._cut("error", self._error.value)
        return {"name": self._error.name, "value": value, "traceback": traceback}

    def _cut(self, name: str, text: str) -> str:
        """Bound a text; what was cut is in the file."""
        if not self._limit or len(text) <= self._limit:
            return text
        self._truncated.append(name)
        self._file.open()
        return bounded(text, self._limit)


class JsonLinesRenderer:
    """Every event as one JSON line on `out`, as it comes: `{"version": 1, "event": "stream", ...}`.

    Text is exact, with control sequences. An image is replaced by its file: `{"path": ..., "size": ...}`, and so is any
    representation that is long.
    """

    def __init__(self, out: TextFile, *, files: str) -> None:
        self._out = TextWriter(out)
        self._files = files

    def feed(self, event: Event) -> None:
        """Write the event."""
        fields = {"version": VERSION, **to_fields(event)}
        if isinstance(event, (Display, Update)):
            fields["data"] = {mime: self._inline(mime, data) for mime, data in event.data.items()}
        elif isinstance(event, Done):
            fields["status"] = event.status
        self._out.write(json.dumps(fields) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Do nothing: every line is written."""

    def _inline(self, mime: str, data: Any) -> Any:
        if is_json(mime):
            is_short = len(json.dumps(data)) <= _LONGEST_INLINE
        else:
            is_short = not isinstance(data, str) or (is_text(mime) and len(data) <= _LONGEST_INLINE)
        if is_short:
            return data
        try:
            return _file(save(self._files, mime, data))
        except ValueError as error:
            return {"problem": str(error)}
        except OSError as error:
            return {"problem": f"not written: {error.strerror}: {error.filename}"}


def _file(artifact: Artifact) -> dict[str, Any]:
    return {name: value for name, value in artifact._asdict().items() if value or name not in ("width", "height")}
