"""What a receiving end answers, each part of it of the type that it has to have: nothing else of it is believed.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

from remote_kernel.sync.wire import Violation, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = 1 << 63  # neither a size nor a time in seconds is as large
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
COUNTS = ("files", "bytes", "folders", "links", "touched", "deleted", "unchanged", "left_out", "failures")
_VERBS = ("replace", "make", "link", "copy", "touch", "delete")


def plan(said: Any) -> dict[str, Any]:
    """Give the receiving end's plan, every part of it of the type that it has to have. Raises Violation."""
    try:
        found: dict[str, Any] = {key: text(said[key]) for key in ("root", "name")}
        if b"\0" in to_bytes(found["root"]) or b"/" in to_bytes(found["name"]):
            raise ValueError
        return {**found, "files": count(said["files"]), "bytes": count(said["bytes"])}
    except MALFORMED as error:
        raise Violation("a plan that cannot be read") from error


def actions(rows: list[Any]) -> list[list[str]]:
    """Give the verbs and paths of the receiving end's plan. Raises Violation."""
    try:
        return [[verb, text(path)] for verb, path in rows if verb in _VERBS]
    except MALFORMED as error:
        raise Violation("a plan that cannot be read") from error


def summary(said: Any, failed: list[Any]) -> dict[str, Any]:
    """Give the receiving end's summary, every part of it of the type that it has to have. Raises Violation."""
    try:
        found: dict[str, Any] = {key: count(said[key]) for key in COUNTS}
        return {**found, "failed": [[text(path), text(reason)] for path, reason in failed]}
    except MALFORMED as error:
        raise Violation("a summary that cannot be read") from error


def text(said: Any) -> str:
    """Give a text that can be put into bytes. Raises TypeError, ValueError."""
    if not isinstance(said, str):
        raise TypeError
    to_bytes(said)
    return said


def count(said: Any) -> int:
    """Give a number of things. Raises ValueError."""
    if type(said) is not int or not 0 <= said < MOST:
        raise ValueError
    return said
