"""Whatever a kernel sends, every form takes it."""

from __future__ import annotations

import io
import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_kernel.session.events import Clear, Display, Done, Error, Event, Queued, Started, Stream, Update
from remote_kernel.session.render import make_renderer
from remote_kernel.session.render.terminal import TerminalRenderer
from remote_kernel.session.render.view import View

TEXT = st.text(alphabet="ab\n\r\b\x1b[]mAJK1;\a\\é\ud83d\0\x9b", max_size=40)
TYPES = ["text/plain", "text/html", "text/markdown", "image/png", "image/svg+xml", "application/json", "", "x"]
DATA = st.dictionaries(
    st.sampled_from(TYPES),
    TEXT | st.none() | st.integers() | st.lists(TEXT, max_size=3) | st.just({"a": [1]}),
    max_size=3,
)
NAMES = st.sampled_from(["", "d", "e"])
EVENT = st.one_of(
    st.builds(Stream, st.sampled_from(["stdout", "stderr", "other"]), TEXT),
    st.builds(Display, DATA, st.just({}), NAMES, st.booleans()),
    st.builds(Update, NAMES, DATA, st.just({})),
    st.builds(Clear, st.booleans()),
    st.builds(Error, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    st.builds(Queued, st.just("1"), st.just(0.0), st.integers(0, 2)),
    st.builds(Started, st.just(0.0)),
)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "terminal"])
@given(events=st.lists(EVENT, max_size=12), ends=st.booleans(), budget=st.sampled_from([None, 0, 5, 40]))
@settings(deadline=None, max_examples=60)
def test_every_form_takes_every_event(form: str, events: list[Event], ends: bool, budget: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Screen(), Screen()) if form == "terminal" else (io.StringIO(), io.StringIO())
        kind, limit = ("text", 0) if form == "terminal" else (form, budget)
        renderer = make_renderer(kind, out, err, View(files=folder, output_file=f"{folder}/output.txt", budget=limit))
        assert isinstance(renderer, TerminalRenderer) is (form == "terminal")
        for event in [*events, *([Done("ok", 1.0)] if ends else [])]:
            renderer.feed(event)
        renderer.close()
        written = out.getvalue()
        renderer.close()
        assert out.getvalue() == written, "the second close() does nothing"

    if form == "json":
        assert json.loads(written)["version"] == 1
    elif form == "jsonl":
        assert [json.loads(line)["version"] for line in written.splitlines()] == [1] * (len(events) + ends)
    elif form == "text":
        assert not set("\x1b\b\a\0") & set(written + err.getvalue())
    else:
        assert "\x1b]" not in written and "\x9b" not in written
