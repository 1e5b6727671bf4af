"""Describe `rkernel`'s commands: their help, which module each is in, and how its arguments are parsed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from remote_kernel.errors import UsageError
from remote_kernel.terminal_safe import terminal_safe

# At most 79 characters in a line: it is shown as it is.
HELP = """\
rkernel: run code in Jupyter kernels, remote or local, from agents, scripts and
terminals.

A session is a name with a kernel behind it. Variables stay between calls. The
kernel, the running cell and its output outlive the command, a lost network and
a killed client. All that runs is logged to a notebook, rkernel-SESSION.ipynb.

  The first call makes the session 'remote_cuda':
    rkernel exec -k remote_cuda --code 'x = 6 * 7; x'

  Later calls find it. Code on stdin is taken as it is:
    rkernel exec <<'PY'
    print(x)
    PY

Run code
  exec         run code (--code, --file, stdin, a notebook), show its output
  wait         wait for a running cell, and show its output from the start
  tail         show a cell's output so far (--since: what is new), do not wait
  interrupt    stop the running cell, or take one out of the queue

Look, also while a cell runs
  status       busy or idle, the running cell, the queue, memory, connection
  vars         the variables: name, type, shape, value
  inspect      documentation of a name
  complete     completions of a piece of code

Sessions
  ls           every session on this machine
  kernelspecs  every kernelspec that -k takes, remote or local
  attach       make a session of a kernel that is open here in JupyterLab or
               VS Code
  restart      end the kernel and start a new one; the variables are lost
  refresh      replace the session's host process, after an update or if it
               hangs; the kernel stays
  close        end sessions and their kernels; the notebooks stay
  skill        show, install or remove the instructions for coding agents

'rkernel COMMAND --help' has every option, with examples. Your shell completes
commands and names after 'rkernel --install-completion' (bash, zsh, fish).

Which session: -s NAME, else RKERNEL_SESSION, else the one of the kernelspec
given with -k, else the only one there is.

Exit status
    0  the cell ended well           5  the cell was aborted and never ran
    1  the code raised an error      6  connection lost; the cell may still run
    2  wrong usage                   7  input() was called, nobody can answer
    3  no such session             124  still running; use 'rkernel wait'
    4  the kernel died or was      130  interrupted
       restarted; state lost     10-53  the kernel cannot start; the statuses
                                        are those of remote_kernel
"""

# Where each command is defined: a module of this package, imported when it is asked for.
COMMANDS = {
    "exec": "cells",
    "wait": "cells",
    "tail": "cells",
    "interrupt": "sessions",
    "status": "sessions",
    "ls": "sessions",
    "kernelspecs": "sessions",
    "attach": "sessions",
    "restart": "sessions",
    "refresh": "sessions",
    "close": "sessions",
    "vars": "looks",
    "inspect": "looks",
    "complete": "looks",
    "skill": "skill",
}


class Subcommand(NamedTuple):
    """One command: what adds its arguments to a parser, and what runs it with the parsed ones and returns the status.

    What comes after `--` is not parsed where it `passes_on`, and is then `arguments` of the parsed ones.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    passes_on: bool = False


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Leave examples as they are written, but for comments that are too far right, and wrap sentences.

    The width is found here: argparse would import shutil, and bz2 with it.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(_columns(), 120) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        import textwrap

        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(_with_comment_above(line, width) for line in text.splitlines(keepends=True))
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def _with_comment_above(line: str, width: int) -> str:
    code, mark, comment = line.partition("  # ")
    return f"  # {comment}{code.rstrip()}\n" if mark and len(line.rstrip()) > width else line


def _columns() -> int:
    """Return the terminal's width, also where a pager reads the help; 80 where there is none."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(40, int(os.environ["COLUMNS"]))
    for file in (1, 2, 0):
        try:
            return max(40, os.get_terminal_size(file).columns)
        except OSError:
            pass
    return 80


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    names_script = False  # what is left over may be meant for that

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        hint = f"see '{self.prog} --help'"
        if self.names_script and ("unrecognized" in message or "FILE: not allowed" in message):
            hint = f"a script's arguments come after '--', as in '{self.prog} --file train.py -- --lr 0.1'; {hint}"
        raise UsageError(message, hint)


def find_command(name: str) -> Subcommand | None:
    """Return the command of this name, if there is one."""
    if name not in COMMANDS:
        return None
    import importlib

    found: Subcommand = importlib.import_module(f"remote_kernel.cli.rkernel.{COMMANDS[name]}").COMMANDS[name]
    return found


def make_parser(name: str, command: Subcommand) -> CommandParser:
    """Return the parser of one command."""
    parser = CommandParser(prog=f"rkernel {name}", formatter_class=_Formatter, allow_abbrev=False, add_help=True)
    command.add_arguments(parser)
    return parser


def parse(name: str, command: Subcommand, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse what comes behind the name of a command. Raises UsageError."""
    words, rest = list(arguments), []
    if command.passes_on and "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    parser = make_parser(name, command)
    parser.names_script = command.passes_on and any(word in ("-f", "--file") or word.endswith(".py") for word in words)
    return parser.parse_args(words, argparse.Namespace(arguments=rest))


def characters(text: str) -> int:
    """Return the number that `--budget` has."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of characters")
    return int(text)


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows on stdout, each column as wide as its widest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write(terminal_safe("  ".join(map(str.ljust, row, widths)).rstrip() + "\n"))


def write_json(value: object) -> None:
    """Write a JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
