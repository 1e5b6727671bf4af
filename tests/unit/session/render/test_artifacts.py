"""Files of what a cell shows."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.session.render.artifacts import Artifact, decode, pixels, save


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows + extra) + chunk(b"IEND", b"")


def test_file_is_named_by_content_and_type(tmp_path: Path) -> None:
    content = png(640, 480)
    artifact = save(str(tmp_path / "files"), "image/png", base64.b64encode(content).decode())

    path = Path(artifact.path)
    assert (artifact.width, artifact.height, artifact.size) == (640, 480, len(content))
    assert path.read_bytes() == content
    assert path.suffix == ".png" and len(path.stem) == 16
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_same_content_is_the_same_file_not_written_again(tmp_path: Path) -> None:
    data = base64.encodebytes(png(2, 3)).decode()
    first = save(str(tmp_path), "image/png", data)
    inode = os.stat(first.path).st_ino

    assert save(str(tmp_path), "image/png", data) == first
    assert os.stat(first.path).st_ino == inode
    assert os.listdir(tmp_path) == [os.path.basename(first.path)]


def test_file_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    first = save(str(tmp_path), "text/html", "<b>hello</b>")
    Path(first.path).write_text("<b>")

    save(str(tmp_path), "text/html", "<b>hello</b>")
    assert Path(first.path).read_text() == "<b>hello</b>"


def test_image_of_40_megabytes(tmp_path: Path) -> None:
    content = png(4, 4, os.urandom(40_000_000))
    artifact = save(str(tmp_path), "image/png", base64.b64encode(content).decode())

    assert Path(artifact.path).read_bytes() == content
    assert str(artifact) == f"[image/png 4x4, 40 MB: {artifact.path}]"


@pytest.mark.parametrize(
    ("mime", "data", "name", "content"),
    [
        ("image/svg+xml", "<svg/>", "svg", b"<svg/>"),
        ("application/pdf", "JVBERg==", "pdf", b"%PDF"),
        ("application/json", {"a": 1}, "json", b'{\n "a": 1\n}'),
        ("application/vnd.plotly.v1+json", {"a": 1}, "json", b'{\n "a": 1\n}'),
        ("text/html", ["<b>", "</b>"], "html", b"<b></b>"),
        ("text/x-new", "\ud83d", "txt", b"\\ud83d"),
        ("application/x-new", "AAE=", "bin", b"\0\1"),
    ],
)
def test_each_type_is_decoded_and_has_its_extension(
    tmp_path: Path, mime: str, data: Any, name: str, content: bytes
) -> None:
    artifact = save(str(tmp_path), mime, data)

    assert Path(artifact.path).read_bytes() == content
    assert Path(artifact.path).suffix == f".{name}"


@pytest.mark.parametrize("data", ["a", "*no base64*", "iVBORw0K*", "é", "iVBO Rw0K"])
def test_invalid_base64_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode("image/png", data)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("size", range(5))
def test_base64_with_line_ends_is_taken(size: int, end: str) -> None:
    content = b"\xff" * size

    assert decode("image/png", base64.b64encode(content).decode() + end) == content


def test_pixels_of_a_jpeg_and_a_gif() -> None:
    app = b"\xff\xe0\x00\x10JFIF" + bytes(10)
    jpeg = b"\xff\xd8" + app + b"\xff\xff\xc2\x00\x11\x08" + struct.pack(">HH", 48, 64) + bytes(10)

    assert pixels(jpeg) == (64, 48)
    assert pixels(b"GIF89a" + struct.pack("<HH", 64, 48)) == (64, 48)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00" * 3, b"BM"])
def test_pixels_of_a_broken_header_are_unknown(content: bytes) -> None:
    assert pixels(content) == (0, 0)


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 B"), (23_456, "23.5 kB"), (234_567, "234 kB"), (2_345_678, "2.35 MB")]
)
def test_artifact_says_its_size(size: int, text: str) -> None:
    assert str(Artifact("text/html", "/a.html", size)) == f"[text/html, {text}: /a.html]"
