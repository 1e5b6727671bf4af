"""The fold of a cell's events into a notebook's outputs: as JupyterLab does, bounded, and linear."""

from __future__ import annotations

import time
from typing import Any

import pytest

from remote_kernel.session.events import Away, Clear, Display, Done, Error, Event, Queued, Started, Stream, Update
from remote_kernel.session.notebook.outputs import Outputs

PLAIN = "text/plain"


def fold(*events: Event, limit: int = 1 << 20, whole: str = "") -> list[dict[str, Any]]:
    outputs = Outputs(limit, whole)
    for event in events:
        outputs.add(event)
    return outputs.as_list()


def text_of(*pieces: str) -> str:
    outputs = fold(*(Stream("stdout", piece) for piece in pieces))
    assert [output["name"] for output in outputs] == ["stdout"]
    return str(outputs[0]["text"])


def shown(text: str, id: str = "", *, result: bool = False) -> Display:
    return Display({PLAIN: text}, {}, id, result)


def test_adjacent_texts_of_one_stream_are_one_output() -> None:
    outputs = fold(Stream("stdout", "a"), Stream("stdout", "b\n"), Stream("stderr", "c"), Stream("stdout", "d"))

    assert [(output["name"], output["text"]) for output in outputs] == [
        ("stdout", "ab\n"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def test_result_has_the_execution_count_and_a_display_has_none() -> None:
    outputs = fold(Started(1.0, execution_count=3), shown("x"), shown("y", result=True))

    assert outputs == [
        {"output_type": "display_data", "data": {PLAIN: "x"}, "metadata": {}},
        {"output_type": "execute_result", "data": {PLAIN: "y"}, "metadata": {}, "execution_count": 3},
    ]


def test_error_is_an_output() -> None:
    assert fold(Error("E", "v", ("one", "two"))) == [
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["one", "two"]}
    ]


def test_update_replaces_the_data_of_every_output_with_the_display_id() -> None:
    outputs = fold(shown("a", "d"), shown("b"), shown("c", "d"), Update("d", {PLAIN: "z"}, {"m": 1}))

    assert [output["data"][PLAIN] for output in outputs] == ["z", "b", "z"]
    assert outputs[0]["metadata"] == {"m": 1}


def test_update_of_an_unknown_display_shows_nothing() -> None:
    assert not Outputs().add(Update("d", {PLAIN: "z"}, {}))


def test_clear_removes_at_once() -> None:
    assert fold(Stream("stdout", "a"), shown("b", "d"), Clear(), Update("d", {PLAIN: "z"}, {})) == []


def test_clear_that_waits_removes_when_the_next_output_comes() -> None:
    assert len(fold(Stream("stdout", "a"), Clear(wait=True))) == 1
    assert fold(Stream("stdout", "a"), Clear(wait=True), Stream("stdout", "b"))[0]["text"] == "b"
    assert len(fold(shown("a"), Clear(wait=True), shown("b"), shown("c"))) == 2


def test_what_is_no_output_changes_nothing() -> None:
    outputs = Outputs()

    assert not any(outputs.add(event) for event in (Queued("1", 1.0), Away(1.0), Done("ok", 1.0)))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("10%\r20%", "\r30%"), "30%"),
        (("abc\rX",), "Xbc"),
        (("one\r", "\ntwo"), "one\ntwo"),
        (("one\r\ntwo\r\n",), "one\ntwo\n"),
        (("done\n50%", "\r100%\n", "end"), "done\n100%\nend"),
        (("abc\b\bX",), "aXc"),
        (("\b\ba",), "a"),
        (("loading", "\r\x1b[Kok"), "ok"),
        (("outer 0%", "\n\rinner 9%\x1b[A\router 9%", "\n\n"), "outer 0%\nouter 9%\ninner 9%\n"),
        (("\x1b[31mred\x1b[0m\x1b[1K.",), "   ."),
        (("10%\r", "\x1b[32m", "20%", "\x1b[0m"), "\x1b[32m20%\x1b[0m"),
        (("\x1b[31mred\x1b[0m\r", "\x1b[32mgreen\x1b[0m\n"), "\x1b[32mgreen\x1b[0m\n"),
    ],
)
def test_overwritten_text_is_stored_as_it_is_seen(pieces: tuple[str, ...], text: str) -> None:
    assert text_of(*pieces) == text


def test_progress_bar_leaves_one_line() -> None:
    bar = [f"\r{n / 100:6.2f}%|{'#' * (n // 500):20}| {n}/10000 [00:00<00:00]" for n in range(10_001)]

    assert len(text_of(*bar, "\n")) < 100


def test_half_a_million_pieces_fold_in_linear_time() -> None:
    outputs = Outputs(100 << 20)
    began = time.process_time()
    for number in range(500_000):
        outputs.add(Stream("stdout", f"line {number}\n"))
    seconds = time.process_time() - began

    assert outputs.as_list()[0]["text"].count("\n") == 500_000
    assert seconds < 10  # 0.5 s on an idle machine; were it quadratic, hours


def test_hundred_thousand_updates_keep_the_last() -> None:
    outputs = Outputs()
    outputs.add(shown("0", "d"))
    for number in range(100_000):
        outputs.add(Update("d", {PLAIN: str(number)}, {}))

    assert [output["data"][PLAIN] for output in outputs.as_list()] == ["99999"]


def test_too_much_text_keeps_head_and_tail_and_says_where_the_whole_is() -> None:
    lines = [f"{number:09}\n" for number in range(400_000)]
    head, note, tail = fold(*(Stream("stdout", line) for line in lines), limit=1 << 20, whole="cells/7.jsonl")

    assert head["text"].startswith("000000000\n") and head["text"].endswith("\n")
    assert len(tail["text"].split("\n")[0]) == 9 and tail["text"].endswith("000399999\n")
    assert note["name"] == "stderr" and "the whole is in cells/7.jsonl" in note["text"]
    left_out = 4_000_000 - len(head["text"]) - len(tail["text"])
    assert f"{left_out:,} characters in {left_out // 10:,} lines" in note["text"]
    assert 0.8 * (1 << 20) < len(head["text"]) + len(tail["text"]) < 1.2 * (1 << 20)


@pytest.mark.parametrize("text", ["x" * 5_000_000, "x" * 99 + "\n"])
def test_text_in_one_huge_piece_is_bounded_too(text: str) -> None:
    outputs = fold(Stream("stdout", text * (5_000_000 // len(text))), limit=1 << 20)

    assert sum(len(output["text"]) for output in outputs) < 1.3 * (1 << 20)


def test_text_a_little_over_half_is_one_output() -> None:
    outputs = fold(*(Stream("stdout", f"{number:09}\n") for number in range(70_000)), limit=1 << 20)

    assert len(outputs) == 1 and len(outputs[0]["text"]) == 700_000


def test_too_many_displays_keep_the_first_and_the_last() -> None:
    outputs = fold(*(shown(str(number)) for number in range(5000)), limit=1 << 20)

    assert outputs[0]["data"][PLAIN] == "0" and outputs[-1]["data"][PLAIN] == "4999"
    assert len(outputs) < 1200
    assert any("outputs left out here" in str(output.get("text")) for output in outputs)


def test_one_large_image_is_kept() -> None:
    image = "A" * (5 << 20)

    assert fold(Display({"image/png": image}, {}), Stream("stdout", "x"), limit=1 << 20)[0]["data"] == {
        "image/png": image
    }


def test_display_ids_lead_to_their_outputs() -> None:
    outputs = Outputs(1 << 20)
    for number in range(5000):
        outputs.add(shown(str(number), f"d{number}"))
    listed = outputs.as_list()

    assert len(outputs.display_ids) == len(listed) - 1
    for name, places in outputs.display_ids.items():
        assert [listed[place]["data"][PLAIN] for place in places] == [name[1:]]
