"""Say how ipykernel comes to a remote interpreter that lacks it: over the connection that a login has left, so that
nothing is asked again, and by any transport."""

from __future__ import annotations

import re

from remote_kernel.options import LaunchOptions
from remote_kernel.shell import quoted_path

_OF_THE_SYSTEM = re.compile(r"(?:/usr(?:/local)?)?/bin/[^/]+")


def to_install(options: LaunchOptions, python: str, *, upgrade: bool = False) -> str:
    """Give the command line, run here, that installs ipykernel for an interpreter that is the user's own."""
    return _there(options, f"{quoted_path(python)} -m pip install {'--upgrade ' if upgrade else ''}ipykernel")


def beside(options: LaunchOptions, python: str, path: str) -> str:
    """Return what to do where the interpreter is the system's own: pip refuses to install there (PEP 668).

    `path` did not exist there a moment ago; if it does by now, mkdir fails, and nothing is written over.
    """
    make = f"mkdir {path} && {quoted_path(python)} -m venv {path} && {path}/bin/python -m pip install ipykernel"
    return f"give --python '{path}/bin/python', after making it with: {_there(options, make)}"


def to_look(options: LaunchOptions) -> str:
    """Return the command line that shows which interpreters of the host have ipykernel."""
    return options.command_line("add", "--discover")


def looks_like_the_systems(python: str) -> bool:
    """Tell by its path alone whether an interpreter is the system's own; the survey, which runs there, knows."""
    return _OF_THE_SYSTEM.fullmatch(python) is not None


def _there(options: LaunchOptions, script: str) -> str:
    return options.command_line("connect", "--", "sh", "-c", script)
