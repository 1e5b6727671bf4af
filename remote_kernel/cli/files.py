"""`remote_kernel sync`: files both ways, to where the kernel works and back."""

from __future__ import annotations

import glob
import os
from typing import Annotated

import typer

from remote_kernel.cli.copying import Request, run
from remote_kernel.cli.settings import WAY_THERE, GivenSettings, takes
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
    """Complete slugs, `remote:` and local paths in the shell."""
    words = [spec.slug for spec in list_kernelspecs()] + ["remote:"]
    paths = [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(incomplete) + "*"))]
    return [word for word in words if word.startswith(incomplete)] + paths


@takes(*WAY_THERE)
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Skip what this pattern matches, written as in a .gitignore, e.g. '*.ckpt'; may be repeated. With ! "
            "in front it copies files that a .gitignore skips.",
        ),
    ] = None,
    no_ignore: Annotated[
        bool, typer.Option("--no-ignore", help="Also copy ignored files (.gitignore) and .git folders.")
    ] = False,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Delete files at the destination that the source does not have; skipped files stay."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Change nothing, only list what would be done.")
    ] = False,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Compare contents where sizes are equal, not only times.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep running, and copy changes made here: looks once a second, until Ctrl-C."),
    ] = False,
    sftp: Annotated[
        bool,
        typer.Option(
            "--sftp",
            help="Copy over SFTP. This happens by itself if the host has no Python or allows only SFTP.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name every path that is copied or deleted.")] = False,
    *,
    given: GivenSettings,
) -> None:
    """Copy files to the remote host, or back.

    Copies folders with their contents, modes, times and links. Only files that differ are copied, large files only in
    the parts that differ. Ignored files (.gitignore) are skipped. A file appears under its name only when it is
    complete. A connection that breaks is tried again for two minutes; the same command, given later, continues.
    """
    asked = Request(words, exclude, no_ignore, delete, dry_run, checksum, watch, verbose, sftp)
    run(asked, given.applied_to if given.any() else None)
