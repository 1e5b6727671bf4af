"""Hold a notebook as the log's writer knows it, and take over what somebody else has written to its file.

Who merges needs to know on which of our versions the other's is based: JupyterLab keeps the notebook's metadata as it
was when the file was opened. So every version of ours carries a revision there, and every cell of ours the revision
that brought it. What a file of revision 7 lacks was removed by a person if the cell is as old, and is put back if it
is newer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from remote_kernel.session.notebook.nbformat import encode_cell, encode_notebook, parse_notebook, source_of
from remote_kernel.session.notebook.spill import Kept, Shelf

KEY = "remote_kernel"  # of what is ours in the metadata of the notebook and of its cells


Run = tuple[Any, int]  # execution count, and the source's hash


class Sheet:
    """One cell: its encoded bytes, and for one of ours the revisions that brought it and that last changed it.

    `displays` says where the outputs with a display id are; nbformat itself keeps no such ids.
    """

    __slots__ = ("born", "changed", "displays", "ended_with", "frame", "kept", "own", "run")

    def __init__(self, kept: Kept, own: bool = False, born: int = 0, changed: int = 0) -> None:
        self.kept, self.own, self.born, self.changed = kept, own, born, changed
        self.displays: dict[str, list[int]] = {}
        self.run: Run | None = None  # which run of the kernel it is, once it has ended
        self.frame: dict[str, Any] | None = None  # all but the outputs, while they change
        self.ended_with: int | None = None  # outputs, where more came after its end

    def read(self) -> dict[str, Any]:
        """Give the cell."""
        cell: dict[str, Any] = json.loads(self.kept.read())
        return cell


class Page:
    """The notebook: cells in their order, by id, and the other fields of the document."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.revision = 0
        self.sheets: dict[str, Sheet] = {}
        self.fields: dict[str, Any] = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        self._metadata: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._shelf = Shelf()

    def load(self, document: dict[str, Any]) -> None:
        """Start with the notebook that is there, of a person or of this session's earlier host process."""
        self.fields = {name: value for name, value in document.items() if name != "cells"}
        self.revision = self._revision_in(document)
        for cell in document["cells"]:
            ours = _ours(cell)
            own = ours.get("session") == self.session
            kept = self._shelf.keep(encode_cell(cell))
            self.sheets[cell["id"]] = Sheet(kept, own, _number(ours.get("revision")), self.revision)

    def own(self) -> dict[str, bool]:
        """Give the cells of this session, and whether each has an end."""
        cells = ((identity, sheet.read()) for identity, sheet in self.sheets.items() if sheet.own)
        return {identity: _ours(cell).get("verdict") != "running" for identity, cell in cells}

    def put(self, identity: str, cell: dict[str, Any], displays: dict[str, list[int]] | None) -> None:
        """Write one of our cells: new, or changed. The person's source, position and metadata of it stay.

        A cell that has ended comes with the places of its outputs that have a display id; None while it runs.
        """
        sheet = self.sheets.get(identity)
        if sheet is None:
            sheet = self.sheets[identity] = Sheet(Kept(b""), own=True, born=self.revision)
            sheet.frame = cell
        elif sheet.frame is None:
            sheet.frame = sheet.read()
        cell = overlay(sheet.frame, cell)
        cell["metadata"][KEY]["revision"] = sheet.born
        raw = encode_cell(cell)
        sheet.own, sheet.changed = True, self.revision
        if displays is None:
            sheet.kept, sheet.frame, sheet.displays, sheet.run = Kept(raw), {**cell, "outputs": []}, {}, None
        else:
            sheet.kept, sheet.frame, sheet.displays, sheet.run = self._shelf.keep(raw), None, displays, _run_of(cell)

    def update(self, identity: str, displays: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Replace data and metadata by display id, in a cell that is not written any longer."""
        sheet = self.sheets.get(identity)
        if sheet is None or not sheet.displays:
            return
        cell = sheet.read()
        for display, (data, metadata) in displays.items():
            for place in sheet.displays.get(display, ()):
                cell["outputs"][place] |= {"data": data, "metadata": metadata}
        sheet.changed, sheet.kept = self.revision, Kept(encode_cell(cell))

    def extend(self, identity: str, outputs: list[dict[str, Any]]) -> None:
        """Put what came after a cell's end behind its outputs, in place of what of it was put there before."""
        sheet = self.sheets.get(identity)
        cell = sheet.read() if sheet else {}
        if sheet is None or "outputs" not in cell:  # a person has removed it, or made text of it
            return
        if sheet.ended_with is None:
            sheet.ended_with = len(cell["outputs"])
        cell["outputs"][sheet.ended_with :] = outputs
        sheet.changed, sheet.kept = self.revision, Kept(encode_cell(cell))

    def settle(self, identity: str) -> None:
        """Leave a cell's outputs as they are: what comes yet goes behind them."""
        if sheet := self.sheets.get(identity):
            sheet.ended_with = None

    def merge(self, data: bytes, running: set[str]) -> bool:
        """Take a version that somebody else wrote as the base; tell whether it lacks anything. Raises NotANotebook.

        `running` are the cells that are not removed, whoever wants it.
        """
        document = parse_notebook(data)
        seen = self._revision_in(document)
        lacks = False
        merged = {}
        for cell in document["cells"]:
            merged[cell["id"]], differs = self._take(cell, self.sheets.get(cell["id"]), seen)
            lacks |= differs
        # A person who runs a cell of this very notebook has it there already, with its outputs.
        done = {_run_of(cell) for cell in document["cells"] if cell.get("cell_type") == "code" and not _ours(cell)}
        for identity, sheet in self.sheets.items():
            newer = sheet.own and sheet.born > seen and sheet.run not in done
            if identity not in merged and (newer or identity in running):
                merged[identity] = sheet
                lacks = True
        self.sheets = merged
        self.fields = {name: value for name, value in document.items() if name != "cells"}
        return lacks

    def _take(self, cell: dict[str, Any], sheet: Sheet | None, seen: int) -> tuple[Sheet, bool]:
        """Give a cell's sheet, and whether it has more than this cell of somebody else's version."""
        theirs = encode_cell(cell)
        if sheet is None:
            return Sheet(Kept(theirs)), False
        if sheet.frame is not None:
            sheet.frame = {**cell, "outputs": []}
        before = sheet.kept.read()
        if theirs == before:
            return sheet, False
        if sheet.own and sheet.changed > seen:
            both = encode_cell(overlay(cell, sheet.read()))
            sheet.kept = Kept(both)
            return sheet, both != theirs
        if cell.get("outputs") != sheet.read().get("outputs"):
            sheet.displays = {}
        sheet.kept = Kept(theirs)
        return sheet, False

    def describe(self, metadata: dict[str, Any], facts: dict[str, Any]) -> None:
        """Say what is known of the session, and kernelspec and language for where a person's notebook has none."""
        own = self.fields["metadata"]
        for name in metadata:
            if own.get(name) == self._metadata.get(name):
                own.pop(name, None)  # what we said before
        self._metadata, self._facts = metadata, facts

    def pieces(self) -> Iterator[bytes]:
        """Give the file's content."""
        own = self.fields["metadata"]
        sessions = {**_sessions(own), self.session: {**self._facts, "revision": self.revision}}
        self.fields["metadata"] = {**self._metadata, **own, KEY: {"sessions": sessions}}
        return encode_notebook((sheet.kept.read() for sheet in self.sheets.values()), self.fields)

    def close(self) -> None:
        """Let go of what is not in memory. Idempotent; nothing else may be called afterwards."""
        self._shelf.close()

    def _revision_in(self, document: dict[str, Any]) -> int:
        session = _sessions(document["metadata"]).get(self.session)
        return _number(session.get("revision")) if isinstance(session, dict) else -1


def overlay(base: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Give a cell with the outputs and times of ours, and everything else of the base."""
    kept = {name: value for name, value in base.items() if name != "attachments"}
    metadata = {**base["metadata"], **{k: v for k, v in ours["metadata"].items() if k in (KEY, "execution")}}
    results = {"outputs": ours.get("outputs", []), "execution_count": ours.get("execution_count")}
    return {**kept, "cell_type": "code", "metadata": metadata, **results}


def _ours(cell: dict[str, Any]) -> dict[str, Any]:
    found = cell["metadata"].get(KEY)
    return found if isinstance(found, dict) else {}


def _run_of(cell: dict[str, Any]) -> Run:
    return cell.get("execution_count"), hash(source_of(cell))


def _sessions(metadata: dict[str, Any]) -> dict[str, Any]:
    found = metadata.get(KEY)
    sessions = found.get("sessions") if isinstance(found, dict) else None
    return sessions if isinstance(sessions, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
