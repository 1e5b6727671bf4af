"""The words of a cell's life: written and read back the same, and older readers of newer lines."""

from __future__ import annotations

import json

import pytest

from remote_kernel.session import events
from remote_kernel.session.events import Clear, Display, Done, Error, Event, Queued, Started, Stream, Update

EXAMPLES: list[Event] = [
    Queued("7", 1.5, ahead=2, asks=True),
    Started(1.75, execution_count=3, generation=2),
    Stream("stdout", "a\r\x1b[1mb\n\ud83d"),
    Display({"text/plain": "1", "image/png": "iVBOR"}, {"isolated": True}, id="d1", result=True),
    Update("d1", {"text/plain": "2"}, {}),
    Clear(wait=True),
    Error("ValueError", "no", ("Traceback", "ValueError: no")),
    events.InputWanted("name? ", password=True),
    events.Away(2.0, "no route"),
    events.Back(3.0),
    Done("ok", 4.0, seconds=2.25, execution_count=3, generation=2),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_event_is_read_back_the_same_from_its_line(event: Event) -> None:
    line = events.to_line(event)

    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert events.from_fields(json.loads(line)) == event


def test_event_of_a_newer_version_is_left_out() -> None:
    assert events.from_fields({"event": "hologram", "depth": 3}) is None


def test_field_of_a_newer_version_is_left_out() -> None:
    assert events.from_fields({"event": "clear", "wait": True, "fade": 2}) == Clear(wait=True)


def test_line_without_a_needed_field_is_refused() -> None:
    with pytest.raises(ValueError, match="stream"):
        events.from_fields({"event": "stream", "name": "stdout"})


def test_every_verdict_has_a_status_of_its_own() -> None:
    assert len(set(events.VERDICTS.values())) == len(events.VERDICTS)
    assert Done("away", 0.0).status == 6
