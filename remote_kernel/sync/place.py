"""Read what the command line calls source and destination: paths here, and `remote:` paths there."""

from __future__ import annotations

import os
from typing import NamedTuple

from remote_kernel.errors import UsageError

MARK = "remote:"


class Place(NamedTuple):
    """A path, as it was given; `is_remote` where it is one of the remote host, relative to its workdir or home."""

    path: bytes
    is_remote: bool

    def __str__(self) -> str:
        return (MARK if self.is_remote else "") + self.path.decode("utf-8", "backslashreplace")


def parse_places(source: str, target: str) -> tuple[Place, Place]:
    """Give both places. Raises UsageError unless exactly one of them is remote, or where one is empty."""
    places = (_parse(source), _parse(target))
    if places[0].is_remote == places[1].is_remote:
        which = "both are" if places[0].is_remote else "neither is"
        raise UsageError(
            f"one of SRC and DST has to be remote, and {which}",
            "write for example: sync . remote:work, sync remote:out ./",
        )
    for place in places:
        if b"\0" in place.path or not (place.path or place.is_remote):
            raise UsageError("a path is empty", "write . for this folder")
    return places


def _parse(text: str) -> Place:
    raw = os.fsencode(text)
    if text.startswith(MARK):
        return Place(raw[len(MARK) :], True)
    return Place(os.path.expanduser(raw), False)
