"""Check what a remote host says in JSON: each part is of the type that it has to have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a text, a number or a row raises where it is none, and what using an answer as it is would raise."""

_MOST = 1 << 63

Row = TypeVar("Row")
Part = TypeVar("Part")


def row(kind: Callable[..., Row], said: object, **known: object) -> Row:
    """Return the NamedTuple of this kind that a JSON object describes, but for what is `known`. Raises MALFORMED.

    Every other field is a str, int, float or bool, and may be missing where it has a default.
    """
    if not isinstance(said, dict):
        raise TypeError("no object")
    defaults: dict[str, object] = getattr(kind, "_field_defaults", {})
    values = dict(known)
    for name, wanted in get_type_hints(kind).items():
        if name not in values and (name in said or name not in defaults):
            values[name] = _part(wanted, said[name])
    return kind(**values)


def list_of(read: Callable[[Any], Part], said: object) -> list[Part]:
    """Return what `read` makes of each part of a JSON list. Raises MALFORMED."""
    if not isinstance(said, list):
        raise TypeError("no list")
    return [read(part) for part in said]


def text(said: object) -> str:
    """Return a text that can be written anywhere. Raises MALFORMED."""
    if not isinstance(said, str):
        raise TypeError("no text")
    said.encode()  # no half of a character
    return said


def whole(said: object) -> int:
    """Return a whole number. Raises MALFORMED."""
    if type(said) is not int or abs(said) >= _MOST:
        raise ValueError("no number")
    return said


def _part(wanted: object, said: object) -> object:
    if wanted is str:
        return text(said)
    if wanted is int:
        return whole(said)
    if wanted is float and type(said) in (int, float):
        number = float(said)  # type: ignore[arg-type]
        if math.isfinite(number) and abs(number) < _MOST:
            return number
    if wanted is bool and type(said) is bool:
        return said
    raise TypeError(f"no {wanted}")
