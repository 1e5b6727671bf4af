"""`remote_kernel add`: check a remote host, then install a kernelspec for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remote_kernel.cli import add_discovered, completion
from remote_kernel.cli.check import ask_host, describe, refuse_idle_install, start_once
from remote_kernel.cli.edge import note, say
from remote_kernel.cli.settings import (
    EVERY_SETTING,
    NAME_GROUP,
    GivenSettings,
    InstallOption,
    NameOption,
    NoCheckOption,
    option,
    takes,
)
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import UsageError
from remote_kernel.kernelspec.folders import jupyter_folders, kernels_folder
from remote_kernel.kernelspec.installed import Kernelspec
from remote_kernel.kernelspec.names import check_free
from remote_kernel.kernelspec.writing import Draft, check_writable, write_kernelspec
from remote_kernel.options import LaunchOptions

EXAMPLES = """\b
Examples:
  remote_kernel add gpu1
  remote_kernel add --endpoint me@gpu1:2222 -J me@gate --name "Remote CUDA"
  remote_kernel add gpu1 --python /opt/conda/bin/python --install --keep
  remote_kernel add gpu1 --kernel ir --env OMP_NUM_THREADS=4 --workdir '~/r'
  remote_kernel add gpu1 --name "Remote CUDA" --replace --no-check --user
  remote_kernel add gpu1 --sys-prefix --forward 6006 --on-start ~/project
  remote_kernel add --discover gpu1
  remote_kernel add --discover gpu1 --all --install
  remote_kernel add --discover gpu1 --json
"""

LOOK_GROUP = "See what the host has"


@takes(*EVERY_SETTING)
def add(
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST",
            help="The remote host: an ssh config alias or [USER@]HOST[:PORT], e.g. gpu1.",
            autocompletion=completion.hosts,
        ),
    ] = None,
    name: NameOption = None,
    *,
    given: GivenSettings,
    user: Annotated[
        bool, option(NAME_GROUP, "--user", "Install into your own Jupyter data folder (the default).")
    ] = False,
    sys_prefix: Annotated[
        bool, option(NAME_GROUP, "--sys-prefix", "Install into the Python environment of this command.")
    ] = False,
    prefix: Annotated[
        str, option(NAME_GROUP, "--prefix DIR", "Install into DIR/share/jupyter/kernels, e.g. /opt/jupyter.")
    ] = "",
    replace: Annotated[
        bool, option(NAME_GROUP, "--replace", "Overwrite a kernelspec with that name, if 'add' made it.")
    ] = False,
    no_check: NoCheckOption = False,
    install: InstallOption = False,
    discover: Annotated[
        bool,
        option(
            LOOK_GROUP, "--discover", "Look for environments on the host, show them, and add those that you choose."
        ),
    ] = False,
    everything: Annotated[
        bool, option(LOOK_GROUP, "--all", "With --discover: add everything that can run a kernel, without asking.")
    ] = False,
    as_json: Annotated[
        bool, option(LOOK_GROUP, "--json", "With --discover: print what the host has as JSON, and add nothing.")
    ] = False,
) -> int:
    """Install a kernelspec for a remote host, after trying it.

    JupyterLab, VS Code and every other program that reads kernelspecs then offer it. Connects to the host, looks for
    the interpreter and ipykernel, and starts a kernel once. Only if that works is the kernelspec written: to Jupyter's
    data folder, or to the folder LOCAL_KERNELS_DIR if that is set.

    With --discover it lists the host's interpreters, its conda, venv, uv and pixi environments, and its kernelspecs of
    other languages, and shows which have ipykernel, torch and jax. An interpreter outside PATH and your home that
    other users can change is listed, but not run.
    """
    options = _options(host, given)
    kernels = kernels_folder(user=user, sys_prefix=sys_prefix, prefix=prefix)
    if install:
        refuse_idle_install(options, check=not no_check)
    if discover:
        if given.python or given.kernel or name:
            raise UsageError("--discover looks for interpreters and kernels itself", "leave --python, --kernel, --name")
        if replace:
            raise UsageError("--discover replaces no kernelspec", "delete it first, or add it again by --python")
        return add_discovered.add_found(
            options, kernels, everything=everything, as_json=as_json, install=install, check=not no_check
        )
    if everything or as_json:
        raise UsageError("--all and --json go with --discover", "write 'remote_kernel add --discover HOST'")
    _report(_added(options, name, kernels, replace=replace, install=install, check=not no_check))
    return 0


def _options(host: str | None, given: GivenSettings) -> LaunchOptions:
    if bool(host) == bool(given.endpoint):
        problem = "HOST and --endpoint are two forms of the same" if host else "no host is given"
        raise UsageError(problem, "write for example 'remote_kernel add gpu1'")
    return given.applied_to(LaunchOptions(Endpoint.parse(host or given.endpoint or "")))


def _added(
    options: LaunchOptions, name: str | None, kernels: Path, *, replace: bool, install: bool, check: bool
) -> Kernelspec:
    """Install the kernelspec, tried before unless `check` is false; all that needs no connection is looked at first."""
    title = f"{options.kernel or 'Remote Python'} ({options.endpoint})" if name is None else name
    draft = Draft(" ".join(title.split()), options)
    check_free(draft.display_name, kernels, replace=replace)
    check_writable(kernels)
    draft.argv()
    if check:
        draft, found = ask_host(draft, install=install)
        note(describe(found))
        if found.kernelspec and name is None:
            draft = draft._replace(display_name=f"{found.kernelspec.display_name} ({options.endpoint})")
            check_free(draft.display_name, kernels, replace=replace)
        start_once(draft)
    elif options.kernel:
        note("note: without a check the kernel's language is unknown; the kernelspec says python")
    return write_kernelspec(draft, kernels, replace=replace)


def _report(spec: Kernelspec) -> None:
    say(f"added '{spec.display_name}' as {spec.slug} in {spec.folder}")
    kernels = spec.folder.parent
    if kernels not in jupyter_folders():
        hint = (
            f"set JUPYTER_PATH={kernels.parent}" if kernels.name == "kernels" else "it needs a folder called 'kernels'"
        )
        note(f"note: Jupyter does not look into {kernels}; {hint}")
    typer.echo(
        "JupyterLab: reload the page; it is in the launcher and in Kernel > Change Kernel...\n"
        "VS Code: Select Kernel > Jupyter Kernel..., and the refresh button there if it is missing"
    )
