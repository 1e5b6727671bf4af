"""`remote_kernel sync` for typer: its help, its completion, and whatever `sync` does not read itself."""

from __future__ import annotations

import glob
import os
from typing import Annotated, Any

import typer

from remote_kernel.cli.settings import WAY_THERE, GivenSettings, expanding, takes
from remote_kernel.cli.sync import DECLARED, Declared, run, sync_options
from remote_kernel.kernelspec.installed import list_kernelspecs

EXAMPLES = """\b
Examples:
  remote_kernel sync . remote:work
  remote_kernel sync remote_cuda remote:results ./
  remote_kernel sync gpu1 data/ remote:/scratch/data --delete --dry-run
  remote_kernel sync . remote:work --exclude '*.ckpt' --exclude /runs/ --watch
  remote_kernel sync . remote:work --no-ignore --checksum --verbose
  remote_kernel sync me@gpu1:2222 model.py remote:work/ -J me@gate
  remote_kernel sync storage data/ remote:upload --sftp

'remote:' marks the path on the host; if relative, it starts from the kernelspec's --workdir, else from the home. As
with rsync, a folder is copied under its own name, and what is inside it if it is written with a slash at the end or
is '.': 'sync data remote:work' makes work/data, and 'sync data/ remote:work' fills work.
"""


def _complete(incomplete: str) -> list[str]:
    """Return the slugs, `remote:` and local paths that begin so, for the shell."""
    words = [spec.slug for spec in list_kernelspecs()] + ["remote:"]
    paths = [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(incomplete) + "*"))]
    return [word for word in words if word.startswith(incomplete)] + paths


def _with_type(option: Declared) -> tuple[Any, object]:
    """Return an option's type, as typer reads it, and its default."""
    declared = typer.Option(*option.flags, metavar=option.metavar or None, help=option.help)
    return (Annotated[list[str] | None, declared], None) if option.metavar else (Annotated[bool, declared], False)


@takes(*WAY_THERE)
@expanding("said", {option.field: _with_type(option) for option in DECLARED}, dict)
def sync(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KERNELSPEC|HOST] SRC DST",
            help="A kernelspec or a host, e.g. gpu1; not needed if there is only one kernelspec. Then the source and "
            "the destination: 'remote:' marks the one on the host.",
            autocompletion=_complete,
        ),
    ],
    *,
    said: dict[str, Any],
    given: GivenSettings,
) -> None:
    """Copy files to the remote host, or back.

    Copies folders with their contents, modes, times and links. Only files that differ are copied, large files only in
    the parts that differ. Ignored files (.gitignore) are skipped. A file appears under its name only when it is
    complete. A connection that breaks is tried again for two minutes; the same command, given later, continues.
    """
    run(words, sync_options(said), given.applied_to if given.any() else None)
