"""`remote_kernel connect`: a shell on the remote host, where and as its kernel runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from remote_kernel.cli import completion, listing
from remote_kernel.cli.edge import note
from remote_kernel.cli.login import person_here
from remote_kernel.cli.settings import GivenSettings, takes
from remote_kernel.errors import UsageError
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug
from remote_kernel.options import LaunchOptions
from remote_kernel.shell import remote_command
from remote_kernel.transport import choice
from remote_kernel.transport import login as entry
from remote_kernel.transport.openssh import MASTER_SECONDS

EXAMPLES = """\b
Examples:
  remote_kernel connect remote_cuda
  remote_kernel connect gpu1 -- nvidia-smi
  remote_kernel connect remote_cuda -- python train.py --epochs 3
  remote_kernel connect me@gpu1:2222 -J me@gate --python '~/.venv/bin/python'
  remote_kernel connect
"""


@takes("jump", "python", "env", "workdir", "init", "transport", "ssh_config")
def connect(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="KERNELSPEC|HOST",
            help="A kernelspec by its slug or name, or a host, e.g. gpu1. Without one, list what there is.",
            autocompletion=completion.targets,
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="A command to run instead of a shell, with its arguments, e.g. nvidia-smi.",
        ),
    ] = None,
    *,
    given: GivenSettings,
) -> None:
    """Open a shell in a kernel's environment.

    It starts in the kernelspec's workdir, with its interpreter first in PATH and its --env variables, after its --init
    code. Options given here replace the kernelspec's. It uses the connection that kernels share; what a login needs is
    asked in the terminal. A COMMAND is run as it is, without a shell (give 'sh -c' for one), and its exit status is
    returned. Without a terminal the shell reads its commands from stdin.
    """
    if name is None:
        if command:
            raise UsageError("a command needs a host", "write for example 'remote_kernel connect gpu1 -- nvidia-smi'")
        listing.list_()
        return
    options = _options(name, given)
    with perhaps_a_slug(name), person_here() as person:
        entry.log_in(options, person, MASTER_SECONDS)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    line = remote_command(_with_its_python(options), command or (), interactive=at_terminal)
    argv = choice.session_argv(options, line, terminal=at_terminal)
    sys.stdout.flush()
    sys.stderr.flush()
    # From here on the terminal, its size, Ctrl-C and the exit status are ssh's.
    os.execvpe(argv[0], argv, choice.environment(options))


def _options(name: str, given: GivenSettings) -> LaunchOptions:
    target = find_target(name, other_way=given.has_a_way)
    if len(target.kernelspecs) > 1:
        slugs = ", ".join(spec.slug for spec in target.kernelspecs)
        note(f"note: {name} has several kernelspecs ({slugs}): give one for its environment")
    return given.applied_to(target.options)


def _with_its_python(options: LaunchOptions) -> LaunchOptions:
    """Return the options with the interpreter of the remote kernelspec that they name, if it is Python's."""
    if not options.kernel:
        return options
    from remote_kernel.probe import probe

    spec = probe(options).kernelspec
    is_python = spec and spec.argv and spec.argv[0].startswith("/") and spec.language == "python"
    return options._replace(python=spec.argv[0]) if spec and is_python else options
