"""The `rkernel` command: kernels for agents, scripts and terminals.

argparse in place of typer: an agent calls `rkernel exec` hundreds of times, and typer's import alone takes five times
as long as the rest of such a call. For the same reason only the command that is asked for is built, and what it needs
is imported where it is used.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from remote_kernel.errors import LocalFilesError, RemoteKernelError, UsageError

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

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_PIPE_BROKEN = 128 + 13  # as if SIGPIPE had ended it


class Command(NamedTuple):
    """One command: what adds its arguments to a parser, and what runs it with the parsed ones and gives the status.

    What comes after `--` is not parsed where it `passes_on`, and is then `arguments` of the parsed ones.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    passes_on: bool = False


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Examples stay as they are written, but for comments that are too far right; sentences are wrapped.

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


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    names_script = False  # what is left over may be meant for that

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        hint = f"see '{self.prog} --help'"
        if self.names_script and ("unrecognized" in message or "FILE: not allowed" in message):
            hint = f"a script's arguments come after '--', as in '{self.prog} --file train.py -- --lr 0.1'; {hint}"
        raise UsageError(message, hint)


def main() -> NoReturn:
    """Run the command line of this process, and end it with the exit status.

    It ends at once: taking the interpreter apart would be a tenth of a short call.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever has started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as there is a process
    os._exit(_run_and_report())


def _run_and_report() -> int:
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
        return status
    except RemoteKernelError as error:
        from remote_kernel.terminal_safe import terminal_safe

        sys.stderr.write(terminal_safe(f"rkernel: {error}\n"))  # it may have a kernel's last words in it
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("rkernel: interrupted\n")
        return 130
    except BrokenPipeError:  # the reader of `rkernel ... | head` is gone
        return _PIPE_BROKEN
    except OSError as error:
        if error.errno in _UNWRITABLE and not error.filename:  # of what was shown, the cell has no part in it
            sys.stderr.write(f"rkernel: cannot write the output: {error.strerror}; 'rkernel wait' shows it again\n")
            return UsageError.exit_status
        sys.stderr.write(f"rkernel: {LocalFilesError.of(error)}\n")
        return LocalFilesError.exit_status


def run(arguments: Sequence[str]) -> int:
    """Run one command. Raises RemoteKernelError, UsageError among them."""
    if "_RKERNEL_COMPLETE" in os.environ:  # the shell asks, when Tab is pressed
        from remote_kernel.cli.rkernel.completion import answer

        return answer()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    if arguments[0] in ("-v", "--version"):
        from remote_kernel import __version__

        sys.stdout.write(f"rkernel {__version__}\n")
        return 0
    if arguments[0] in ("--install-completion", "--show-completion") and len(arguments) <= 2:
        from remote_kernel.cli.completion import set_up

        return set_up(*arguments, program="rkernel")
    name = arguments[0]
    command = find_command(name)
    if command is None:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'rkernel --help'"
        raise UsageError(f"there is no command '{name}'", hint)
    return command.run(parse(name, command, arguments[1:]))


def parse(name: str, command: Command, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse what comes behind the name of a command. Raises UsageError."""
    words, rest = list(arguments), []
    if command.passes_on and "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    parser = make_parser(name, command)
    parser.names_script = command.passes_on and any(word in ("-f", "--file") or word.endswith(".py") for word in words)
    return parser.parse_args(words, argparse.Namespace(arguments=rest))


# Where each command is defined: a module of this package, imported when it is asked for.
COMMANDS = {
    "exec": "cells",
    "wait": "cells",
    "tail": "cells",
    "interrupt": "sessions",
    "status": "sessions",
    "ls": "sessions",
    "kernelspecs": "kernelspecs",
    "attach": "sessions",
    "restart": "sessions",
    "refresh": "sessions",
    "close": "sessions",
    "vars": "looks",
    "inspect": "looks",
    "complete": "looks",
    "skill": "skill",
}


def find_command(name: str) -> Command | None:
    """Give the command of this name, if there is one."""
    if name not in COMMANDS:
        return None
    import importlib

    found: Command = importlib.import_module(f"remote_kernel.cli.rkernel.{COMMANDS[name]}").COMMANDS[name]
    return found


def make_parser(name: str, command: Command) -> Parser:
    """Give the parser of one command."""
    parser = Parser(prog=f"rkernel {name}", formatter_class=_Formatter, allow_abbrev=False, add_help=True)
    command.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
