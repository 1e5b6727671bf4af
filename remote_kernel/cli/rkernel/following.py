"""Follow a cell until it is done or the time is up: show what it gives, answer its questions, interrupt it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.cell_numbers import CellNumbers
from remote_kernel.session.client import HostGone, NoSuchSession, Running, Session, StillRunning
from remote_kernel.session.events import VERDICTS, Answered, Away, Back, Done, Event, InputWanted, Queued, Started
from remote_kernel.terminal_safe import terminal_safe

if TYPE_CHECKING:
    from remote_kernel.session.render.view import Renderer

_AFTER_INTERRUPT_SECONDS = 15.0


class Followed(NamedTuple):
    """What a command saw of a cell: its verdict, empty where it has none yet, and `running` when the time was up.

    `status` is the command's exit status, and `answers` how many of those given in advance input() has got.
    """

    verdict: str = ""
    status: int = 0
    answers: int = 0
    may_fail: bool = False


def show(session: Session, running: Running, options: argparse.Namespace) -> int:
    """Show a cell until it is done, or the time is up, and return the exit status."""
    renderer = renderer_for(session, running, options)
    outcome = show_events(session, running, renderer, options, deadline_of(options))
    sys.stdout.flush()
    if outcome.verdict != "running":
        report_unused_answers(getattr(options, "answer", ()), outcome.answers)
    return outcome.status


def show_events(
    session: Session,
    running: Running,
    renderer: Renderer,
    options: argparse.Namespace,
    deadline: float | None,
    last: str = "",
) -> Followed:
    """Show a cell's events until it is done, or the deadline. `last` is as for `detached`."""
    away = waits = False
    outcome = Followed()
    try:
        for event in shown(renderer, follow(session, running, options, deadline)):
            if isinstance(event, (Away, Back)):
                away = isinstance(event, Away)
            elif isinstance(event, (Queued, Started)):
                waits = isinstance(event, Queued)
                if isinstance(event, Queued):
                    outcome = outcome._replace(may_fail=event.may_fail)
            elif isinstance(event, Answered):
                outcome = outcome._replace(answers=outcome.answers + 1)
            elif isinstance(event, Done):
                outcome = outcome._replace(verdict=event.verdict, status=event.status)
    except StillRunning as still:
        renderer.close()
        sys.stdout.flush()
        status = still_running(session, still, away=away, waits=waits, last=last)
        return outcome._replace(verdict="running", status=status)
    except RemoteKernelError:
        renderer.close()
        raise
    return outcome


def follow(
    session: Session, running: Running, options: argparse.Namespace, deadline: float | None
) -> Generator[Event, None, None]:
    """Yield a cell's events, the last of them Done, and answer its questions.

    Ctrl-C interrupts the cell, and the second one ends the command; the first one does where it only looks. Raises
    StillRunning at the deadline, LeftAlone at a second Ctrl-C.
    """
    events = iter(running.limit(_left(deadline)))
    interrupted = getattr(options, "only_looks", False)
    while True:
        try:
            event = next(events)
            yield event
            if isinstance(event, Done):
                return
            if isinstance(event, InputWanted) and getattr(options, "stdin", False):
                running.answer(_ask(event))  # Ctrl-C and Ctrl-D there mean the cell
        except KeyboardInterrupt:
            if interrupted:
                raise LeftAlone from None
            interrupted = True
            _interrupt(session, running)
            deadline = time.monotonic() + _AFTER_INTERRUPT_SECONDS
            running = session.follow(running.cell, running.next).limit(_AFTER_INTERRUPT_SECONDS)
            events = iter(running)
        except HostGone:  # killed, or replaced: the cell goes on, and the next host knows of it
            running = _follow_again(running)
            events = iter(running)


def shown(renderer: Renderer, events: Generator[Event, None, None]) -> Iterator[Event]:
    """Show each event, and then yield it. A Ctrl-C while something is being shown means the cell all the same."""
    event = next(events)
    while True:
        try:
            renderer.feed(event)
        except KeyboardInterrupt as pressed:
            event = events.throw(pressed)
            continue
        yield event
        if isinstance(event, Done):
            return
        event = next(events)


def report_unused_answers(answers: Sequence[str], used: int) -> None:
    """Write to stderr how many of the answers given in advance no input() has asked for, if any."""
    left = len(answers) - used
    if left > 0:
        verb = "was" if left == 1 else "were"
        sys.stderr.write(f"rkernel: {left} of {len(answers)} answers {verb} not used: no input() asked for more\n")


def deadline_of(options: argparse.Namespace) -> float | None:
    """Return the monotonic time at which a command stops waiting; None for never."""
    return None if options.timeout is None else time.monotonic() + options.timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _follow_again(running: Running) -> Running:
    """Follow the cell through the session's next host."""
    try:
        return running.again()
    except NoSuchSession as error:
        raise SessionClosed(f"cell {running.cell} is lost: the session was closed", "see 'rkernel ls'") from error


class LeftAlone(KeyboardInterrupt):
    """Ctrl-C was pressed again, or where a command only looks: it ends, and nothing more is asked of the cell."""


class SessionClosed(RemoteKernelError):
    """Somebody has closed the session while a command waited for its cell."""

    exit_status = VERDICTS["lost"]


def _interrupt(session: Session, running: Running) -> None:
    """Interrupt the cell, as Ctrl-C means it; a second one leaves it alone and ends this command."""
    sys.stderr.write(f"rkernel: interrupting cell {running.cell}; Ctrl-C again leaves it running\n")
    try:
        session.interrupt(running.cell)
    except KeyboardInterrupt:
        raise LeftAlone from None


def _ask(event: InputWanted) -> str:
    """Return the line that somebody types. Raises KeyboardInterrupt, also where the terminal ends the input."""
    try:
        if event.password:
            from getpass import getpass

            return getpass(terminal_safe(event.prompt))
        return input(terminal_safe(event.prompt))
    except EOFError:
        sys.stderr.write("\n")
        raise KeyboardInterrupt from None


def still_running(
    session: Session, still: StillRunning, *, away: bool = False, waits: bool = False, last: str = ""
) -> int:
    """Write how to go on with a cell that nobody waits for any longer, and return the exit status.

    `waits` is true for one that has not begun; `last` is as for `detached`.
    """
    if away:
        what = "has not begun" if waits else "goes on there"
        rest = f"-{last}" if last and last != still.cell else ""
        sys.stderr.write(
            f"rkernel: the connection to the kernel's host is away; cell {still.cell} {what}, and "
            f"'rkernel wait -s {session.name} {still.cell}{rest}' shows it when the connection is back\n"
        )
        return VERDICTS["away"]
    return detached(session, still.cell, "still waiting for its turn" if waits else "still running", still.next, last)


def detached(session: Session, cell: str, what: str, since: int = 0, last: str = "") -> int:
    """Write how to go on with a cell of which this is true, and return the exit status.

    `last` is the last cell of the notebook run that goes on after it, if there is one.
    """
    place = f" --since {since}" if since else ""
    cells = f"{cell}-{last}" if last and last != cell else cell
    rest = f", and cells up to {last} follow" if cells != cell else ""
    stop = f"'rkernel interrupt -s {session.name}{'' if rest else f' {cell}'}'"
    sys.stderr.write(
        f"rkernel: cell {cell} is {what}{rest}; go on with 'rkernel wait -s {session.name} {cells} --timeout 100', "
        f"look with 'rkernel tail -s {session.name} {cells}{place}', stop it with {stop}\n"
    )
    return VERDICTS["running"]


def renderer_for(
    session: Session, running: Running, options: argparse.Namespace, out: TextIO | None = None
) -> Renderer:
    """Return what shows a cell's events as the options say, on stdout or `out`."""
    from remote_kernel.session.render import make_renderer
    from remote_kernel.session.render.view import View

    since = getattr(options, "since", 0)
    part = f"-{since}" if since else ""  # else the whole output's file would be replaced by a part of it
    output_file = os.path.join(session.paths.cells, f"{running.cell}{part}.txt")
    cell_of = CellNumbers(session.paths, running.cell).find
    view = View(session.paths.files, output_file, options.budget, options.full_traceback, cell_of)
    form = "json" if options.json else "jsonl" if options.jsonl else "text"
    return make_renderer(form, out or sys.stdout, sys.stderr, view)
