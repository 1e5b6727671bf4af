"""What a reader gets of a cell's events."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from remote_kernel.session.events import Away, Back, Clear, Display, Done, Error, Event, Queued, Started, Stream, Update
from remote_kernel.session.render import make_renderer
from remote_kernel.session.render.text import TextRenderer
from remote_kernel.session.render.view import View

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAYAAAC56t6BAAAAC0lEQVR4nGNgwAQAABUAAeW3kQQAAAAASUVORK5CYII="
OK = Done("ok", 1.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def render(tmp_path: Path):  # type: ignore[no-untyped-def]
    def render(*events: Event, terminal: bool = False, **options: object) -> tuple[str, str]:
        out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
        text = make_renderer(
            "text",
            out,
            err,
            View(files=str(tmp_path / "files"), output_file=str(tmp_path / "cell/output.txt"), **options),  # type: ignore[arg-type]
        )
        for event in events:
            text.feed(event)
        text.close()
        return out.getvalue(), err.getvalue()

    return render


def shown(text: str, **options: object) -> Display:
    return Display({"text/plain": text}, {}, **options)  # type: ignore[arg-type]


def test_streams_go_to_their_own_files_and_results_get_a_line(render) -> None:  # type: ignore[no-untyped-def]
    out, err = render(Stream("stdout", "a"), Stream("stderr", "warning\n"), shown("42", result=True), OK)

    assert out == "a\n42\n"
    assert err == "warning\n"


def test_text_without_line_end_stays_so(render) -> None:  # type: ignore[no-untyped-def]
    assert render(Stream("stdout", "a"), OK) == ("a", "")


def test_lines_are_written_as_they_come(tmp_path: Path) -> None:
    out = io.StringIO()
    text = TextRenderer(out, io.StringIO(), View(files=str(tmp_path), output_file=str(tmp_path / "output.txt")))
    text.feed(Stream("stdout", "first\nsec"))

    assert out.getvalue() == "first\n"
    text.close()
    assert out.getvalue() == "first\nsec\n", "what the caller says next begins a line"


def test_progress_leaves_its_last_state(render) -> None:  # type: ignore[no-untyped-def]
    bars = [Stream("stderr", f"\r{done:3}%|{'#' * (done // 10):10}|") for done in range(101)]

    assert render(*bars, OK)[1] == "100%|##########|\n"


def test_long_output_has_head_and_tail_and_a_file_with_all(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    lines = [f"line {number}\n" for number in range(100_000)]
    out, _ = render(*(Stream("stdout", line) for line in lines), OK)

    path = tmp_path / "cell/output.txt"
    head, note, tail = out.partition("... ")[0], out.partition("... ")[2].splitlines()[0], out.splitlines()[-1]
    assert len(out) < 8200
    assert head == "".join(lines[: head.count("\n")])
    assert tail == "line 99999"
    left_out = 100_000 - (out.count("\n") - 1)
    assert f"{left_out:,} lines" in note and str(path) in note
    assert path.read_text() == "".join(lines)
    assert path.stat().st_mode & 0o777 == 0o600


def test_output_within_the_budget_makes_no_file(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = "x" * 79 + "\n"
    out, _ = render(*[Stream("stdout", text)] * 100, OK)

    assert out == text * 100
    assert not (tmp_path / "cell").exists()


def test_budget_of_zero_shows_all(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert render(Stream("stdout", "x" * 100_000), OK, budget=0)[0] == "x" * 100_000
    assert not (tmp_path / "cell").exists()


def test_traceback_is_shown_after_any_flood(render) -> None:  # type: ignore[no-untyped-def]
    error = Error("ValueError", "no", ("\x1b[31mCell In[1], line 1\x1b[0m", "ValueError: no"))
    out, err = render(*[Stream("stdout", "x" * 99 + "\n")] * 1000, error, Done("error", 1.0))

    assert len(out) < 8200
    assert err == "Cell In[1], line 1\nValueError: no\n"


def test_many_updates_of_one_display_show_the_last(render) -> None:  # type: ignore[no-untyped-def]
    updates = (Update("d", {"text/plain": f"step {step}"}, {}) for step in range(100_000))
    out, _ = render(shown("step ?", id="d"), *updates, OK)

    assert out == "step ?\nstep 99999\n"


def test_cleared_output_leaves_what_came_last(render) -> None:  # type: ignore[no-untyped-def]
    events = [event for step in range(1000) for event in (Clear(wait=True), Stream("stdout", f"step {step}\n"))]

    assert render(Stream("stdout", "begin\n"), *events, OK)[0] == "begin\nstep 999\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": "   a\n0  1", "text/html": "<table>"}, "   a\n0  1\n"),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "**b**"}, "**b**\n"),
        ({"text/plain": "<IPython.core.display.Latex object>", "text/latex": "$x$"}, "$x$\n"),
        ({"text/plain": "<object at 0x1>"}, "<object at 0x1>\n"),
        ({}, ""),
    ],
)
def test_display_is_shown_as_the_text_that_says_most(render, data, text) -> None:  # type: ignore[no-untyped-def]
    assert render(Display(data, {}), OK)[0] == text


def test_image_is_a_file_and_a_line(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plot = Display({"image/png": PNG, "text/plain": "<Figure size 2x3 with 1 Axes>"}, {})
    out, _ = render(plot, plot, OK)

    (path,) = (tmp_path / "files").iterdir()
    assert out == f"[image/png 2x3, 68 B: {path}]\n" * 2
    assert path.read_bytes().startswith(b"\x89PNG")


def test_image_that_is_no_base64_is_a_note(render) -> None:  # type: ignore[no-untyped-def]
    assert render(Display({"image/png": "*no*"}, {}), OK)[0].startswith("[image/png: not base64")


def test_html_without_a_text_is_a_file(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = {"text/html": "<b>hi</b>", "text/plain": "<IPython.core.display.HTML object>"}
    out, _ = render(Display(data, {}), OK)

    (path,) = (tmp_path / "files").iterdir()
    assert out == f"[text/html, 9 B: {path}]\n"
    assert path.read_text() == "<b>hi</b>"


VEGA = {"mark": {"type": "bar"}, "data": {"values": [{"x": 1}]}}
VEGA_ADVICE = (
    "<VegaLite 6 object>\n\nIf you see this message, it means the renderer has not been properly enabled\n"
    "for the frontend that you are using. For more information, see\nhttps://altair-viz.github.io/x.html\n"
)
DRAWN = '<div id="altair-viz-4d"></div><script type="text/javascript">draw()</script>'


@pytest.mark.parametrize(
    ("data", "text", "mime"),
    [
        ({"text/html": DRAWN, "text/plain": "alt.Chart(...)"}, "alt.Chart(...)\n", "text/html"),
        ({"application/vnd.vegalite.v6.json": VEGA, "text/plain": VEGA_ADVICE}, "", "application/vnd.vegalite.v6.json"),
        (
            {"application/vnd.plotly.v1+json": VEGA, "text/plain": "Figure({...})", "text/html": DRAWN},
            "Figure({...})\n",
            "application/vnd.plotly.v1+json",
        ),
        ({"application/geo+json": VEGA, "text/plain": "Point(1 2)"}, "Point(1 2)\n", "application/geo+json"),
        ({"text/html": "<svg/>", "text/plain": "Point(1 2)"}, "Point(1 2)\n", "text/html"),
        ({"image/svg+xml": "<svg/>", "text/plain": "Point(1 2)"}, "Point(1 2)\n", "image/svg+xml"),
        ({"text/html": "<iframe/>", "text/plain": "<folium.folium.Map at 0x7f>"}, "", "text/html"),
    ],
)
def test_what_says_more_than_text_is_a_file(render, tmp_path: Path, data, text: str, mime: str) -> None:  # type: ignore[no-untyped-def]
    out, _ = render(Display(data, {}, result=True), OK)

    (path,) = (tmp_path / "files").iterdir()
    assert (
        out.startswith(f"{text}[{mime}, ")
        and out.endswith(f" B: {path}]\n")
        and out.count("\n") == len(text.splitlines()) + 1
    )


@pytest.mark.parametrize(
    "more",
    [
        {"text/html": "<table><tr><td>1</td></tr></table>"},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "5d"}},
        {"application/vnd.holoviews_exec.v0+json": ""},
        {"text/latex": "$x$"},
    ],
)
def test_what_says_no_more_than_text_is_no_file(render, tmp_path: Path, more) -> None:  # type: ignore[no-untyped-def]
    assert render(Display({"text/plain": "x", **more}, {}), OK)[0] == "x\n"
    assert not (tmp_path / "files").exists()


def test_cell_that_has_not_begun_is_not_said_to_go_on(render) -> None:  # type: ignore[no-untyped-def]
    _, err = render(Queued("7", 0.0), Away(1.0))

    assert err == "rkernel: the connection is away; the cell runs when it is back\n"


def test_notes_say_what_happens_to_the_cell(render) -> None:  # type: ignore[no-untyped-def]
    done = Done("lost", 3.0, "the kernel was killed")
    begun = (Queued("7", 0.0, ahead=2), Started(0.0))
    out, err = render(*begun, Stream("stdout", "a"), Away(1.0, "no route"), Back(2.0), done)

    assert out == "a\n"
    assert err.splitlines() == [
        "rkernel: waits behind 2 cells",
        "rkernel: the connection is away; the cell goes on (no route)",
        "rkernel: the connection is back",
        "rkernel: the kernel was killed",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_notes_cannot_steer_the_terminal(render, terminal: bool) -> None:  # type: ignore[no-untyped-def]
    _, err = render(Started(0.0), Away(1.0, "\x1b[2J\u202eno"), Done("lost", 2.0, "\x9bno"), terminal=terminal)

    assert "(?[2J?no)" in err
    assert "rkernel: ?no" in err


def test_output_and_traceback_are_in_order_where_both_go_to_one_place(tmp_path: Path) -> None:
    place = io.BytesIO()
    out = io.TextIOWrapper(place, write_through=False)
    err = io.TextIOWrapper(place, write_through=True)
    text = TextRenderer(out, err, View(files=str(tmp_path), output_file=str(tmp_path / "output.txt"), budget=100))
    for event in (Stream("stdout", "line\n" * 100), Error("ValueError", "no", ()), Done("error", 1.0, "sorry")):
        text.feed(event)

    assert place.getvalue().endswith(b"line\nValueError: no\nrkernel: sorry\n")
    out.detach(), err.detach()


def test_terminal_gets_text_as_it_comes_with_colours(render) -> None:  # type: ignore[no-untyped-def]
    out, _ = render(Stream("stdout", "\x1b[31mred"), Stream("stdout", "\r\x1b]0;title\agreen"), OK, terminal=True)

    assert out == "\x1b[31mred\rgreen\x1b[0m\n"


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    text = TextRenderer(out, sys.stderr, View(files=str(tmp_path), output_file=str(tmp_path / "output.txt")))
    text.feed(Stream("stdout", "é\ud83d\n"))
    text.close()

    assert raw.getvalue() == b"\\xe9\\ud83d\n"


def test_lone_surrogates_reach_the_file(render, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    render(Stream("stdout", "\ud83d\n" * 10_000), OK)

    assert (tmp_path / "cell/output.txt").read_text() == "\\ud83d\n" * 10_000


def test_closed_pipe_is_the_callers(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    text = TextRenderer(Closed(), io.StringIO(), View(files=str(tmp_path), output_file=str(tmp_path / "output.txt")))
    with pytest.raises(BrokenPipeError):
        text.feed(Stream("stdout", "a\n"))
