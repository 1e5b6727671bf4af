"""What text can say of a kernel's widgets, from their messages."""

from __future__ import annotations

from typing import Any

import pytest

from remote_kernel.session.events import Update
from remote_kernel.session.host import widgets
from remote_kernel.session.host.kernel_sockets import Message
from remote_kernel.session.host.widgets import Widgets

VIEW = "application/vnd.jupyter.widget-view+json"


def message(kind: str, **content: Any) -> Message:
    return Message(kind, "request", "session", "", "session", content, b"")


def opened(name: str, model: str, **state: Any) -> Message:
    return message("comm_open", comm_id=name, data={"state": {"_model_name": f"{model}Model", **state}})


def changed(name: str, **state: Any) -> Message:
    return message("comm_msg", comm_id=name, data={"method": "update", "state": state})


def displayed(name: str, text: str = "first", **more: Any) -> Message:
    return message("display_data", data={"text/plain": text, VIEW: {"model_id": name}}, metadata={}, **more)


IDLE = message("status", execution_state="idle")


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that returns the texts of the updates that these messages bring."""
    monkeypatch.setattr(widgets, "_SECONDS", 3600.0)
    kernel = Widgets()

    def take(*messages: Message) -> list[Update]:
        return [update for one in messages for update in kernel.take(one)]

    return take


@pytest.mark.parametrize(
    ("model", "state", "change", "text"),
    [
        ("Label", {"value": "a"}, {"value": "b"}, "b"),
        ("HTML", {"value": "<b>a</b>"}, {"value": "<b>1 &lt;\u20072</b>\n"}, "1 < 2"),
        ("IntText", {"value": 1, "description": "n:"}, {"value": 2}, "n: 2"),
        ("IntProgress", {"value": 0, "min": 0, "max": 4}, {"value": 3}, "|███████   |"),
        ("FloatProgress", {"value": 0.0, "min": 0.0, "max": 0.0}, {"value": 1.0, "description": "x"}, "x |          |"),
        ("FloatProgress", {"value": 0.0, "max": None}, {"value": "odd", "description": "x"}, "x |          |"),
        ("Button", {"description": "go"}, {"description": "stop"}, "stop"),
    ],
)
def test_widget_that_changes_is_its_last_state(texts: Any, model: str, state: Any, change: Any, text: str) -> None:
    assert texts(opened("w", model, **state), displayed("w"), changed("w", **change)) == []
    (update,) = texts(IDLE)
    assert update == Update("w", {"text/plain": text, VIEW: {"model_id": "w"}}, {})
    assert texts(IDLE) == []


def test_boxes_are_what_is_in_them_and_a_display_keeps_its_own_id(texts: Any) -> None:
    inner = opened("row", "HBox", children=["IPY_MODEL_a", "IPY_MODEL_b"])
    outer = opened("box", "VBox", children=["IPY_MODEL_row", "IPY_MODEL_c", "IPY_MODEL_unknown"])
    made = [opened(name, "Label", value=name) for name in "abc"]
    (update,) = texts(
        *made, inner, outer, displayed("box", transient={"display_id": "mine"}), changed("b", value="B"), IDLE
    )
    assert (update.id, update.data["text/plain"]) == ("mine", "a B\nc")


def test_what_does_not_change_or_is_not_shown_gives_nothing(texts: Any) -> None:
    shown = [opened("w", "Label", value="a"), displayed("w"), changed("w", value="a"), IDLE]
    hidden = [opened("v", "Label", value="a"), changed("v", value="b"), changed("no", value="b"), IDLE]
    layout = [opened("l", "Layout", value="a"), displayed("l"), changed("l", value="b"), IDLE]
    odd = [message("comm_msg", comm_id="w", data=None), message("comm_msg"), message("display_data", data={VIEW: 1})]
    assert texts(*shown, *hidden, *layout, *odd, IDLE) == []


def test_boxes_in_a_circle_end(texts: Any) -> None:
    circle = [opened("a", "HBox", children=["IPY_MODEL_b"]), opened("b", "HBox", children=["IPY_MODEL_a"])]
    assert texts(*circle, displayed("a"), changed("b", description="x"), IDLE) == []


def test_widgets_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "_MOST", 5)
    kernel = Widgets()
    for number in range(100):
        name = str(number)
        kernel.take(opened(name, "Label", value="a" * 10_000))
        kernel.take(opened(f"box {name}", "VBox", children=[f"IPY_MODEL_{name}"]))
        kernel.take(displayed(name))
    assert max(len(kernel._states), len(kernel._boxes), len(kernel._shown)) <= 5
    kernel.take(changed("99", value="b" * 10_000))
    (update,) = kernel.take(IDLE)
    assert len(update.data["text/plain"]) == 2000
