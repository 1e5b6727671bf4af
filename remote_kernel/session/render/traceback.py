"""Trim a traceback to the frames of the one who wrote the code.

A kernel's traceback is a list with one text for each frame; IPython's shows ten lines of source around each, so that a
wrong argument to a plotting library gives a hundred lines of which four matter. The frames of cells and of the user's
own files stay, a run of library frames becomes one line, and of the last frame the place stays wherever it is. A cause
that lies within libraries is its text alone, and nothing where the last exception says the same. What has another form,
as from kernels of other languages, stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from remote_kernel.session.render.ansi import strip

_LONGEST = 4000  # characters of one frame, or of the exception's text, that are shown
_MOST = 30  # frames that are shown; of more, the first third and the last two thirds
_HINT = "--full-traceback shows them"


# A frame's first line: IPython 8's `File ~/a.py:3, in f(x)`, Python's `File "a.py", line 3, in f`, IPython 7's
# `~/a.py in f(x)`, and cells in all of their spellings.
_PLACE = (
    r"\s*(?:(?P<cell>Cell In\s*\[|<ipython-input-)|Input In \[|"
    r'File (?P<file>"[^"\n]+"|.+?)(?::\d+|, line \d+)|(?P<old>[~/<]\S*|\S+\.p(?:yx|xi|xd)) in \S)'
)
# A frame of Cython whose source is not there: `File pandas/_libs/index.pyx:167, in pandas._libs.index.f()`.
_COMPILED = r"[^\n]+\.p(?:yx|xi|xd)\b[^\n]* in (?P<package>\w+)[^\n]*\n*\Z"
_COUNTED_CELL = r"\s*(?:\x1b\[[0-9;]*m)*(?:Cell|Input)(?:\x1b\[[0-9;]*m| )*In ?\[(\d{1,9})\]"
_LIBRARY = (
    r"[\\/](?:site|dist)-packages[\\/](?P<package>[^\\/:.]+)"
    r"|[\\/]lib(?:64)?[\\/](?:python|pypy)3?[.\dt]*[\\/](?:lib-dynload[\\/])?(?!(?:site|dist)-packages)(?P<module>[^\\/:.]+)"
    r"|<frozen (?P<frozen>[^>.]+)|<(?P<internal>__\w+__) internals>"
)
_NO_SOURCE = r"\n[^\n]*Could not get source, probably due dynamically evaluated source code[^\n]*"
_HEADER_GAP = r" {3,}(?=Traceback \(most recent call last\))"


class _Part:
    """One text of the traceback. `library` is the package that a library's frame is in; empty for the user's."""

    __slots__ = ("count", "is_frame", "library", "text")

    def __init__(self, text: str) -> None:
        self.text = text = re.sub(_NO_SOURCE, "", text)
        self.count = 1
        plain = strip(text)
        place = re.match(_PLACE, plain)
        self.is_frame = place is not None
        path = (place["file"] or place["old"] or "") if place else ""
        found = re.search(_LIBRARY, path.strip('"'))
        found = found or (re.match(_COMPILED, plain) if place else None)
        self.library = next(filter(None, found.groups()), "") if found else ""
        if hidden := re.match(r"\s*\[\.\.\. skipping hidden (\d+)", plain):
            self.is_frame, self.library, self.count = True, "hidden", int(hidden[1])


def trim(
    traceback: Iterable[str], *, full: bool = False, cell_of: Callable[[int], str] = lambda count: ""
) -> list[str]:
    """Return the traceback's texts, each to be shown on lines of its own; `full` keeps every frame.

    `cell_of` returns the session's number of the cell that the kernel has counted so, or nothing; where it is another
    number, it is shown as well.
    """
    texts = list(traceback)
    return [_with_number(text, cell_of) for text in (texts if full else _trimmed(texts))]


def _trimmed(texts: list[str]) -> list[str]:
    parts = [_Part(text) for whole in texts for text in _split(whole)]
    if not any(part.is_frame for part in parts):
        return [_bounded(part.text) for part in parts]
    if parts and not strip(parts[0].text).strip("- \n"):
        del parts[0]  # IPython's ruler
    return [_bounded(text) for text in _shown(parts)]


def _with_number(text: str, cell_of: Callable[[int], str]) -> str:
    found = re.match(_COUNTED_CELL, text)
    number = cell_of(int(found[1])) if found else ""
    if not found or number in ("", found[1]):
        return text
    return f"{text[: found.end()]} (cell {number}){text[found.end() :]}"


def _split(text: str) -> list[str]:
    """Return the frames of a text that is a whole traceback of Python's own."""
    if text.count('\n  File "') < 1 or not strip(text).lstrip().startswith("Traceback ("):
        return [text]
    first, *frames = re.split(r'\n(?=  File ")', text)
    # The last frame's text ends where a line begins at the margin: the exception's.
    *others, last = frames
    ended = re.search(r"\n(?=\S)", last)
    return [first, *others, *([last[: ended.start()], last[ended.end() :]] if ended else [last])]


def _shown(parts: list[_Part]) -> Iterator[str]:
    runs = [list(run) for _, run in groupby(parts, key=lambda part: part.is_frame)]
    said_last = strip(parts[-1].text).strip()
    repeated: list[_Part] = []  # frames of causes that say what the last exception says
    last = max(number for number, run in enumerate(runs) if run[0].is_frame)
    for number, run in enumerate(runs):
        if not run:
            continue
        if not run[0].is_frame:
            yield from (re.sub(_HEADER_GAP, "  ", part.text) for part in run)
        elif number == last or not all(part.library for part in run):
            yield from _few(list(_frames(_with_repeated(run, repeated))))
            repeated = []
        elif strip(runs[number + 1][0].text).strip() == said_last:
            repeated += run
            runs[number + 1] = []
        else:
            yield _left_out(run)


def _with_repeated(run: list[_Part], repeated: list[_Part]) -> list[_Part]:
    """Put frames that are not shown beside the first of the run that are not."""
    at = next((number for number, part in enumerate(run) if part.library), 0)
    return [*run[:at], *repeated, *run[at:]]


def _frames(parts: list[_Part]) -> Iterator[str]:
    """Return the frames of one exception, from the cell to where it was raised."""
    last = parts[-1] if parts[-1].library and parts[-1].library != "hidden" else None
    if last:
        parts = parts[:-1]
    for key, run in groupby(parts, key=lambda part: "" if part.library else part.text):
        same = list(run)
        if key == "":
            yield _left_out(same)
            continue
        yield same[0].text
        if len(same) > 1:
            yield f"... the same frame {len(same) - 1:,} more times"
    if last:
        yield _essence(last.text)


def _few(frames: list[str]) -> list[str]:
    if len(frames) <= _MOST:
        return frames
    first, last = _MOST // 3, _MOST - _MOST // 3
    return [*frames[:first], f"... {len(frames) - _MOST:,} frames left out ({_HINT})", *frames[-last:]]


def _left_out(parts: list[_Part]) -> str:
    count = sum(part.count for part in parts)
    names = list(dict.fromkeys(part.library for part in parts if part.library != "hidden"))
    where = " in " + ", ".join(names[:3]) + (", ..." if names[3:] else "") if names else ""
    return f"... {count} {'frame' if count == 1 else 'frames'}{where} left out ({_HINT})"


def _essence(frame: str) -> str:
    """Return a frame's place, and the line that it is at; without the parameters, which may be dozens."""
    first, *source = frame.strip("\n").split("\n")
    place = re.sub(r"(, in (?:\x1b\[[0-9;]*m|[\w.<>])+).*", r"\1", first)
    at = [line for line in source if re.match(r"-+> ?\d", strip(line))] or source[:1]
    reset = "\x1b[0m" if "\x1b" in frame else ""
    return "\n".join([place, *at[:1]]) + reset


def _bounded(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} characters left out ... {text[-half:]}"
