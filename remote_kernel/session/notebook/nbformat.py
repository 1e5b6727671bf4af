"""Write and read notebooks of nbformat 4.5, in the layout in which Jupyter's own tools write them.

A cell is encoded by itself, so that a notebook is its cells' bytes joined. nbformat is not among our dependencies.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from json.encoder import encode_basestring  # keeps what is not ASCII readable
from typing import Any

from remote_kernel.errors import RemoteKernelError, UsageError

_TEXTS = ("application/javascript", "image/svg+xml")  # what nbformat writes in lines, besides text/...
_JSON_TYPE = re.compile(r"application/(.*\+)?json")


class NotANotebook(ValueError):
    """What a file holds is no notebook of nbformat 4; the message says what it is instead."""


class NotebookError(RemoteKernelError):
    """A notebook's file cannot be read or written, or is no notebook that can be continued."""

    exit_status = UsageError.exit_status


def is_cell_id(text: str) -> bool:
    """True if nbformat takes it for a cell's id."""
    return bool(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", text))


def encode_cell(cell: dict[str, Any]) -> bytes:
    """Return a cell as it stands in a notebook's list of cells, indented, without the comma."""
    shaped = {**cell, "source": _lines(cell.get("source", ""))}
    if "outputs" in cell:
        shaped["outputs"] = [_shape(output) for output in cell["outputs"]]
    return _bytes("  " + _encode(shaped, "  ", 5))


def encode_notebook(cells: Iterable[bytes], fields: dict[str, Any]) -> Iterator[bytes]:
    """Return a notebook in pieces: its encoded cells, and the other fields of its document, among them `metadata`."""
    yield b'{\n "cells": ['
    separator = b"\n"
    for cell in cells:
        yield separator
        yield cell
        separator = b",\n"
    yield b"]" if separator == b"\n" else b"\n ]"
    for name, value in sorted(fields.items()):
        if name != "cells":
            yield _bytes(f",\n {encode_basestring(name)}: {_encode(value, ' ', 4)}")
    yield b"\n}\n"


def parse_notebook(data: bytes) -> dict[str, Any]:
    """Read a notebook of nbformat 4 as one of 4.5: every cell gets an id of its own. Raises NotANotebook."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotANotebook("it is not JSON, or only a part of it") from error
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        if isinstance(document, dict) and isinstance(document.get("worksheets"), list):
            raise NotANotebook("it is a notebook of nbformat 3; run 'jupyter nbconvert --to notebook --inplace' on it")
        raise NotANotebook("it is JSON, but not a notebook")
    if document.get("nbformat") != 4:
        raise NotANotebook(f"it is a notebook of nbformat {document.get('nbformat')}, and only 4 is known here")
    if not isinstance(document.setdefault("metadata", {}), dict):
        raise NotANotebook("its metadata is not an object")
    seen: set[str] = set()
    for cell in document["cells"]:
        if not isinstance(cell, dict) or not isinstance(cell.setdefault("metadata", {}), dict):
            raise NotANotebook("one of its cells is not an object")
        outputs = cell.get("outputs", [])
        if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
            raise NotANotebook("one of its outputs is not an object")
        identity = cell.get("id")
        if not isinstance(identity, str) or not is_cell_id(identity) or identity in seen:
            cell["id"] = identity = secrets.token_hex(4)
        seen.add(identity)
    minor = document.get("nbformat_minor")
    document["nbformat_minor"] = max(5, minor) if isinstance(minor, int) else 5
    return document


def read_notebook(path: str) -> dict[str, Any]:
    """Read a file as `parse_notebook` does. Raises NotebookError, which says what the file is instead."""
    try:
        with open(path, "rb") as file:
            return parse_notebook(file.read())
    except OSError as error:
        raise NotebookError(f"cannot read {path}: {error.strerror}", "give a notebook that is there") from error
    except NotANotebook as error:
        raise NotebookError(f"cannot read {path}: {error}", "give a notebook as Jupyter writes it") from error


def execution_times(started: float | None, ended: float | None) -> dict[str, str]:
    """Return a cell's `metadata.execution` as JupyterLab records it."""
    times = {"iopub.execute_input": started, "iopub.status.idle": ended, "shell.execute_reply": ended}
    return {name: iso(at) for name, at in times.items() if at is not None}


def iso(at: float) -> str:
    """Return Unix time as Jupyter writes it."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def source_of(cell: dict[str, Any]) -> str:
    """Return a cell's source as one text."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source if isinstance(source, list) else ()))


def _lines(text: Any) -> Any:
    return text.splitlines(keepends=True) if isinstance(text, str) else text


def _shape(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output with its texts in lines, and with no data that the format does not allow."""
    if output.get("output_type") == "stream":
        return {**output, "text": _lines(output.get("text", ""))}
    data = output.get("data")
    if isinstance(data, dict):
        return {**output, "data": {kind: _value(kind, value) for kind, value in data.items()}}
    return output


def _value(kind: str, value: Any) -> Any:
    if _JSON_TYPE.fullmatch(kind):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return _lines(text) if kind.startswith("text/") or kind in _TEXTS else text


def _encode(value: Any, indent: str, depth: int) -> str:
    """Encode as `json.dumps(indent=1, sort_keys=True)` would, but `depth` levels deep only, and then on one line.

    The standard library's encoder with an indent is in Python and takes 20 times as long for a cell of 100,000 lines.
    """
    if isinstance(value, str):
        return str(encode_basestring(value))
    if value and depth and isinstance(value, dict):
        inner = indent + " "
        fields = (
            f"{inner}{encode_basestring(str(key))}: {_encode(value[key], inner, depth - 1)}" for key in sorted(value)
        )
        return "{\n" + ",\n".join(fields) + f"\n{indent}}}"
    if value and depth and isinstance(value, list):
        inner = indent + " "
        if all(isinstance(item, str) for item in value):
            return f"[\n{inner}" + f",\n{inner}".join(map(encode_basestring, value)) + f"\n{indent}]"
        if all(isinstance(item, dict) for item in value):
            return f"[\n{inner}" + f",\n{inner}".join(_encode(v, inner, depth - 1) for v in value) + f"\n{indent}]"
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, sort_keys=True)


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON does not have by None, as JavaScript does."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Halves of a character beyond 16 bits are joined, and what has no other half becomes a mark of that.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
