"""`remote_kernel doctor`: every step from here to a running kernel, and what to do about the one that fails."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from remote_kernel.cli import completion
from remote_kernel.cli.edge import note, say_json
from remote_kernel.cli.settings import GivenSettings, JsonOption, takes
from remote_kernel.doctor.finding import NOT_REACHED, STEPS, Finding, State, failed
from remote_kernel.doctor.steps import examine
from remote_kernel.errors import TransportError, UnknownHost, UsageError
from remote_kernel.kernelspec.installed import Kernelspec, list_kernelspecs
from remote_kernel.kernelspec.target import find_target, hint_for, way_of
from remote_kernel.options import LaunchOptions
from remote_kernel.terminal_safe import terminal_safe
from remote_kernel.transport import notes

EXAMPLES = """\b
Examples:
  remote_kernel doctor gpu1
  remote_kernel doctor remote_cuda --json
  remote_kernel doctor --no-start
  remote_kernel doctor me@gpu1:2222 -J me@gate --python '~/.venv/bin/python'

\b
✓  works
✗  fails, with the reason and what to do; the steps after it are not checked
!  does not keep a kernel from starting, but may surprise you
?  cannot be determined from here, or was not reached

The exit status is that of the first error, as listed in docs/exit-statuses.md; 0 if there is no ✗. JSON is a list of
objects with the keys name, step, state, text, hint, seconds, error, exit_status; state is ok, failed, warning or
unknown.
"""
_SIGNS = {
    State.OK: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.WARNING: ("!", "yellow"),
    State.UNKNOWN: ("?", ""),
}
_NARROWEST = 20  # a text in narrower lines is harder to read than one that the terminal breaks
_WIDTH = max(map(len, STEPS))


@takes("jump", "python", "kernel", "init", "transport", "ssh_config")
def doctor(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="KERNELSPEC|HOST",
            help="A kernelspec by its slug or name, or a host, e.g. gpu1. Without one, all kernelspecs.",
            autocompletion=completion.targets,
        ),
    ] = None,
    *,
    given: GivenSettings,
    no_start: Annotated[bool, typer.Option("--no-start", help="Only look; do not start a kernel.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Find out why a remote kernel does not start.

    Checks every step from here to a cell's result: the ssh program and its configuration, names and ports, host keys,
    the login, the remote shell, interpreter, ipykernel, folders, disks, logout, clocks, and then starts a kernel.
    """
    objects: list[dict[str, Any]] = []
    blocked: dict[LaunchOptions, Finding] = {}
    status = 0
    for title, options, spec in _patients(name, given):
        if not as_json:
            typer.echo(typer.style(title, bold=True))
        unreached: list[str] = []
        for finding in _findings(title, options, spec, blocked, start=not no_start):
            if spec is None and finding.error is UnknownHost:
                finding = finding._replace(hint=hint_for(title, finding.hint))
            if finding.error and not status:
                status = finding.error.exit_status
            if as_json:
                objects.append({"name": title, **_as_object(finding)})
            elif finding.text == NOT_REACHED:
                unreached.append(finding.step)
            else:
                _show(finding)
        if unreached:
            typer.echo("? " + "\n  ".join(_lines(f"{NOT_REACHED}: {', '.join(unreached)}")))
    if as_json:
        say_json(objects)
    return status


def _findings(
    title: str,
    options: LaunchOptions | None,
    spec: Kernelspec | None,
    blocked: dict[LaunchOptions, Finding],
    *,
    start: bool,
) -> Iterator[Finding]:
    """Return the findings; a way that is `blocked` is not gone again: servers ban who is refused often."""
    if options is not None:
        notes.clear_refusals(options)  # a person asks: what was refused a moment ago is tried again
        way = way_of(options)
        for finding in examine(options, spec, start=start, known=blocked.get(way)):
            if finding.error and issubclass(finding.error, TransportError) and way not in blocked:
                blocked[way] = finding._replace(text=f"{finding.text}; not tried again after {title}", seconds=0.0)
            yield finding
    elif spec is not None:
        hint = f"mend {spec.folder / 'kernel.json'}, or add it again with --replace"
        yield failed("config", UsageError(f"its settings cannot be read: {spec.problem}", hint))


def _patients(name: str | None, given: GivenSettings) -> Iterable[tuple[str, LaunchOptions | None, Kernelspec | None]]:
    """Return what is to be examined: a title, the settings, and the kernelspec that they are of."""
    if name is None:
        if given.any():
            raise UsageError("options need a host", "write for example 'remote_kernel doctor gpu1'")
        specs = [spec for spec in list_kernelspecs() if not (spec.options and spec.options.resume)]
        if not specs:
            note("there are no remote kernelspecs yet; examine a host with 'remote_kernel doctor HOST'")
        return [(spec.slug, spec.options, spec) for spec in specs]
    for spec in list_kernelspecs():
        if spec.options is None and spec.slug == name.lower():
            return [(spec.slug, None, spec)]
    target = find_target(name, other_way=given.has_a_way)
    if len(target.kernelspecs) > 1 and not given.any():
        return [(spec.slug, spec.options, spec) for spec in target.kernelspecs if spec.options]
    only = target.kernelspecs[0] if len(target.kernelspecs) == 1 else None
    return [(only.slug if only else name, given.applied_to(target.options), only)]


def _show(finding: Finding) -> None:
    """Print a finding as soon as there is one."""
    sign, colour = _SIGNS[finding.state]
    first, *more = _lines(f"{terminal_safe(finding.text)} ({finding.seconds or 0.0:.2f} s)")
    mark = typer.style(sign, fg=colour) if colour and not os.environ.get("NO_COLOR") else sign
    typer.echo(f"{mark} {finding.step:<{_WIDTH}}  {first}")
    for line in [*more, *(_lines(terminal_safe(finding.hint)) if finding.hint else ())]:
        typer.echo(f"  {'':<{_WIDTH}}  {line}")


def _lines(text: str) -> list[str]:
    """Return the text in lines that fit behind a step's name, on a terminal; one line elsewhere."""
    width = shutil.get_terminal_size().columns - _WIDTH - 4
    if not sys.stdout.isatty() or width < _NARROWEST:
        return [text]
    kept = text.replace(" s)", "\u00a0s)")  # the seconds in one piece
    lines = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]


def _as_object(finding: Finding) -> dict[str, Any]:
    return {
        "step": finding.step,
        "state": finding.state.value,
        "text": finding.text,
        "hint": finding.hint,
        "seconds": round(finding.seconds or 0.0, 4),
        "error": finding.error.__name__ if finding.error else None,
        "exit_status": finding.error.exit_status if finding.error else 0,
    }
