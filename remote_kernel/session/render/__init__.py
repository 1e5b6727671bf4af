"""Turn a cell's events into what a terminal, an agent or a script reads, as they come.

Three forms: `text`, for readers; `json`, one document at the end; `jsonl`, one line for each event. Each takes
feed(event) for every event and close() at the end, and writes to files that the caller gives: nothing here prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote_kernel.session.render.view import Renderer, TextFile, View


def make_renderer(form: str, out: TextFile, err: TextFile, view: View) -> Renderer:
    """Return the renderer of a form, `text`, `json` or `jsonl`, for one cell."""
    if form != "text":
        from remote_kernel.session.render import json

        return json.JsonLinesRenderer(out, files=view.files) if form == "jsonl" else json.JsonRenderer(out, view)
    if not view.budget and out.isatty() and err.isatty():
        from remote_kernel.session.render.terminal import TerminalRenderer

        return TerminalRenderer(out, err, view)
    from remote_kernel.session.render.text import TextRenderer

    return TextRenderer(out, err, view)
