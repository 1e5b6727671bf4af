"""Draw a PNG on a terminal: two pixels in each character, as the upper half block and what is behind it."""

from __future__ import annotations

import struct
import zlib

_HEADER = struct.Struct("!IIBBBBB")
_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # per pixel, by PNG's colour type: grey, RGB, grey and alpha, RGB and alpha
_LEVELS = (0, 95, 135, 175, 215, 255)  # of each part of xterm's colours from 16 to 231
Colour = tuple[int, int, int]


def size(png: bytes) -> tuple[int, int]:
    """Give an image's width and height in pixels."""
    width, height = struct.unpack_from("!II", png, 16)
    return width, height


def blocks(png: bytes, columns: int, true_colour: bool) -> list[str]:
    """Give lines of at most `columns` characters that show the image; none for a kind of PNG that is not read here.

    `true_colour` says whether the terminal takes 24 bits; else the 256 colours of xterm have to do.
    """
    pixels = decode(png)
    if not pixels:
        return []
    width = min(columns, len(pixels[0]))
    height = max(2, round(len(pixels) * width / len(pixels[0])) // 2 * 2)
    small = shrink(pixels, width, height)
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        pairs = zip(upper, lower, strict=True)
        text = "".join(f"\x1b[{_code(38, a, true_colour)};{_code(48, b, true_colour)}m▀" for a, b in pairs)
        lines.append(text + "\x1b[0m")
    return lines


def decode(png: bytes) -> list[list[Colour]]:
    """Give the rows of pixels of a PNG with eight bits per sample, not interlaced and without a palette; else nothing.

    Transparency is laid over white. See the PNG specification, sections 7 to 9.
    """
    data, at = b"", 8
    header = _HEADER.unpack_from(png, 16)
    while at + 8 <= len(png):
        (length,) = struct.unpack_from("!I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, kind, _, _, interlaced = header
    if depth != 8 or kind not in _SAMPLES or interlaced:
        return []
    samples = _SAMPLES[kind]
    raw = zlib.decompress(data)
    stride = width * samples
    before = bytes(stride)
    rows = []
    for number in range(height):
        start = number * (stride + 1)
        before = _unfilter(raw[start], raw[start + 1 : start + 1 + stride], before, samples)
        rows.append([_colour(before[i : i + samples]) for i in range(0, stride, samples)])
    return rows


def shrink(pixels: list[list[Colour]], width: int, height: int) -> list[list[Colour]]:
    """Give a smaller image, each pixel the mean of those that it stands for."""
    tall, wide = len(pixels), len(pixels[0])
    result = []
    for j in range(height):
        rows = pixels[j * tall // height : max((j + 1) * tall // height, j * tall // height + 1)]
        line = []
        for i in range(width):
            left = i * wide // width
            part = [pixel for row in rows for pixel in row[left : max((i + 1) * wide // width, left + 1)]]
            red, green, blue = (sum(values) // len(part) for values in zip(*part, strict=True))
            line.append((red, green, blue))
        result.append(line)
    return result


def _unfilter(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    done = bytearray(row)
    if kind == 0:
        return bytes(done)
    for i, value in enumerate(row):
        left = done[i - step] if i >= step else 0
        up = above[i]
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = _paeth(left, up, above[i - step] if i >= step else 0)
        done[i] = (value + guess) & 255
    return bytes(done)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def _colour(sample: bytes) -> Colour:
    grey = len(sample) < 3
    red, green, blue = (sample[0], sample[0], sample[0]) if grey else (sample[0], sample[1], sample[2])
    if len(sample) in (2, 4):
        alpha = sample[-1]
        red, green, blue = (255 + (value - 255) * alpha // 255 for value in (red, green, blue))
    return red, green, blue


def _code(ground: int, colour: Colour, true_colour: bool) -> str:
    if true_colour:
        return f"{ground};2;{';'.join(map(str, colour))}"
    red, green, blue = map(_nearest_level, colour)
    return f"{ground};5;{16 + 36 * red + 6 * green + blue}"


def _nearest_level(value: int) -> int:
    return min(range(6), key=lambda number: abs(_LEVELS[number] - value))
