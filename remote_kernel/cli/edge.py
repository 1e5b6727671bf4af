"""Run a typer app so that whatever happens ends in one line and an exit status, never a traceback."""

from __future__ import annotations

from typing import Any

import typer

from remote_kernel.cli.telling import INTERRUPTED, complain, ended, note, say, say_json

__all__ = ["complain", "ended", "note", "run", "say", "say_json"]

# What typer raises for a wrong command line. Its base is public nowhere: older versions take it
# from click, newer ones bring a copy of their own.
_TyperError: type[Exception] = typer.BadParameter.__mro__[2]


def run(app: typer.Typer, program: str, arguments: list[str]) -> int:
    """Run `app` with these arguments and return the exit status; called once, by the program's entry point.

    2 for a wrong command line, else as `ended` says.
    """

    def call() -> object:
        try:
            command = typer.main.get_command(app)
            return command.main(args=arguments, prog_name=program, standalone_mode=False)
        except typer.Abort:
            return INTERRUPTED
        except _TyperError as error:
            return _refuse(program, error)

    return ended(program, call)


def _runs_a_command(command: Any) -> bool:
    return any(str(parameter.metavar).startswith("[-- ") for parameter in command.params)


def _refuse(program: str, error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = message.strip().rstrip(".").replace(". Did", "; did")
    hint = f"see '{path} --help'"
    if hasattr(error, "option_name") and context and _runs_a_command(context.command):
        hint += f"; the options of a command go behind '--': {path} HOST -- COMMAND"
    told = f"{message[:1].lower()}{message[1:]}"
    complain(program, f"{told} {hint[:1].upper()}{hint[1:]}" if told.endswith("?") else f"{told}; {hint}")
    return int(getattr(error, "exit_code", 2))
