"""Follow what a kernel's widgets show, as far as text can say it: a progress bar of `tqdm.auto` is made of three.

A widget's display holds its first state only, and what changes comes as messages of its comm, for a browser to draw.
Here it becomes an update of that display: now and then while the cell runs, and when it ends.
"""

from __future__ import annotations

import html
import re
import time
from typing import Any

from remote_kernel.session.events import Update
from remote_kernel.session.host.kernel_sockets import Message
from remote_kernel.session.render.artifacts import WIDGET

_MOST = 2000  # widgets that are known, and of them those that are shown: the newest
_SECONDS = 1.0  # between two updates of one display while its cell runs
_DEEPEST = 8  # boxes within boxes
_LONGEST = 2000  # characters of a value
_BAR = 10  # characters
_KEPT = ("_model_name", "children", "description", "value", "min", "max")


class Widgets:
    """The widgets of one kernel."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, Any]] = {}
        self._boxes: dict[str, str] = {}  # the box that a widget is in
        self._shown: dict[str, _ShownWidget] = {}
        self._changed: dict[str, None] = {}  # those shown whose state is newer than what was told of them

    def take(self, message: Message) -> list[Update]:
        """Handle a message of iopub, and return the updates that are due; with a cell's `idle`, all that are left."""
        kind, content = message.kind, message.content
        if kind in ("comm_open", "comm_msg"):
            self._update_state(str(content.get("comm_id")), content.get("data"), is_new=kind == "comm_open")
        elif kind in ("display_data", "execute_result"):
            self._update_display(content)
        if not self._changed or not (kind == "comm_msg" or content.get("execution_state") == "idle"):
            return []
        return self._due(0.0 if kind == "status" else _SECONDS)

    def _update_state(self, name: str, data: Any, *, is_new: bool) -> None:
        state = data.get("state") if isinstance(data, dict) else None
        if not isinstance(state, dict) or not (name in self._states or (is_new and _is_shown_as_text(state))):
            return
        known = self._states.setdefault(name, {})
        known.update({key: _bounded(state[key]) for key in _KEPT if key in state})
        _forget_oldest(self._states)
        for child in _children(state):
            self._boxes[child] = name
            _forget_oldest(self._boxes)
        for _ in range(_DEEPEST):
            if name in self._shown:
                self._changed[name] = None
            name = self._boxes.get(name, "")

    def _update_display(self, content: dict[str, Any]) -> None:
        if identity := display_id(content):
            model = widget_of(content)
            if model in self._states:
                self._shown[model] = _ShownWidget(identity, content, self._text(model))
                _forget_oldest(self._shown)

    def _due(self, seconds: float) -> list[Update]:
        now = time.monotonic()
        updates = []
        for name in list(self._changed):
            shown = self._shown.get(name)
            if shown and now - shown.at < seconds:
                continue
            del self._changed[name]
            text = self._text(name)
            if shown and text not in ("", shown.text):
                shown.text, shown.at = text, now
                updates.append(Update(shown.id, {**shown.data, "text/plain": text}, shown.metadata))
        return updates

    def _text(self, name: str, depth: int = 0) -> str:
        state = self._states.get(name)
        if state is None or depth > _DEEPEST:
            return ""
        kind, value = str(state.get("_model_name")), state.get("value", "")
        if children := _children(state):
            parts = [self._text(child, depth + 1) for child in children]
            return (" " if kind == "HBoxModel" else "\n").join(filter(None, parts))
        text = " ".join(html.unescape(re.sub(r"<[^>]*>", "", str(value))).split())
        if kind.endswith("ProgressModel"):
            text = _bar(state)
        described = str(state.get("description") or "")
        return f"{described} {text}".strip()


class _ShownWidget:
    """A display of a widget, and what was last told of it."""

    def __init__(self, identity: str, content: dict[str, Any], text: str) -> None:
        self.id, self.text, self.at = identity, text, time.monotonic()
        self.data, self.metadata = dict(content.get("data") or {}), dict(content.get("metadata") or {})


def display_id(content: dict[str, Any]) -> str:
    """Return the id by which a display is updated: its own, else that of the widget in it; empty where it has none."""
    return str((content.get("transient") or {}).get("display_id") or "") or widget_of(content)


def widget_of(content: dict[str, Any]) -> str:
    """Return the id of the widget that a display shows; empty for another display."""
    view = (content.get("data") or {}).get(WIDGET)
    return str(view.get("model_id") or "") if isinstance(view, dict) else ""


def _is_shown_as_text(state: dict[str, Any]) -> bool:
    return not str(state.get("_model_name")).endswith(("LayoutModel", "StyleModel"))


def _bounded(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, (str, list)) else value


def _children(state: dict[str, Any]) -> list[str]:
    children = state.get("children")
    names = children if isinstance(children, list) else []
    return [name.removeprefix("IPY_MODEL_") for name in names if isinstance(name, str)]


def _bar(state: dict[str, Any]) -> str:
    try:
        low, high, value = (float(state.get(name) or 0) for name in ("min", "max", "value"))
        done = min(max((value - low) / (high - low), 0.0), 1.0)
    except (TypeError, ValueError, ArithmeticError):
        done = 0.0
    return f"|{'█' * int(done * _BAR):{_BAR}}|"


def _forget_oldest(known: dict[str, Any]) -> None:
    if len(known) > _MOST:
        del known[next(iter(known))]
