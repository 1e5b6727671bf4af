"""What a script gets of a cell's events."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.session import events
from remote_kernel.session.events import Clear, Display, Done, Error, Event, Queued, Started, Stream, Update
from remote_kernel.session.render.json import JsonLinesRenderer, JsonRenderer
from remote_kernel.session.render.view import View

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAYAAAC56t6BAAAAC0lEQVR4nGNgwAQAABUAAeW3kQQAAAAASUVORK5CYII="
BEGIN = [Queued("7", 0.0), Started(1.0, execution_count=3, generation=2)]
OK = Done("ok", 2.0, seconds=1.0, execution_count=3, generation=2)


def report(folder: Path, *given: Event, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    made = JsonRenderer(out, View(files=str(folder / "files"), output_file=str(folder / "output.txt"), **options))
    for event in [*BEGIN, *given]:
        made.feed(event)
    made.close()
    (line,) = out.getvalue().splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def test_report_says_all_of_a_cell(tmp_path: Path) -> None:
    result = Display({"text/plain": "42"}, {}, result=True)

    assert report(tmp_path, Stream("stdout", "\x1b[31ma\n"), Stream("stderr", "w"), result, OK) == {
        "version": 1,
        "cell": "7",
        "verdict": "ok",
        "status": 0,
        "message": "",
        "execution_count": 3,
        "generation": 2,
        "seconds": 1.0,
        "stdout": "a\n",
        "stderr": "w",
        "result": {"text": "42", "files": [], "notes": [], "id": ""},
        "displays": [],
        "displays_left_out": 0,
        "error": None,
        "truncated": [],
        "output_file": None,
    }


def test_report_of_an_exception_has_its_parts(tmp_path: Path) -> None:
    error = Error("ValueError", "no", ("\x1b[31m---\x1b[0m", "Cell In[1], line 1\n", "ValueError: no"))
    document = report(tmp_path, error, Done("error", 2.0))

    assert (document["verdict"], document["status"]) == ("error", 1)
    assert document["error"] == {
        "name": "ValueError",
        "value": "no",
        "traceback": "Cell In[1], line 1\nValueError: no",
    }


def test_report_bounds_each_text_and_names_the_file_with_all(tmp_path: Path) -> None:
    texts = [Stream("stdout", "o" * 99 + "\n"), Stream("stderr", "e\n")] * 1000
    document = report(tmp_path, *texts, Display({"text/plain": "r" * 9000}, {}, result=True), OK)

    assert len(document["stdout"]) < 8200 and "left out" in document["stdout"]
    assert document["stderr"] == "e\n" * 1000
    assert len(document["result"]["text"]) < 8200
    assert document["truncated"] == ["stdout", "result"]
    whole = Path(document["output_file"]).read_text()
    assert whole == ("o" * 99 + "\ne\n") * 1000 + "r" * 9000 + "\n"


def test_report_has_images_as_files_and_the_last_update(tmp_path: Path) -> None:
    document = report(
        tmp_path,
        Display({"image/png": PNG, "text/plain": "<Figure>"}, {}),
        Display({"text/plain": "step 0"}, {}, id="d"),
        *(Update("d", {"text/plain": f"step {step}"}, {}) for step in range(1000)),
        OK,
    )

    plot, step = document["displays"]
    (file,) = plot["files"]
    assert file == {"type": "image/png", "path": file["path"], "size": 68, "width": 2, "height": 3}
    assert Path(file["path"]).read_bytes().startswith(b"\x89PNG")
    assert step["text"] == "step 999"


def test_report_keeps_the_first_and_last_of_many_displays(tmp_path: Path) -> None:
    document = report(tmp_path, *(Display({"text/plain": str(number)}, {}) for number in range(1000)), OK)

    texts = [shown["text"] for shown in document["displays"]]
    assert texts == [str(number) for number in (*range(20), *range(920, 1000))]
    assert document["displays_left_out"] == 900
    assert document["truncated"] == ["displays"]
    assert Path(document["output_file"]).read_text() == "".join(f"{number}\n" for number in range(1000))


def test_report_without_a_budget_has_everything(tmp_path: Path) -> None:
    shown = [Display({"text/plain": str(number)}, {}) for number in range(1000)]
    document = report(tmp_path, Stream("stdout", "x" * 100_000), *shown, OK, budget=0)

    assert len(document["stdout"]) == 100_000 and len(document["displays"]) == 1000
    assert document["truncated"] == [] and document["output_file"] is None


def test_report_has_every_result_of_a_cell_that_gives_several(tmp_path: Path) -> None:
    results = [Display({"text/plain": text}, {}, result=True) for text in "123"]
    between = Display({"text/plain": "shown"}, {})
    document = report(tmp_path, results[0], results[1], between, results[2], OK)

    assert [shown["text"] for shown in document["displays"]] == ["1", "2", "shown"]
    assert document["result"]["text"] == "3"


def test_report_leaves_out_what_was_cleared(tmp_path: Path) -> None:
    document = report(tmp_path, Stream("stdout", "a\n"), Clear(wait=True), Stream("stdout", "b\n"), OK)

    assert document["stdout"] == "b\n"


def test_report_of_a_cell_that_goes_on_says_so(tmp_path: Path) -> None:
    document = report(tmp_path, Stream("stdout", "a"))

    assert (document["verdict"], document["status"]) == ("running", events.VERDICTS["running"])
    assert (document["stdout"], document["generation"], document["execution_count"]) == ("a", 2, 3)


def test_lines_are_the_events_with_a_version(tmp_path: Path) -> None:
    out = io.StringIO()
    lines = JsonLinesRenderer(out, files=str(tmp_path))
    given = [Stream("stdout", "\x1b[31ma\ud83d"), Display({"image/png": PNG, "text/plain": "p"}, {}), OK]
    for event in given:
        lines.feed(event)
    lines.close()

    stream, display, done = map(json.loads, out.getvalue().splitlines())
    assert stream == {"version": 1, "event": "stream", "name": "stdout", "text": "\x1b[31ma\ud83d"}
    assert display["data"]["text/plain"] == "p"
    assert Path(display["data"]["image/png"]["path"]).exists()
    assert (done["event"], done["verdict"], done["status"]) == ("done", "ok", 0)


def test_lines_say_what_is_wrong_with_an_image(tmp_path: Path) -> None:
    out = io.StringIO()
    JsonLinesRenderer(out, files=str(tmp_path)).feed(Display({"image/png": "!"}, {}))

    assert "not base64" in json.loads(out.getvalue())["data"]["image/png"]["problem"]


@pytest.mark.parametrize("data", [{"application/json": {"a": [1]}}, {"text/html": "<b>"}])
def test_lines_keep_short_data(tmp_path: Path, data: dict[str, Any]) -> None:
    out = io.StringIO()
    JsonLinesRenderer(out, files=str(tmp_path)).feed(Display(data, {}))

    assert json.loads(out.getvalue())["data"] == data
