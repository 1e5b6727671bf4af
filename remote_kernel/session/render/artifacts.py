"""Choose what stands for something shown, out of its mime bundle: a text, and files for what is none.

A terminal and an agent read text: Markdown or plain text, never HTML. What says more than text is a file: an image, a
chart's specification, HTML that draws. So is what has no text worth reading: IPython's plain text for HTML is
`<IPython.core.display.HTML object>`. A table's HTML is its text again. A file is named by its content, so the same plot
shown twice, or read again from the journal, is one file.
"""

from __future__ import annotations

import binascii
import json
import os
import re
from typing import Any, NamedTuple

from remote_kernel.files import write_private

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/svg+xml": "svg",
    "application/pdf": "pdf",
    "application/javascript": "js",
    "application/geo+json": "geojson",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "video/mp4": "mp4",
    "text/html": "html",
    "text/markdown": "md",
    "text/latex": "tex",
    "text/csv": "csv",
}
_TEXTS = ("text/", "application/javascript", "application/xml")
_MEDIA = ("image/", "audio/", "video/", "application/pdf")
WIDGET = "application/vnd.jupyter.widget-view+json"
_QUIET = (  # of use in a browser only: a widget, and code that loads another's
    r"application/(vnd\.jupyter\.widget-view\+json|vnd\.remote-kernel\.buffers\+json|vnd\.\w+_(load|exec)\..*)"
)
_DRAWS = ("<script", "<svg", "<canvas", "<img", "<iframe", "<video", "<audio")


class Artifact(NamedTuple):
    """A file that holds one representation of something shown. `size` in bytes; width and height in pixels, or 0."""

    type: str
    path: str
    size: int
    width: int = 0
    height: int = 0

    def __str__(self) -> str:
        pixels = f" {self.width}x{self.height}" if self.width else ""
        return f"[{self.type}{pixels}, {_amount(self.size)}: {self.path}]"


class Representation:
    """What stands for one display: `text`, empty where there is none, and files; notes say what went wrong."""

    __slots__ = ("files", "notes", "text")

    def __init__(self, text: str, files: list[Artifact], notes: list[str]) -> None:
        self.text = text
        self.files = files
        self.notes = notes

    def __str__(self) -> str:
        """Return the lines for a reader, without a line end."""
        lines = [self.text] if self.text else []
        return "\n".join([*lines, *map(str, self.files), *self.notes])


def represent(data: dict[str, Any], folder: str) -> Representation:
    """Return what stands for a mime bundle; its files are written into the folder."""
    text, is_read = _best_text(data)
    files: list[Artifact] = []
    notes = []
    for mime in _as_files(data, is_read):
        try:
            files.append(save(folder, mime, data[mime]))
        except ValueError as error:
            notes.append(f"[{mime}: {error}]")
        except OSError as error:
            notes.append(f"[{mime}: not written: {error.strerror}: {error.filename}]")
    if files and not is_read:
        text = ""
    return Representation(text, files, notes)


def is_for_browsers(mime: str) -> bool:
    """True if nothing but a browser can make anything of this type."""
    return bool(re.fullmatch(_QUIET, mime))


def _best_text(data: dict[str, Any]) -> tuple[str, bool]:
    """Return the text, and whether it is one that says what is shown."""
    for mime in ("text/markdown", "text/plain", "text/latex"):
        text = _text(data.get(mime))
        if text and not (mime == "text/plain" and _is_stand_in(text, data)):
            return text, True
    return _text(data.get("text/plain")), False


def _is_stand_in(text: str, data: dict[str, Any]) -> bool:
    """True if a plain text like `<Figure size 640x480 with 1 Axes>` stands for what another type holds.

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


def save(folder: str, mime: str, data: Any) -> Artifact:
    """Write the data, as a message's mime bundle holds it, into the folder, and return the file.

    The folder is made, for its owner only, when it is missing. Raises ValueError where binary data is no base64, and
    OSError where the file cannot be written.
    """
    content = decode(mime, data)
    path = os.path.join(folder, f"{_digest(content)}.{_extension(mime)}")
    if not _is_there(path, len(content)):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        write_private(path, content)
    return Artifact(mime, path, len(content), *pixels(content))


def is_text(mime: str) -> bool:
    """True if a mime bundle holds this type as text; other types are base64, and JSON is itself."""
    return mime.startswith(_TEXTS) or mime.endswith("+xml")


def is_json(mime: str) -> bool:
    """True if a mime bundle holds this type as JSON."""
    return mime == "application/json" or mime.endswith(("+json", ".json"))  # Altair 6: vnd.vegalite.v6.json


def decode(mime: str, data: Any) -> bytes:
    """Return the bytes that the data stands for; raises ValueError where it is no base64."""
    if isinstance(data, list) and all(isinstance(part, str) for part in data) and not is_json(mime):
        data = "".join(data)  # nbformat's multi-line strings
    if not isinstance(data, str) or is_json(mime):
        return json.dumps(data, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if is_text(mime):
        return data.encode("utf-8", "backslashreplace")
    return _from_base64(data)


def _from_base64(data: str) -> bytes:
    try:
        content = binascii.a2b_base64(data)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from error
    # It skips what is none of its letters, so that only the length tells.
    size = len(data) - data.count("\n") - data.count("\r")
    if size % 4 or size // 4 * 3 - data.count("=", -6) != len(content):
        raise ValueError("not base64")
    return content


def pixels(content: bytes) -> tuple[int, int]:
    """Read the width and height of a PNG, GIF or JPEG from its header; 0, 0 where there is none."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR":
        return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
    if content[:2] == b"\xff\xd8":
        return _jpeg_pixels(content)
    return 0, 0


def _jpeg_pixels(content: bytes) -> tuple[int, int]:
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF: the frame's header
            size = content[place + 5 : place + 9]
            return int.from_bytes(size[2:], "big"), int.from_bytes(size[:2], "big")
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD7:  # fill bytes and markers without a length
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return 0, 0


def _digest(content: bytes) -> str:
    import hashlib  # 2 ms, in a process of 10

    return hashlib.sha256(content).hexdigest()[:16]


def _extension(mime: str) -> str:
    if mime in _EXTENSIONS:
        return _EXTENSIONS[mime]
    if is_json(mime):
        return "json"
    if mime.endswith("xml"):
        return "xml"
    return "txt" if is_text(mime) else "bin"


def _is_there(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def _amount(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    if size < 999_500:
        return f"{size / 1000:.3g} kB" if size < 99_950 else f"{size // 1000} kB"
    return f"{size / 1e6:.3g} MB"
