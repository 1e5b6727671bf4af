"""Fold what a cell gives into a notebook's outputs, as JupyterLab does, and within bounds.

Usable alone: add a cell's events one after the other, and ask for the list of nbformat 4 outputs at any time.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from remote_kernel.session.events import Clear, Display, Error, Event, Started, Stream, Update
from remote_kernel.session.render.ansi import StreamText

LIMIT_CHARACTERS = 1_000_000

# What an output costs of the limit besides its text: JupyterLab makes a widget of each. An image's data is shown
# quickly, and costs less than text.
_OUTPUT_COST = 1000
_DATA_DIVISOR = 6


class _StreamOutput:
    """An output that is text of one stream."""

    def __init__(self, name: str, text: StreamText | None = None) -> None:
        self.name = name
        self.text = text or StreamText()

    @property
    def cost(self) -> int:
        return _OUTPUT_COST + len(self.text)


class _DataOutput:
    """An output that is something displayed, a result, or an error; `id` is the display id."""

    def __init__(self, fields: dict[str, Any], id: str = "") -> None:
        self.fields, self.id = fields, id
        self.cost = _cost(fields)


class Outputs:
    """One cell's outputs.

    Half of `limit`, in characters, is for the first outputs and half for the last; what lies between is left out, and a
    note in its place says how much it was and that the whole is in `whole`. Not safe to be used by two threads at once.
    """

    def __init__(self, limit: int = LIMIT_CHARACTERS, whole: str = "") -> None:
        self.execution_count: int | None = None
        self._half, self.whole = limit // 2, whole
        self._empty()

    def _empty(self) -> None:
        self._head: list[_StreamOutput | _DataOutput] = []
        self._tail: deque[_StreamOutput | _DataOutput] = deque()
        self._last: _StreamOutput | _DataOutput | None = None
        self._cost = 0  # of what is complete in the half that is being filled
        self._full = False  # the first half
        self._displays: dict[str, list[_DataOutput]] = {}
        self._left_out_characters = self._left_out_lines = self._left_out_outputs = 0
        self._clears_next = False

    @staticmethod
    def of_text(text: str) -> list[dict[str, Any]]:
        """Return the outputs that are a sentence of ours."""
        return [{"output_type": "stream", "name": "stderr", "text": text}]

    def add(self, event: Event) -> bool:
        """Add an event of this cell; true if there is anything new to show. Others than outputs are left out."""
        if isinstance(event, Stream):
            return self._write(event.name, event.text)
        if isinstance(event, Display):
            fields: dict[str, Any] = {"output_type": "display_data", "data": event.data, "metadata": event.metadata}
            if event.result:
                fields |= {"output_type": "execute_result", "execution_count": self.execution_count}
            self._show(_DataOutput(fields, event.id))
        elif isinstance(event, Update):
            return self.update(event)
        elif isinstance(event, Error):
            lines = list(event.traceback)
            fields = {"output_type": "error", "ename": event.name, "evalue": event.value, "traceback": lines}
            self._show(_DataOutput(fields))
        elif isinstance(event, Clear):
            if event.wait:
                self._clears_next = True
                return False
            self._empty()
        elif isinstance(event, Started):
            self.execution_count = event.execution_count
        else:
            return False
        return True

    def update(self, event: Update) -> bool:
        """Replace the data of every output with this display id; false where there is none. Any cell may send it."""
        shown = self._displays.get(event.id)
        if not shown:
            return False
        for output in shown:
            output.fields = {**output.fields, "data": event.data, "metadata": event.metadata}
        return True

    @property
    def display_ids(self) -> dict[str, list[int]]:
        """Return the places in `as_list` of the outputs with a display id."""
        places: dict[str, list[int]] = {}
        if self._displays:
            for first, half in ((0, self._head), (len(self._head) + self._has_gap - self._is_joined, self._tail)):
                for number, output in enumerate(half, first):
                    if isinstance(output, _DataOutput) and output.id:
                        places.setdefault(output.id, []).append(number)
        return places

    def as_list(self) -> list[dict[str, Any]]:
        """Return the outputs as nbformat 4 has them. Their data is shared with the events that brought it."""
        outputs = [_fields(output) for output in self._head]
        more = [_fields(output) for output in self._tail]
        if self._has_gap:
            outputs += self.of_text(self._note())
        elif self._is_joined:
            outputs[-1]["text"] += more.pop(0)["text"]
        return outputs + more

    @property
    def _has_gap(self) -> bool:
        return bool(self._left_out_outputs or self._left_out_characters)

    @property
    def _is_joined(self) -> bool:
        """True if the two halves meet within one text."""
        if self._has_gap or not self._tail:
            return False
        last, first = self._head[-1], self._tail[0]
        return isinstance(last, _StreamOutput) and isinstance(first, _StreamOutput) and last.name == first.name

    def _note(self) -> str:
        what = []
        if self._left_out_characters:
            what.append(f"{self._left_out_characters:,} characters in {self._left_out_lines:,} lines")
        if self._left_out_outputs:
            what.append(f"{self._left_out_outputs:,} outputs")
        where = f"; the whole is in {self.whole}" if self.whole else ""
        return f"[{' and '.join(what)} left out here{where}]\n"

    def _write(self, name: str, text: str) -> bool:
        if not text:
            return False
        if self._clears_next:
            self._empty()
        last = self._last
        if not (isinstance(last, _StreamOutput) and last.name == name):
            last = _StreamOutput(name)
            self._put(last)
        before = len(last.text)
        last.text.append(text)
        self._cost += len(last.text) - before
        if self._cost > self._half:
            self._trim()
        return True

    def _show(self, output: _DataOutput) -> None:
        if self._clears_next:
            self._empty()
        self._put(output)
        if output.id:
            self._displays.setdefault(output.id, []).append(output)
        if self._cost > self._half:
            self._trim()

    def _put(self, output: _StreamOutput | _DataOutput) -> None:
        (self._tail if self._full else self._head).append(output)
        self._last = output
        self._cost += output.cost

    def _trim(self) -> None:
        if not self._full:
            self._full = True
            last = self._head[-1]
            # A display stays, however large: it may be the only one.
            keep = isinstance(last, _StreamOutput) and self._half - (self._cost - len(last.text))
            self._cost, self._last = 0, None
            if isinstance(last, _StreamOutput):
                self._put(_StreamOutput(last.name, last.text.cut(max(0, keep))))
        while self._cost > self._half:
            first = self._tail[0]
            piece = first.text.drop_piece() if isinstance(first, _StreamOutput) else ""
            if piece:
                self._cost -= len(piece)
                self._left_out_characters += len(piece)
                self._left_out_lines += piece.count("\n")
            elif len(self._tail) == 1:
                return
            else:
                self._forget(self._tail.popleft())

    def _forget(self, output: _StreamOutput | _DataOutput) -> None:
        self._cost -= output.cost
        if isinstance(output, _StreamOutput):
            self._left_out_characters += len(output.text)
            self._left_out_lines += str(output.text).count("\n")
        else:
            self._left_out_outputs += 1
            if output.id:
                self._displays[output.id].remove(output)


def _fields(output: _StreamOutput | _DataOutput) -> dict[str, Any]:
    if isinstance(output, _StreamOutput):
        return {"output_type": "stream", "name": output.name, "text": str(output.text)}
    return output.fields


def _cost(fields: dict[str, Any]) -> int:
    if "traceback" in fields:
        return _OUTPUT_COST + sum(map(len, fields["traceback"]))
    data = fields["data"].values()
    size = sum(len(value) if isinstance(value, str) else len(json.dumps(value)) for value in data)
    return _OUTPUT_COST + size // _DATA_DIVISOR
