"""Choose what stands for something shown, out of the representations that the kernel sends of it.

A terminal and an agent read text: Markdown or plain text, never HTML. What says more than text is a file: an image, a
chart's specification, HTML that draws. So is what has no text worth reading: IPython's plain text for HTML is
`<IPython.core.display.HTML object>`. A table's HTML is its text again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_kernel.session.render.artifacts import Artifact

_MEDIA = ("image/", "audio/", "video/", "application/pdf")
WIDGET = "application/vnd.jupyter.widget-view+json"
_QUIET = re.compile(  # of use in a browser only: a widget, and code that loads another's
    r"application/(vnd\.jupyter\.widget-view\+json|vnd\.remote-kernel\.buffers\+json|vnd\.\w+_(load|exec)\..*)"
)
_DRAWS = ("<script", "<svg", "<canvas", "<img", "<iframe", "<video", "<audio")


class Shown:
    """What stands for one display: `text`, empty where there is none, and files; notes say what went wrong."""

    __slots__ = ("files", "notes", "text")

    def __init__(self, text: str, files: list[Artifact], notes: list[str]) -> None:
        self.text = text
        self.files = files
        self.notes = notes

    def __str__(self) -> str:
        """Give the lines for a reader, without a line end."""
        lines = [self.text] if self.text else []
        return "\n".join([*lines, *map(str, self.files), *self.notes])


def choose(data: dict[str, Any], folder: str) -> Shown:
    """Give what stands for the bundle; its files are written into the folder."""
    text, is_read = _best_text(data)
    files: list[Artifact] = []
    notes = []
    for mime in _as_files(data, is_read):
        from remote_kernel.session.render import artifacts  # most cells show none

        try:
            files.append(artifacts.save(folder, mime, data[mime]))
        except ValueError as error:
            notes.append(f"[{mime}: {error}]")
        except OSError as error:
            notes.append(f"[{mime}: not written: {error.strerror}: {error.filename}]")
    if files and not is_read:
        text = ""
    return Shown(text, files, notes)


def is_for_browsers(mime: str) -> bool:
    """True if nothing but a browser can make anything of this type."""
    return bool(_QUIET.fullmatch(mime))


def _best_text(data: dict[str, Any]) -> tuple[str, bool]:
    """Give the text, and whether it is one that says what is shown."""
    for mime in ("text/markdown", "text/plain", "text/latex"):
        text = _text(data.get(mime))
        if text and not (mime == "text/plain" and _is_stand_in(text, data)):
            return text, True
    return _text(data.get("text/plain")), False


def _is_stand_in(text: str, data: dict[str, Any]) -> bool:
    """Tell whether a plain text like `<Figure size 640x480 with 1 Axes>` stands for what another type holds.

    Altair's goes on with advice for a front end that does not know charts.
    """
    first, _, more = text.partition("\n")
    is_name = bool(re.fullmatch(r"<[^\n]*>", first)) and (not more or first.endswith(" object>"))
    return is_name and len(data) > 1 and len(text) < 600


def _as_files(data: dict[str, Any], is_read: bool) -> list[str]:
    media = [mime for mime in data if mime.startswith(_MEDIA)]
    if media:
        # An SVG beside a PNG is the same picture: one is enough.
        pictures = [mime for mime in media if mime.startswith("image/")]
        return pictures[:1] + [mime for mime in media if mime not in pictures]
    if not is_read:
        return [mime for mime in data if not mime.startswith("text/plain") and not is_for_browsers(mime)]
    # A chart's specification and its HTML are the same chart, and HTML may bring megabytes of a library.
    charts = [mime for mime in data if mime.endswith("json") and not is_for_browsers(mime)]
    return charts[:1] or (["text/html"] if any(tag in _text(data.get("text/html")) for tag in _DRAWS) else [])


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
