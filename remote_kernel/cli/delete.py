"""`remote_kernel delete`: take kernelspecs that `add` made out of the picker."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from remote_kernel.cli import completion
from remote_kernel.cli.edge import note, say
from remote_kernel.cli.settings import YesOption
from remote_kernel.errors import UsageError
from remote_kernel.kernelspec.installed import Kernelspec, find_kernelspec, list_kernelspecs
from remote_kernel.kernelspec.writing import remove_kernelspec, require_added

EXAMPLES = """\b
Examples:
  remote_kernel delete remote_cuda
  remote_kernel delete "Remote CUDA" remote_python_gpu1 --yes
  remote_kernel delete --all
"""


def delete(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KERNELSPEC...",
            help="Kernelspecs, each by its slug or name, e.g. remote_cuda.",
            autocompletion=completion.slugs,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete every kernelspec that 'add' made.")] = False,
    yes: YesOption = False,
) -> None:
    """Delete kernelspecs that 'add' made.

    Running kernels are not ended. If a name is unknown, nothing is deleted. Asks once, if there is a terminal.
    """
    if bool(names) == everything:
        problem = "--all and names exclude each other" if names else "no kernelspec is named"
        raise UsageError(problem, "name the kernelspecs to delete, or give --all")
    specs = [spec for spec in list_kernelspecs() if spec.was_added] if everything else _named(names or [])
    if not specs:
        note("there is nothing to delete")
        return
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


def _named(names: list[str]) -> list[Kernelspec]:
    specs = list({spec.folder: spec for spec in map(find_kernelspec, names)}.values())
    for spec in specs:
        require_added(spec)
    return specs
