"""Find an interpreter with ipykernel where the one asked for has none: another of the host's, or a new environment."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import typer

from remote_kernel import advice
from remote_kernel.cli.edge import complain, note
from remote_kernel.cli.table import print_rows
from remote_kernel.errors import KernelNotInstalled
from remote_kernel.options import LaunchOptions

if TYPE_CHECKING:
    from remote_kernel.kernelspec.discovery import Environment, Probe

_NAMED = 4  # interpreters in an error


class _Choice(NamedTuple):
    """A row of the table, and what makes the interpreter's path of it."""

    row: tuple[str, str]
    python: Callable[[], str]


def with_ipykernel(options: LaunchOptions, found: Probe, *, install: bool) -> LaunchOptions:
    """Return the options with an interpreter that has ipykernel; `found` is what the one asked for is, without.

    A person at a terminal chooses; elsewhere `install` does what is asked for, and without it nothing is changed.
    Raises KernelNotInstalled, which names the interpreters that have ipykernel.
    """
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    if install and not (found.is_the_systems and asks):
        python = (_make if found.is_the_systems else _install)(options, found)
        return options._replace(python=python)
    what = "is the system's own and has no ipykernel" if found.is_the_systems else "has no ipykernel"
    problem = f"{found.python} on {options.endpoint} {what}"
    if asks:
        note(problem)
    others = _others(options, found)
    if install and not others:
        return options._replace(python=_make(options, found))
    error = KernelNotInstalled(problem, _hint(options, found, others))
    if not asks:
        raise error
    return options._replace(python=_chosen(_choices(options, found, others), error))


def _others(options: LaunchOptions, found: Probe) -> list[Environment]:
    from remote_kernel.kernelspec.discovery import discover

    note(f"looking for interpreters on {options.endpoint} that have ipykernel ...")
    return [one for one in discover(options).environments if one.ipykernel and one.python != found.python]


def _hint(options: LaunchOptions, found: Probe, others: list[Environment]) -> str:
    named = ", ".join(shlex.quote(one.python) for one in others[:_NAMED])
    there = f"give --python one that has it: {named}; or " if others else ""
    if found.is_the_systems:
        return f"{there}give --install, which makes a new environment, {found.new_environment}"
    return f"{there}give --install, or run: {advice.install_command(options, found.python)}"


def _choices(options: LaunchOptions, found: Probe, others: list[Environment]) -> list[_Choice]:
    def has(python: str) -> Callable[[], str]:
        return lambda: python

    choices = [_Choice((one.python, f"has ipykernel {one.ipykernel}"), has(one.python)) for one in others]
    if not found.is_the_systems:
        choices.append(_Choice((found.python, "install ipykernel into it"), lambda: _install(options, found)))
    new = _Choice((f"{found.new_environment}/bin/python", "make this environment"), lambda: _make(options, found))
    return [*choices, new]


def _chosen(choices: list[_Choice], error: KernelNotInstalled) -> str:
    """Ask at the terminal and return the interpreter's path, made if need be. Raises `error` for none."""
    print_rows(("NR", "PYTHON", "WHAT"), [(str(number), *one.row) for number, one in enumerate(choices, 1)])
    by_answer = {str(number): one for number, one in enumerate(choices, 1)}
    while True:
        answer = str(typer.prompt("use which? (a number, or 'none')", default="none", err=True)).strip()
        if answer == "none":
            raise error
        if answer in by_answer:
            return by_answer[answer].python()
        complain("remote_kernel", f"'{answer}' is not a choice; write a number from 1 to {len(choices)}, or 'none'")


def _install(options: LaunchOptions, found: Probe) -> str:
    from remote_kernel.kernelspec.discovery import install_ipykernel

    note(f"installing ipykernel for {found.python} on {options.endpoint} ...")
    note(f"installed with: {install_ipykernel(options)}")
    return options.python


def _make(options: LaunchOptions, found: Probe) -> str:
    from remote_kernel.kernelspec.discovery import make_environment

    note(f"making an environment with ipykernel from {found.python} on {options.endpoint} ...")
    python = make_environment(options)
    note(f"made {python}")
    return python
