"""Merge what a session's cells give into a notebook that a person edits meanwhile.

Who merges needs to know on which of our versions the other's is based: JupyterLab keeps the notebook's metadata as it
was when the file was opened. So every version of ours carries a revision there, and every cell of ours the revision
that brought it. What a file of revision 7 lacks was removed by a person if the cell is as old, and is put back if it
is newer.

A cell is held as its encoded bytes, so that a version is those bytes joined. Those of cells that have ended are not in
memory but in a file without a name: a host process lives for weeks.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from remote_kernel.session.notebook.nbformat import encode_cell, encode_notebook, parse_notebook, source_of

KEY = "remote_kernel"  # of what is ours in the metadata of the notebook and of its cells

KernelRun = tuple[Any, int]  # which run of the kernel a cell is: its execution count, and its source's hash


class StoredBytes(NamedTuple):
    """Bytes that are in memory, or in a file that has them from a place on."""

    data: bytes
    fd: int = -1
    at: int = 0
    size: int = 0

    def read(self) -> bytes:
        """Return the bytes. Raises OSError."""
        return self.data if self.fd < 0 else os.pread(self.fd, self.size, self.at)


class Spill:
    """A file that only grows, and is gone with the process. Where it cannot be written, memory takes its place."""

    def __init__(self) -> None:
        self._fd = -1
        self._end = 0

    def store(self, data: bytes) -> StoredBytes:
        """Put bytes into the file."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                with tempfile.TemporaryFile() as file:
                    self._fd = os.dup(file.fileno())
            if os.pwrite(self._fd, data, self._end) == len(data):
                self._end += len(data)
                return StoredBytes(b"", self._fd, self._end - len(data), len(data))
        return StoredBytes(data)

    def close(self) -> None:
        """Close the file, and remove what is in it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class CellState:
    """One cell: its encoded bytes, and for one of ours the revisions that brought it and that last changed it.

    `displays` has the places of the outputs with a display id; nbformat itself keeps no such ids.
    """

    __slots__ = ("born", "changed", "displays", "encoded", "frame", "outputs_at_end", "own", "run")

    def __init__(self, encoded: StoredBytes, own: bool = False, born: int = 0, changed: int = 0) -> None:
        self.encoded, self.own, self.born, self.changed = encoded, own, born, changed
        self.displays: dict[str, list[int]] = {}
        self.run: KernelRun | None = None  # once it has ended
        self.frame: dict[str, Any] | None = None  # all but the outputs, while they change
        self.outputs_at_end: int | None = None  # how many there were, where more came later

    def read(self) -> dict[str, Any]:
        """Return the cell."""
        cell: dict[str, Any] = json.loads(self.encoded.read())
        return cell

    def change(self, cell: dict[str, Any], revision: int) -> None:
        """Replace the cell by a version of ours."""
        self.encoded, self.changed = StoredBytes(encode_cell(cell)), revision


class MergedNotebook:
    """The notebook as its writer knows it: the cells in their order, by id, and the other fields of the document."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.revision = 0
        self.cells: dict[str, CellState] = {}
        self._fields: dict[str, Any] = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        self._metadata: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._spill = Spill()

    def load(self, document: dict[str, Any]) -> dict[str, bool]:
        """Start with the notebook that is there, of a person or of this session's earlier host process.

        Returns the cells of this session, and whether each has an end.
        """
        self._take_fields(document)
        self.revision = self._revision_in(document)
        found = {}
        for cell in document["cells"]:
            ours = _own_metadata(cell)
            own = ours.get("session") == self.session
            encoded = self._spill.store(encode_cell(cell))
            self.cells[cell["id"]] = CellState(encoded, own, _number(ours.get("revision")), self.revision)
            if own:
                found[cell["id"]] = ours.get("verdict") != "running"
        return found

    def put(self, identity: str, cell: dict[str, Any], displays: dict[str, list[int]] | None) -> None:
        """Write one of our cells: new, or changed. The person's source, position and metadata of it stay.

        A cell that has ended comes with the places of its outputs that have a display id; None while it runs.
        """
        state = self.cells.get(identity)
        if state is None:
            state = self.cells[identity] = CellState(StoredBytes(b""), born=self.revision)
            state.frame = cell
        cell = overlay(state.frame or state.read(), cell)
        cell["metadata"][KEY]["revision"] = state.born
        state.own = True
        state.change(cell, self.revision)
        if displays is None:
            state.frame, state.displays, state.run = {**cell, "outputs": []}, {}, None
        else:
            state.encoded = self._spill.store(state.encoded.data)
            state.frame, state.displays, state.run = None, displays, _run_of(cell)

    def update(self, identity: str, displays: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Replace data and metadata by display id, in a cell that has ended."""
        state = self.cells.get(identity)
        if state is None or not state.displays:
            return
        cell = state.read()
        for display, (data, metadata) in displays.items():
            for place in state.displays.get(display, ()):
                cell["outputs"][place] |= {"data": data, "metadata": metadata}
        state.change(cell, self.revision)

    def extend(self, identity: str, outputs: list[dict[str, Any]]) -> None:
        """Put what came after a cell's end behind its outputs, in place of what of it was put there before."""
        state = self.cells.get(identity)
        cell = state.read() if state else {}
        if state is None or "outputs" not in cell:  # a person has removed it, or made text of it
            return
        if state.outputs_at_end is None:
            state.outputs_at_end = len(cell["outputs"])
        cell["outputs"][state.outputs_at_end :] = outputs
        state.change(cell, self.revision)

    def settle(self, identity: str) -> None:
        """Leave a cell's outputs as they are: what comes yet goes behind them."""
        if state := self.cells.get(identity):
            state.outputs_at_end = None

    def merge(self, data: bytes, running: set[str]) -> bool:
        """Make what somebody else wrote the base; return True if it lacks anything. Raises NotANotebook.

        `running` are the cells that are not removed, whoever wants it.
        """
        document = parse_notebook(data)
        seen = self._revision_in(document)
        lacks = False
        merged = {}
        for cell in document["cells"]:
            merged[cell["id"]], differs = self._merge_cell(cell, seen)
            lacks |= differs
        # A person who runs a cell of this very notebook has it there already, with its outputs.
        runs = {
            _run_of(cell) for cell in document["cells"] if cell.get("cell_type") == "code" and not _own_metadata(cell)
        }
        for identity, state in self.cells.items():
            is_newer = state.own and state.born > seen and state.run not in runs
            if identity not in merged and (is_newer or identity in running):
                merged[identity] = state
                lacks = True
        self.cells = merged
        self._take_fields(document)
        return lacks

    def _merge_cell(self, cell: dict[str, Any], seen: int) -> tuple[CellState, bool]:
        """Return a cell's state, and whether it has more than this cell of somebody else's version."""
        theirs = encode_cell(cell)
        state = self.cells.get(cell["id"])
        if state is None:
            return CellState(StoredBytes(theirs)), False
        if state.frame is not None:
            state.frame = {**cell, "outputs": []}
        if theirs == state.encoded.read():
            return state, False
        before = state.read()
        if state.own and state.changed > seen:
            state.encoded = StoredBytes(encode_cell(overlay(cell, before)))
            return state, state.encoded.data != theirs
        if cell.get("outputs") != before.get("outputs"):
            state.displays = {}
        state.encoded = StoredBytes(theirs)
        return state, False

    def describe(self, metadata: dict[str, Any], facts: dict[str, Any]) -> None:
        """Set what is known of the session, and kernelspec and language for where a person's notebook has none."""
        own = self._fields["metadata"]
        for name in metadata:
            if own.get(name) == self._metadata.get(name):
                own.pop(name, None)  # what we said before
        self._metadata, self._facts = metadata, facts

    def encode(self) -> Iterator[bytes]:
        """Return the file's content in pieces."""
        own = self._fields["metadata"]
        sessions = {**_sessions(own), self.session: {**self._facts, "revision": self.revision}}
        self._fields["metadata"] = {**self._metadata, **own, KEY: {"sessions": sessions}}
        return encode_notebook((state.encoded.read() for state in self.cells.values()), self._fields)

    def close(self) -> None:
        """Close what is not in memory. Idempotent; nothing else may be called afterwards."""
        self._spill.close()

    def _take_fields(self, document: dict[str, Any]) -> None:
        self._fields = {name: value for name, value in document.items() if name != "cells"}

    def _revision_in(self, document: dict[str, Any]) -> int:
        session = _sessions(document["metadata"]).get(self.session)
        return _number(session.get("revision")) if isinstance(session, dict) else -1


def overlay(base: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return a cell with the outputs and times of ours, and everything else of the base."""
    kept = {name: value for name, value in base.items() if name != "attachments"}
    metadata = {**base["metadata"], **{k: v for k, v in ours["metadata"].items() if k in (KEY, "execution")}}
    results = {"outputs": ours.get("outputs", []), "execution_count": ours.get("execution_count")}
    return {**kept, "cell_type": "code", "metadata": metadata, **results}


def _own_metadata(cell: dict[str, Any]) -> dict[str, Any]:
    found = cell["metadata"].get(KEY)
    return found if isinstance(found, dict) else {}


def _run_of(cell: dict[str, Any]) -> KernelRun:
    return cell.get("execution_count"), hash(source_of(cell))


def _sessions(metadata: dict[str, Any]) -> dict[str, Any]:
    found = metadata.get(KEY)
    sessions = found.get("sessions") if isinstance(found, dict) else None
    return sessions if isinstance(sessions, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
