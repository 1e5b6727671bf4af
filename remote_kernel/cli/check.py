"""See whether a remote kernel works before it is installed: ask the host, then start a kernel once.

Where the interpreter that was asked for has no ipykernel, another of the host's is chosen, or a new environment made.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import typer

from remote_kernel import advice
from remote_kernel.cli.edge import complain, note
from remote_kernel.cli.table import print_rows
from remote_kernel.errors import KernelDied, KernelNotInstalled, PythonNotFound, UsageError
from remote_kernel.kernelspec import discovery
from remote_kernel.kernelspec.discovery import Environment, Probe
from remote_kernel.kernelspec.trial import START_SECONDS, try_out
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.options import LaunchOptions

Choice = TypeVar("Choice")
_LINES_SHOWN = 5
_NAMED = 4  # interpreters in an error


def refuse_idle_install(options: LaunchOptions, *, check: bool) -> None:
    """Raise UsageError where --install would do nothing, without a word."""
    if not check:
        raise UsageError("--install needs a connection to the host", "leave out --no-check")
    if options.kernel:
        raise UsageError("--install is for ipykernel, and --kernel starts something else", "give one of the two")


def ask_host(draft: Draft, *, install: bool) -> tuple[Draft, Probe]:
    """Return what the remote host has, and the draft of the kernel that it has.

    That is: with its language and interrupt mode, and with another interpreter if the one asked for has no ipykernel.
    Installs ipykernel if it is missing and `install` is set, or the person at the terminal chooses to. Raises
    KernelNotInstalled with what mends it, and whatever the probe raises.
    """
    options = draft.options
    note(f"asking {options.endpoint} ...")
    try:
        found = discovery.probe(options)
    except PythonNotFound as error:
        raise PythonNotFound(error.message, advice.unquoted_home(options, error.message) or error.hint) from error
    if not options.kernel and not found.ipykernel_version:
        options = _with_ipykernel(options, found, install=install)
        found = discovery.probe(options)
    if found.noise:
        first = found.noise.strip().splitlines()[0][:60]
        note(f"note: the shell on {options.endpoint} prints text when it starts ('{first}'); it is skipped")
    spec = found.kernelspec
    by_message = spec is not None and spec.interrupt_mode == "message"
    language, mode = spec.language if spec else "python", "message" if by_message else "signal"
    return draft._replace(options=options, language=language, interrupt_mode=mode), found


def describe(found: Probe) -> str:
    """Return one line on what was found: the host, the interpreter, ipykernel or the kernelspec."""
    if found.kernelspec:
        what = f"kernelspec {found.kernelspec.name} ({found.kernelspec.display_name})"
    else:
        what = f"ipykernel {found.ipykernel_version}"
    return f"{found.user}@{found.host}: Python {found.python_version} ({found.python}), {what}"


def start_once(draft: Draft, timeout_seconds: float = START_SECONDS, *, undone: str = "nothing was installed") -> float:
    """Start a kernel from this draft, end it, and return the seconds until it answered.

    Raises KernelDied, which says that the command has `undone` nothing else.
    """
    note("starting a kernel ...")
    try:
        done = try_out(draft, timeout_seconds)
    except KernelDied as error:
        hints = filter(None, (advice.unquoted_home(draft.options, error.message), undone))
        raise KernelDied(error.message, "; ".join(hints)) from error
    note(f"it answered after {done.start_seconds:.1f} s")
    for line in done.printed[:_LINES_SHOWN]:  # a module that --init could not load, for example
        note(f"note: it printed: {line}")
    return done.start_seconds


def ask_until_clear(question: str, read: Callable[[str], Choice]) -> Choice:
    """Ask at the terminal until `read` understands the answer, and return what it made of it. It raises UsageError."""
    while True:
        answer = str(typer.prompt(question, default="none", err=True)).strip()
        try:
            return read(answer)
        except UsageError as error:
            complain("remote_kernel", str(error))


class _Choice(NamedTuple):
    """A row of the table, and what makes the interpreter's path of it."""

    row: tuple[str, str]
    python: Callable[[], str]


def _with_ipykernel(options: LaunchOptions, found: Probe, *, install: bool) -> LaunchOptions:
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
    note(f"looking for interpreters on {options.endpoint} that have ipykernel ...")
    return [one for one in discovery.discover(options).environments if one.ipykernel and one.python != found.python]


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
    numbered = {str(number): one for number, one in enumerate(choices, 1)}
    print_rows(("NR", "PYTHON", "WHAT"), [(number, *one.row) for number, one in numbered.items()])

    def pick(answer: str) -> _Choice | None:
        if answer not in (*numbered, "none"):
            hint = f"write a number from 1 to {len(choices)}, or 'none'"
            raise UsageError(f"'{answer}' is not a choice", hint)
        return numbered.get(answer)

    choice = ask_until_clear("use which? (a number, or 'none')", pick)
    if choice is None:
        raise error
    return choice.python()


def _install(options: LaunchOptions, found: Probe) -> str:
    note(f"installing ipykernel for {found.python} on {options.endpoint} ...")
    note(f"installed with: {discovery.install_ipykernel(options)}")
    return options.python


def _make(options: LaunchOptions, found: Probe) -> str:
    note(f"making an environment with ipykernel from {found.python} on {options.endpoint} ...")
    python = discovery.make_environment(options)
    note(f"made {python}")
    return python
