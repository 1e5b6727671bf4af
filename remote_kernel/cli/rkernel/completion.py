"""Complete `rkernel`'s commands, options, sessions and kernelspecs in the shell.

Reads this machine's files only: a key press is not to wait for a kernel. What asks, and how, are the scripts that typer
installs (completion.py).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from remote_kernel.cli.rkernel.command import COMMANDS, HELP, find_command, make_parser
from remote_kernel.terminal_safe import terminal_safe

VARIABLE = "_RKERNEL_COMPLETE"
_FLAGS = ("--help", "--version", "--install-completion", "--show-completion")


class Word(NamedTuple):
    """What may stand at the cursor."""

    text: str
    help: str = ""


def answer() -> int:
    """Write what may come next, as the shell wants it, and return the exit status: 1 tells fish that files may."""
    shell = os.environ[VARIABLE].removeprefix("complete_")
    words = _words(shell)
    found = [word for word in find_words(words[1:-1]) if word.text.startswith(words[-1])]
    if shell == "zsh":
        listed = "\n".join(_for_zsh(word) for word in found)
        sys.stdout.write(f"_arguments '*: :(({listed}))'\n" if found else "_files\n")
    elif os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    else:
        with_help = shell == "fish"
        sys.stdout.write("".join(f"{word.text}\t{word.help}\n" if with_help else f"{word.text}\n" for word in found))
    return 0


def find_words(before: Sequence[str]) -> list[Word]:
    """Return what may come after these words; nothing where it is a file, a number or code."""
    if not before:
        return [*_commands(), *map(Word, _FLAGS)]
    command = find_command(before[0])
    if command is None or "--" in before:
        return []
    parser = make_parser(before[0], command)
    options = {name: action for action in parser._actions for name in action.option_strings}
    asking = options.get(before[-1])
    if asking and asking.nargs != 0:
        return _values(asking)
    positional = [action for action in parser._actions if not action.option_strings]
    return [
        *(word for action in positional[:1] for word in _values(action)),
        *(Word(name, _one_line(parser, action)) for name, action in options.items() if name.startswith("--")),
    ]


def _commands() -> Iterable[Word]:
    return (Word(name, says) for name, says in re.findall(r"^  (\w+) +(.+)$", HELP, re.MULTILINE) if name in COMMANDS)


def _values(action: argparse.Action) -> list[Word]:
    if action.choices:
        return list(map(Word, action.choices))
    if action.dest == "session" or action.metavar == "SESSION":
        from remote_kernel.session.paths import session_names

        return list(map(Word, session_names()))
    if action.dest == "kernel":
        from remote_kernel.session.kernel_program import list_programs

        return [Word(program.kernelspec, terminal_safe(program.display_name)) for program in list_programs()]
    return []


def _one_line(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return " ".join(parser._get_formatter()._expand_help(action).split()) if action.help else ""


def _words(shell: str) -> list[str]:
    """Return the command line's words up to the cursor, the last of them perhaps empty."""
    if shell == "bash":
        at = int(os.environ.get("COMP_CWORD", "0"))
        return [*_split(os.environ.get("COMP_WORDS", "")), ""][: at + 1]
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return _split(line) if line[-1:].strip() else [*_split(line), ""]


def _split(line: str) -> list[str]:
    splitter = shlex.shlex(line, posix=True)
    splitter.whitespace_split, splitter.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(splitter)
    except ValueError:  # a quote that is still open
        words.append(splitter.token)
    return words


def _for_zsh(word: Word) -> str:
    for_eval = {"\\": "", "$": "\\$", "`": "\\`", ":": "\\\\:", '"': '""', "'": "''"}
    text, says = ("".join(for_eval.get(sign, sign) for sign in part) for part in word)
    return f'"{text}":"{says}"' if says else f'"{text}"'
