"""`remote_kernel edit`: change the settings of a kernelspec that `add` made."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from remote_kernel.cli import completion
from remote_kernel.cli.check import ask_host, describe, refuse_idle_install, start_once
from remote_kernel.cli.edge import complain, note, say
from remote_kernel.cli.settings import EVERY_SETTING, GivenSettings, InstallOption, NameOption, NoCheckOption, takes
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.kernelspec.installed import Kernelspec, find_kernelspec
from remote_kernel.kernelspec.names import check_display_name
from remote_kernel.kernelspec.writing import (
    Draft,
    program_arguments,
    replace_document,
    require_added,
    rewrite_kernelspec,
)
from remote_kernel.options import LaunchOptions

EXAMPLES = """\b
Examples:
  remote_kernel edit remote_cuda --python /opt/conda/bin/python --install
  remote_kernel edit remote_cuda --linger 2d --keep --on-start ~/p --no-check
  remote_kernel edit remote_cuda --name "CUDA on gpu2" --endpoint gpu2
  remote_kernel edit remote_cuda --env CUDA_VISIBLE_DEVICES=1 --unset-env LOG
  remote_kernel edit remote_cuda --jump ''
  remote_kernel edit remote_cuda
"""


@takes(*EVERY_SETTING)
def edit(
    slug: Annotated[
        str,
        typer.Argument(
            metavar="KERNELSPEC",
            help="A kernelspec by its slug or name, e.g. remote_cuda.",
            autocompletion=completion.slugs,
        ),
    ],
    name: NameOption = None,
    *,
    given: GivenSettings,
    unset_env: Annotated[
        list[str] | None,
        typer.Option("--unset-env", metavar="K", help="Remove a variable, e.g. LOG; may be repeated."),
    ] = None,
    no_check: NoCheckOption = False,
    install: InstallOption = False,
) -> None:
    """Change the settings of a kernelspec that 'add' made.

    Only the settings that you give are changed. Without any, kernel.json opens in an editor: VISUAL, else EDITOR, else
    vi. An empty value restores the default. The slug does not change, even with a new name, because notebooks remember
    it. Kernels that are already running keep their settings.
    """
    spec = find_kernelspec(slug)
    require_added(spec)
    if not (given.any() or name is not None or unset_env or install):
        _edit_by_hand(spec)
        return
    if spec.options is None:
        raise UsageError(f"the settings of '{spec.slug}' cannot be read: {spec.problem}", "give no option to edit it")
    options = _without(given.applied_to(spec.options), unset_env or [])
    title = spec.display_name if name is None else check_display_name(name, besides=(spec.slug,))
    program = spec.program if os.access(spec.program[0], os.X_OK) else program_arguments()
    draft = Draft(title, options, spec.language, spec.interrupt_mode, program)
    draft.argv()
    if install:
        refuse_idle_install(options, check=not no_check)
    if install or (not no_check and _tried_before(options) != _tried_before(spec.options)):
        draft, found = ask_host(draft, install=install)
        note(describe(found))
        start_once(draft, undone="nothing was changed")
    elif not options.kernel and spec.options.kernel:
        draft = draft._replace(language="python", interrupt_mode="signal")
    changed = rewrite_kernelspec(spec, draft)
    say(f"changed '{changed.display_name}' ({changed.slug}) in {changed.folder}")


def _tried_before(options: LaunchOptions) -> LaunchOptions:
    """Leave out what needs no kernel to be tried."""
    return options._replace(linger_seconds=0.0, spool_bytes=0, keep=False, forward=(), on_start="")


def _without(options: LaunchOptions, names: list[str]) -> LaunchOptions:
    for name in names:
        if name not in dict(options.env):
            raise UsageError(f"the kernelspec sets no variable '{name}'", "'remote_kernel list --json' shows which")
    return options._replace(env=tuple(pair for pair in options.env if pair[0] not in names))


def _edit_by_hand(spec: Kernelspec) -> None:
    """Open a copy in the editor; replace kernel.json only by one that still describes a remote kernel."""
    before = (spec.folder / "kernel.json").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="remote_kernel-edit-") as folder:
        copy = Path(folder, "kernel.json")
        copy.write_text(before, encoding="utf-8")
        while True:
            _run_editor(copy)
            try:
                after = copy.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise UsageError(f"the editor left no file to read: {reason}", "the kernelspec is as it was") from error
            if after == before:
                say(f"nothing changed in '{spec.slug}'")
                return
            try:
                changed = replace_document(spec, after)
            except UsageError as error:
                if not sys.stdin.isatty():
                    raise
                complain("remote_kernel", str(error))
                if not typer.confirm("edit it again?", default=True, err=True):
                    raise typer.Exit(error.exit_status) from error
                continue
            say(f"changed '{changed.display_name}' ({changed.slug}) in {changed.folder}")
            return


def _run_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise RemoteKernelError(
            f"cannot run the editor '{editor}'", "set EDITOR, or give the settings as options"
        ) from error
    if status:
        raise RemoteKernelError(f"the editor '{editor}' ended with status {status}", "the kernelspec is as it was")
