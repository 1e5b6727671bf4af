"""Advise what to do about what a remote host lacks, in command lines to paste.

They go over the connection that a login has left, so that nothing is asked again, and by any transport.
"""

from __future__ import annotations

import os
import re
import shlex

from remote_kernel.bootstrap import quoted_path
from remote_kernel.options import LaunchOptions

_OF_THE_SYSTEM = re.compile(r"(?:/usr(?:/local)?)?/bin/[^/]+")


def unquoted_home(options: LaunchOptions, message: str) -> str:
    """Return what to do where a message names a path in which the shell here has put this machine's home for a `~`.

    Empty where it names none. Only of use once a path is missing there: two homes may well have one name.
    """
    home = os.path.expanduser("~")
    for flag, path in (("--python", options.python), ("--workdir", options.workdir)):
        if path.startswith(f"{home}/") and path in message:
            meant = shlex.quote(f"~{path.removeprefix(home)}")
            return f"the shell here has put this machine's home for '~': write {flag} {meant}, in quotes"
    return ""


def install_command(options: LaunchOptions, python: str, *, upgrade: bool = False) -> str:
    """Return the command line, run here, that installs ipykernel for an interpreter that is the user's own."""
    return _there(options, f"{quoted_path(python)} -m pip install {'--upgrade ' if upgrade else ''}ipykernel")


def new_environment(options: LaunchOptions, python: str, path: str) -> str:
    """Return what to do where the interpreter is the system's own: pip refuses to install there (PEP 668).

    `path` did not exist there a moment ago; if it does by now, mkdir fails, and nothing is written over.
    """
    make = f"mkdir {path} && {quoted_path(python)} -m venv {path} && {path}/bin/python -m pip install ipykernel"
    return f"give --python '{path}/bin/python', after making it with: {_there(options, make)}"


def discover_command(options: LaunchOptions) -> str:
    """Return the command line that shows which interpreters of the host have ipykernel."""
    return options.command_line("add", "--discover")


def is_system_path(python: str) -> bool:
    """True if an interpreter is the system's own by its path alone; the survey, which runs there, knows."""
    return _OF_THE_SYSTEM.fullmatch(python) is not None


def _there(options: LaunchOptions, script: str) -> str:
    return options.command_line("connect", "--", "sh", "-c", script)
