"""`rkernel exec NOTEBOOK.ipynb`: run a notebook's cells one after the other, and keep the copy with what they gave."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from remote_kernel.cli.cells import request_for, session_for
from remote_kernel.cli.following import (
    LeftAlone,
    deadline_of,
    follow,
    renderer_for,
    shown,
    still_running,
    tell_unused_answers,
)
from remote_kernel.errors import UsageError
from remote_kernel.session.client import Running, Session, StillRunning
from remote_kernel.session.events import Answered, Away, Back, Done, Event
from remote_kernel.session.recipe import Recipe, Step, copy_path

if TYPE_CHECKING:
    from remote_kernel.session.render import Renderer


def run_notebook(path: str, options: argparse.Namespace) -> int:
    """Run the cells that the options name, and give the exit status of the last: the run stops at the first failure.

    Without a range the copy goes beside the notebook; with one, only where --output says. Progress goes to stderr.
    """
    if options.detach or options.key or options.json:
        raise UsageError(
            "--detach, --key and --json are for one cell", "leave them out; --jsonl gives each cell's events"
        )
    recipe = Recipe.read(path)
    whole = options.from_cell is None and options.to_cell is None
    steps = recipe.steps(1 if options.from_cell is None else options.from_cell, options.to_cell)
    output = options.output or (copy_path(path) if whole else "")
    run = _Run(session_for(options, recipe.wanted()), path, steps, options)
    status = 0
    try:
        for step, event in recipe.run(steps, run.execute, output):
            run.is_away = isinstance(event, Away) or (run.is_away and not isinstance(event, Back))
            if isinstance(event, Done):
                status = 0 if event.verdict == "error" and step.may_fail else event.status
    except StillRunning as still:
        return run.detached(still)
    except LeftAlone:
        raise
    except KeyboardInterrupt:
        run.interrupt()
        raise
    finally:
        sys.stdout.flush()
    tell_unused_answers(options.answer, run.answers_used)
    if output:
        sys.stderr.write(f"rkernel: the executed copy is {output}\n")
    return status


class _Run:
    """The cells of a notebook on their way through a session, all of them within one `--timeout`."""

    def __init__(self, session: Session, path: str, steps: Sequence[Step], options: argparse.Namespace) -> None:
        self.is_away = False
        self.answers_used = 0
        self._session, self._path, self._options = session, path, options
        self._numbers = [step.number for step in steps]
        self._deadline = deadline_of(options)
        self._running: Running | None = None
        self._renderer: Renderer | None = None
        self._step = steps[0] if steps else Step(0, "")

    def execute(self, step: Step) -> Iterator[Event]:
        """Send a cell, and give its events when they are shown."""
        place = self._numbers.index(step.number) + 1
        sys.stderr.write(f"rkernel: cell {step.number} of {self._path}, {place} of {len(self._numbers)}\n")
        request = request_for(step.source, self._options)
        self._running = self._session.execute(request._replace(answers=request.answers[self.answers_used :]))
        self._renderer = renderer_for(self._session, self._running, self._options)
        self._step = step
        for event in shown(self._renderer, follow(self._session, self._running, self._options, self._deadline)):
            self.answers_used += isinstance(event, Answered)
            yield event
        self._running = None

    def detached(self, still: StillRunning) -> int:
        """Say how to go on when the time is up, and give the exit status."""
        if self._renderer:
            self._renderer.close()
        status = still_running(self._session, still, away=self.is_away)
        later = [number for number in self._numbers if number > self._step.number]
        if later:
            sys.stderr.write(
                f"rkernel: when it has ended, '--from-cell {later[0]}' runs the cells of {self._path} that are left\n"
            )
        return status

    def interrupt(self) -> None:
        """Ctrl-C means the cell that runs, whatever this process is at."""
        if self._running:
            self._session.ask("interrupt", cell=self._running.cell)
