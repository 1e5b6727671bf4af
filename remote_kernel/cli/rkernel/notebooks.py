"""`rkernel exec NOTEBOOK.ipynb`, and `wait` and `tail` for several cells: follow one cell after the other.

The session's host runs a notebook's cells, and writes what they give into the executed copy: they go on whatever
becomes of this command.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from remote_kernel.cli.rkernel.following import (
    LeftAlone,
    deadline_of,
    detached,
    renderer_for,
    report_unused_answers,
    show_events,
)
from remote_kernel.cli.rkernel.which import session_for
from remote_kernel.errors import UsageError
from remote_kernel.session.client import NotebookCell, Request, Session
from remote_kernel.session.events import VERDICTS, VERSION, read_done
from remote_kernel.session.notebook.run import NotebookRun, copy_path


def run_notebook(path: str, request: Request, options: argparse.Namespace) -> int:
    """Run the cells that the options name, and return the exit status of the last: the run stops at the first failure.

    Without a range the copy goes beside the notebook; with one, only where --output says. Progress goes to stderr.
    """
    run = NotebookRun.read(path)
    whole = options.from_cell is None and options.to_cell is None
    steps = run.steps(1 if options.from_cell is None else options.from_cell, options.to_cell)
    output = options.output or (copy_path(path) if whole else "")
    session = session_for(options, run.wanted())
    cells = [NotebookCell(step.id, step.source, step.may_fail) for step in steps]
    numbers = session.run_notebook(cells, request, only_known=True) if options.key else []
    if not numbers:
        if output:
            run.write_copy(output, steps, continues=not whole)
        numbers = session.run_notebook(cells, request, os.path.abspath(output) if output else "")
    names = [f"cell {step.number} of {path}, {place} of {len(steps)}" for place, step in enumerate(steps, 1)]
    cells_shown = _CellSequence(session, numbers, names, options)
    if options.detach and numbers and not _has_ended(session, numbers[-1]):
        return cells_shown.leave(output)
    status = cells_shown.show(output)
    if output and cells_shown.verdict == "error":
        failed = steps[cells_shown.count - 1].number
        sys.stderr.write(f"rkernel: to go on in the same copy, add --from-cell {failed} --output {output}\n")
    return status


def _has_ended(session: Session, number: str) -> bool:
    try:
        return read_done(session.paths.journal(number)) is not None
    except OSError:  # the disk is full
        return False


def show_cells(session: Session, numbers: Sequence[str], options: argparse.Namespace) -> int:
    """Show the cells of these numbers until all are done, or the time is up; `tail` shows only what there is.

    Returns the exit status of the last. Stops at one that ends a notebook's run.
    """
    names = [f"cell {number}, {place} of {len(numbers)}" for place, number in enumerate(numbers, 1)]
    return _CellSequence(session, numbers, names, options).show()


class _CellSequence:
    """Cells that are followed one after the other, all within one `--timeout`."""

    def __init__(
        self, session: Session, numbers: Sequence[str], names: Sequence[str], options: argparse.Namespace
    ) -> None:
        self._session, self._numbers, self._names, self._options = session, numbers, names, options
        self._only_looks = getattr(options, "only_looks", False)
        self._since = getattr(options, "since", 0)
        self._deadline = deadline_of(options)
        self._answers_used = 0
        self._documents: list[dict[str, Any]] = []
        self.verdict = "ok"
        self.count = 0  # of those that were shown

    def show(self, output: str = "") -> int:
        """Show them, and return the exit status; `output` is where the copy is, empty where only the host knows it."""
        status = 0
        try:
            for number, name in zip(self._numbers, self._names, strict=True):
                status, goes_on = self._show_one(number, name)
                if not goes_on:
                    break
        except LeftAlone:
            raise
        except KeyboardInterrupt:  # between two cells
            self._interrupt()
            raise
        finally:
            sys.stdout.flush()
        if self.verdict != "running":
            report_unused_answers(getattr(self._options, "answer", ()), self._answers_used)
        return self._finish(status, output)

    def leave(self, output: str) -> int:
        """Write how to go on with them, and return the exit status."""
        self.verdict = "running"
        self._write_document(VERDICTS["running"], output)
        if output:
            sys.stderr.write(f"rkernel: what they give goes into {output}\n")
        return detached(self._session, self._numbers[0], "running in the background", 0, self._numbers[-1])

    def _show_one(self, number: str, name: str) -> tuple[int, bool]:
        """Show a cell; return the exit status, and whether the next one comes."""
        self.count += 1
        sys.stderr.write(f"rkernel: {name}\n")
        options = self._options
        running = self._session.follow(number, self._since, asks=getattr(options, "stdin", False))
        self._since = 0
        if self._only_looks:
            running = running.so_far()
        out = io.StringIO() if options.json else None
        renderer = renderer_for(self._session, running, options, out)
        try:
            outcome = show_events(self._session, running, renderer, options, self._deadline, self._numbers[-1])
        finally:
            if out and out.getvalue():
                self._documents.append(json.loads(out.getvalue()))
        self._answers_used += outcome.answers
        self.verdict = outcome.verdict or self.verdict
        if not outcome.verdict or (outcome.verdict == "error" and outcome.may_fail):
            self.verdict = "ok"
            return 0, True
        return outcome.status, outcome.verdict == "ok"

    def _finish(self, status: int, output: str) -> int:
        """Write where the copy is, when it is complete, and return the exit status."""
        trouble = ""
        if self.verdict != "running" and self._numbers:
            written = self._session.copy_of(self._numbers[0])
            trouble = written.trouble
            output = output or written.path
        self._write_document(status, output)
        if trouble:
            raise UsageError(trouble, "the outputs are in the session: 'rkernel wait' shows them again")
        if output and self.verdict != "running":
            sys.stderr.write(f"rkernel: the executed copy is {output}\n")
        elif output:
            sys.stderr.write(f"rkernel: what they give goes into {output}\n")
        return status

    def _write_document(self, status: int, output: str) -> None:
        """Write the one document of --json."""
        if self._options.json:
            fields = {
                "version": VERSION,
                "verdict": self.verdict,
                "status": status,
                "first": self._numbers[0] if self._numbers else None,
                "last": self._numbers[-1] if self._numbers else None,
                "cells": self._documents,
                "copy": os.path.abspath(output) if output else None,
            }
            sys.stdout.write(json.dumps(fields) + "\n")

    def _interrupt(self) -> None:
        """Interrupt the cell that runs: Ctrl-C means it, whatever this process is at."""
        running = self._session.status().running
        if not self._only_looks and running and running.cell in self._numbers:
            self._session.interrupt(running.cell)
