"""Run a typer app so that whatever happens ends in one line and an exit status, never a traceback."""

from __future__ import annotations

import json
import os
import sys

import typer

from remote_kernel.errors import RemoteKernelError
from remote_kernel.harmless import harmless, harmless_json

# What typer raises for a wrong command line. Its base is public nowhere: older versions take it
# from click, newer ones bring a copy of their own.
_TyperError = typer.BadParameter.__mro__[2]


def run(app: typer.Typer, program: str, arguments: list[str]) -> int:
    """Run `app` with these arguments and give the exit status; called once, by the program's entry point.

    0 done, 1 an error of its own kind or a bug, 2 usage, 130 interrupted, else the error's status.
    """
    try:
        command = typer.main.get_command(app)
        result = command.main(args=arguments, prog_name=program, standalone_mode=False)
    except RemoteKernelError as error:
        complain(program, str(error))
        return error.exit_status
    except (typer.Abort, KeyboardInterrupt):
        result = 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except BrokenPipeError:
        # The reader of `list | head` is gone; keep the interpreter from flushing into nothing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, _TyperError):
            return _refuse(program, error)
        if os.environ.get("REMOTE_KERNEL_DEBUG"):
            raise
        complain(program, f"unexpected {type(error).__name__}: {error}; REMOTE_KERNEL_DEBUG=1 shows where")
        return 1
    if result == 130:  # newer typers turn KeyboardInterrupt into this result themselves
        if sys.stderr.isatty():
            note("")  # the terminal has just shown ^C
        complain(program, "interrupted")
    return result if isinstance(result, int) else 0


def complain(program: str, text: str) -> None:
    """Print one line on stderr, whatever line ends and control characters the text holds."""
    line = " ".join(filter(None, map(str.strip, text.splitlines())))
    typer.echo(f"{program}: {harmless(line)}", err=True)


def say(text: str) -> None:
    """Print a result on stdout. Whoever wrote what is in it cannot steer the terminal."""
    typer.echo(harmless(text))


def say_json(value: object) -> None:
    """Print a result on stdout as JSON."""
    typer.echo(harmless_json(json.dumps(value, indent=2, ensure_ascii=False)))


def note(text: str) -> None:
    """Print progress or an aside on stderr, where it does not mix with a result. As harmless as `say`."""
    typer.echo(harmless(text), err=True)


def _refuse(program: str, error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = message.strip().rstrip(".").replace(". Did", "; did")
    complain(program, f"{message[:1].lower()}{message[1:]}; see '{path} --help'")
    return int(getattr(error, "exit_code", 2))
