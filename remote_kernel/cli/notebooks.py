"""`rkernel exec NOTEBOOK.ipynb`: run a notebook's cells one after the other, and keep the copy with what they gave."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from remote_kernel.cli.cells import follow, renderer_for, request_for, session_for, still_running
from remote_kernel.errors import UsageError
from remote_kernel.session.client import Running, StillRunning
from remote_kernel.session.events import Done, Event
from remote_kernel.session.recipe import Recipe, copy_path


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
    session = session_for(options)
    running: list[Running] = []

    def execute(source: str) -> Iterator[Event]:
        running.append(session.execute(request_for(source, options)))
        return follow(session, running[-1], options)

    number = 0
    status = 0
    try:
        for step, event in recipe.run(steps, execute, output):
            if step.number != number:
                number = step.number
                done = [one.number for one in steps].index(number) + 1
                sys.stderr.write(f"rkernel: cell {number} of {path}, {done} of {len(steps)}\n")
                renderer = renderer_for(session, running[-1], options)
            renderer.feed(event)
            if isinstance(event, Done):
                status = 0 if event.verdict == "error" and step.may_fail else event.status
    except StillRunning as still:
        renderer.close()
        return still_running(session, still)
    finally:
        sys.stdout.flush()
    if output:
        sys.stderr.write(f"rkernel: the executed copy is {output}\n")
    return status
