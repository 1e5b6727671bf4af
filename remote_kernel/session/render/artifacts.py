"""Keep what a cell shows as files: images, and data too large to be read in a terminal.

A file is named by its content, so the same plot shown twice, or read again from the journal, is one file.
"""

from __future__ import annotations

import binascii
import json
import os
from typing import Any, NamedTuple

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


def save(folder: str, mime: str, data: Any) -> Artifact:
    """Write the data, as a message's bundle holds it, into the folder, and give the file.

    The folder is made, for its owner only, when it is missing. Raises ValueError where binary data is no base64, and
    OSError where the file cannot be written.
    """
    content = decode(mime, data)
    path = os.path.join(folder, f"{_digest(content)}.{_extension(mime)}")
    if not _is_there(path, len(content)):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _write(path, content)
    return Artifact(mime, path, len(content), *pixels(content))


def _write(path: str, content: bytes) -> None:
    partial = f"{path}.{os.getpid()}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def is_text(mime: str) -> bool:
    """Tell whether a bundle holds this type as text; other types are base64, and JSON is itself."""
    return mime.startswith(_TEXTS) or mime.endswith("+xml")


def is_json(mime: str) -> bool:
    """Tell whether a bundle holds this type as JSON."""
    return mime == "application/json" or mime.endswith(("+json", ".json"))  # Altair 6: vnd.vegalite.v6.json


def decode(mime: str, data: Any) -> bytes:
    """Give the bytes that the data stands for; raises ValueError where it is no base64."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
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
