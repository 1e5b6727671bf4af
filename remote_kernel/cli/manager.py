"""The `remote_kernel` command line: the kernelspec manager's commands, in one app."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from remote_kernel.cli import add, completion, connect, demo, doctor, edit, files, forward, kept, listing, login
from remote_kernel.cli.edge import complain, note, run, say
from remote_kernel.errors import UsageError
from remote_kernel.kernelspec import find_kernelspec, remove_kernelspec, require_added

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

DELETE_EXAMPLES = """\b
Examples:
  remote_kernel delete remote_cuda
  remote_kernel delete "Remote CUDA" remote_python_gpu1 --yes
"""

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

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: list[str]) -> int:
    """Run the manager with these arguments, the program's name left out, and give the exit status."""
    if len(arguments) in (1, 2) and arguments[0] in completion.FLAGS:
        try:
            return completion.set_up(*arguments)
        except UsageError as error:
            complain("remote_kernel", str(error))
            return error.exit_status
    if arguments and (meant := _OTHER_NAMES.get(arguments[0])):
        complain("remote_kernel", f"no such command '{arguments[0]}'; see 'remote_kernel {meant} --help'")
        return UsageError.exit_status
    return run(app, "remote_kernel", arguments)


def _print_version(wanted: bool) -> None:
    if wanted:
        from remote_kernel.cli.version import version_lines

        typer.echo("\n".join(version_lines()))
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
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


app.command("add", epilog=add.EXAMPLES)(add.add)
app.command("list", epilog=listing.EXAMPLES)(listing.list_)
app.command("edit", epilog=edit.EXAMPLES)(edit.edit)
app.command("login", epilog=login.LOGIN_EXAMPLES)(login.login)
app.command("logout", epilog=login.LOGOUT_EXAMPLES)(login.logout)
app.command("sync", epilog=files.EXAMPLES)(files.sync)
app.command("connect", epilog=connect.EXAMPLES)(connect.connect)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("forward", epilog=forward.EXAMPLES)(forward.forward)
app.command("ps", epilog=kept.PS_EXAMPLES)(kept.ps)
app.command("stop", epilog=kept.STOP_EXAMPLES)(kept.stop_)
app.command("keep", epilog=kept.KEEP_EXAMPLES)(kept.keep)
app.command("logs", epilog=kept.LOGS_EXAMPLES)(kept.logs)
app.command("resume", epilog=kept.RESUME_EXAMPLES)(kept.resume)


@app.command("delete", epilog=DELETE_EXAMPLES)
def delete(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SLUG|NAME...",
            help="Kernelspecs, each by its slug or its display name, e.g. remote_cuda.",
            autocompletion=completion.slugs,
        ),
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask first.")] = False,
) -> None:
    """Delete kernelspecs that 'add' made.

    Kernels that run already are left alone. All names are looked up before anything is deleted. Asks once on a
    terminal, and not at all elsewhere.
    """
    specs = list({spec.folder: spec for spec in map(find_kernelspec, names)}.values())
    for spec in specs:
        require_added(spec)
    if not yes and sys.stdin.isatty():
        for spec in specs:
            where = spec.options.endpoint if spec.options else "?"
            note(f"{spec.slug}  '{spec.display_name}'  {where}  {spec.folder}")
        if not typer.confirm("delete?" if len(specs) == 1 else f"delete these {len(specs)}?", err=True):
            note("nothing was deleted")
            raise typer.Exit(1)
    for spec in specs:
        remove_kernelspec(spec)
        say(f"deleted '{spec.display_name}' ({spec.slug})")


app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
