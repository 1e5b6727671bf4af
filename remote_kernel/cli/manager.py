"""The `remote_kernel` command line: the kernelspec manager's commands, in one app.

Only the command that is asked for is imported and built: typer takes longer for each than most of them run.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from remote_kernel.cli import completion
from remote_kernel.cli.edge import INTERRUPTED, complain, ended
from remote_kernel.errors import UsageError

PROGRAM = "remote_kernel"
EXAMPLES = """\b
Examples:
  remote_kernel add gpu1 --name "Remote CUDA"
  remote_kernel list
  remote_kernel delete remote_cuda
  remote_kernel --version

\b
Front ends start a kernel with the command that 'add' writes into kernel.json:
  remote_kernel --endpoint gpu1 -f {connection_file}
"""

# What each command is: the module of this package, the function in it, and its examples there.
COMMANDS = {
    "add": ("add", "add", "EXAMPLES"),
    "list": ("listing", "list_", "EXAMPLES"),
    "edit": ("edit", "edit", "EXAMPLES"),
    "login": ("login", "login", "LOGIN_EXAMPLES"),
    "logout": ("login", "logout", "LOGOUT_EXAMPLES"),
    "sync": ("files", "sync", "EXAMPLES"),
    "connect": ("connect", "connect", "EXAMPLES"),
    "doctor": ("doctor", "doctor", "EXAMPLES"),
    "forward": ("forward", "forward", "EXAMPLES"),
    "ps": ("kept", "ps", "PS_EXAMPLES"),
    "stop": ("kept", "stop_", "STOP_EXAMPLES"),
    "keep": ("kept", "keep", "KEEP_EXAMPLES"),
    "logs": ("kept", "logs", "LOGS_EXAMPLES"),
    "resume": ("kept", "resume", "RESUME_EXAMPLES"),
    "delete": ("delete", "delete", "EXAMPLES"),
    "demo": ("demo", "demo", "EXAMPLES"),
}

# What typer raises for a wrong command line. Its base is public nowhere: older versions take it
# from click, newer ones bring a copy of their own.
_TyperError: type[Exception] = typer.BadParameter.__mro__[2]


# What other tools call these; a likeness of letters would suggest something else.
_OTHER_NAMES = {
    **dict.fromkeys(("remove", "rm", "uninstall"), "delete"),
    **dict.fromkeys(("install", "create", "new"), "add"),
    **dict.fromkeys(("ssh", "shell"), "connect"),
    **dict.fromkeys(("cp", "copy", "scp", "rsync", "push", "pull"), "sync"),
    **dict.fromkeys(("kill", "shutdown"), "stop"),
    **dict.fromkeys(("ls", "specs"), "list"),
    **dict.fromkeys(("check", "test"), "doctor"),
    **dict.fromkeys(("attach", "reattach"), "resume"),
}


def main(arguments: list[str]) -> int:
    """Run the manager with these arguments, the program's name left out, and return the exit status."""
    if len(arguments) in (1, 2) and arguments[0] in completion.FLAGS:
        return ended(PROGRAM, lambda: completion.set_up(*arguments))
    if arguments and arguments[0] in _OTHER_NAMES:
        return ended(PROGRAM, lambda: _refuse_other_name(arguments[0]))
    named = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    return _run(build(named), arguments)


def _refuse_other_name(name: str) -> None:
    raise UsageError(f"no such command '{name}'", f"see 'remote_kernel {_OTHER_NAMES[name]} --help'")


def _run(app: typer.Typer, arguments: list[str]) -> int:
    """Run the app with these arguments and return the exit status: 2 for a wrong command line, else as `ended` says."""

    def call() -> object:
        try:
            command = typer.main.get_command(app)
            return command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        except typer.Abort:
            return INTERRUPTED
        except _TyperError as error:
            return _refuse(error)

    return ended(PROGRAM, call)


def _runs_a_command(command: Any) -> bool:
    return any(str(parameter.metavar).startswith("[-- ") for parameter in command.params)


def _refuse(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = message.strip().rstrip(".").replace(". Did", "; did")
    hint = f"see '{path} --help'"
    if hasattr(error, "option_name") and context and _runs_a_command(context.command):
        hint += f"; the options of a command go behind '--': {path} HOST -- COMMAND"
    told = f"{message[:1].lower()}{message[1:]}"
    complain(PROGRAM, f"{told} {hint[:1].upper()}{hint[1:]}" if told.endswith("?") else f"{told}; {hint}")
    return int(getattr(error, "exit_code", 2))


def _print_version(wanted: bool) -> None:
    if wanted:
        from remote_kernel.cli.version import version_lines

        typer.echo("\n".join(version_lines()))
        raise typer.Exit


def build(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the app with these commands."""
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True, epilog=EXAMPLES)(manage)
    for name in names:
        module, function, examples = COMMANDS[name]
        found = importlib.import_module(f"remote_kernel.cli.{module}")
        app.command(name, cls=GroupedHelpCommand, epilog=getattr(found, examples))(getattr(found, function))
    return app


def manage(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "-v",
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and the settings in force.",
        ),
    ] = False,
) -> None:
    """Jupyter kernels on remote machines over SSH, as if they were local."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class GroupedHelpCommand(TyperCommand):
    """A command whose help typer's rich mode would group too, without what typer adds of types.

    An option's `rich_help_panel` names its group; the groups come in the order of their first options.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line."""
        return ["[OPTIONS]", *(shown(one) for one in self.params if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by groups."""
        arguments, groups = [], dict[str, list[tuple[str, str]]]()
        for one in self.get_params(ctx):
            if one.param_type_name == "argument":
                arguments.append((shown(one), getattr(one, "help", "") or ""))
            elif record := one.get_help_record(ctx):
                groups.setdefault(getattr(one, "rich_help_panel", None) or "Options", []).append(record)
        groups["Options"] = groups.pop("Options")  # --help is one of them
        for title, rows in {"Arguments": arguments, **groups}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def shown(argument: Any) -> str:
    """Return an argument as the usage has it, in brackets if it may be left out."""
    text = str(argument.metavar)
    return text if argument.required or text.startswith("[") else f"[{text}]"
