"""`remote_kernel sync`: files both ways, to where the kernel works and back."""

from __future__ import annotations

import glob
import os
from typing import Annotated

import typer

from remote_kernel.cli.edge import note
from remote_kernel.cli.progress import counted, reporter, shown, size_text
from remote_kernel.cli.settings import WAY_THERE, Settings, takes
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import NoSuchKernelspec, SyncIncomplete, UsageError
from remote_kernel.kernelspec import list_kernelspecs
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.again import persistently
from remote_kernel.sync.outcome import Manner, Outcome
from remote_kernel.sync.place import parse_places
from remote_kernel.sync.receiver import Wishes
from remote_kernel.sync.tool import ALL, NEVER
from remote_kernel.sync.transfer import sync as copy
from remote_kernel.sync.watching import watch as watch_folder
from remote_kernel.target import find_target

EXAMPLES = """\b
Examples:
  remote_kernel sync . remote:work
  remote_kernel sync remote_cuda remote:results ./
  remote_kernel sync gpu1 data/ remote:/scratch/data --delete --dry-run
  remote_kernel sync . remote:work --exclude '*.ckpt' --exclude /runs/ --watch
  remote_kernel sync . remote:work --no-ignore --checksum --verbose --rsync
  remote_kernel sync me@gpu1:2222 model.py remote:work/ -J me@gate
  remote_kernel sync storage data/ remote:upload --sftp

'remote:' marks the path on the host; if relative, it starts from the kernelspec's --workdir, else from the home. As
with rsync, a folder is copied under its own name, and what is inside it if it is written with a slash at the end or
is '.': 'sync data remote:work' makes work/data, and 'sync data/ remote:work' fills work.
"""
_MOST_SHOWN = 10


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
            metavar="[SLUG|HOST] SRC DST",
            help="A kernelspec or a host, e.g. gpu1; not needed where there is only one kernelspec. Then what to copy, "
            "and where to: one of the two is marked with 'remote:'.",
            autocompletion=_complete,
        ),
    ],
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave out what this pattern matches, written as in a .gitignore, e.g. '*.ckpt'; may be repeated. One "
            "that begins with ! takes along what a .gitignore leaves out.",
        ),
    ] = None,
    no_ignore: Annotated[
        bool, typer.Option("--no-ignore", help="Take along what .gitignore files leave out, and .git folders.")
    ] = False,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Delete at the destination what the source lacks; what is left out there stays as it is."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", help="Change nothing, and list what would be done.")
    ] = False,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Compare contents where sizes are equal, not only times.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and copy what changes here: looks once a second, until Ctrl-C.")
    ] = False,
    rsync: Annotated[
        bool | None,
        typer.Option(
            "--rsync/--no-rsync",
            help="Let rsync carry all files, or none; else, where both ends have it, large ones that have changed.",
        ),
    ] = None,
    sftp: Annotated[
        bool,
        typer.Option(
            "--sftp",
            help="Copy over SFTP, as is done without this where the host has no Python or allows nothing but SFTP.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name every path that is copied or deleted.")] = False,
    *,
    given: Settings,
) -> None:
    """Copy files to the remote host, or back.

    Folders with what is in them, modes, times and links; only what differs is copied, a large file only in the parts
    that differ. What a .gitignore leaves out stays out. A file appears under its name when it is whole. A connection
    that breaks is tried again for two minutes; the same command, given later, goes on from where it was.
    """
    if len(words) not in (2, 3):
        raise UsageError("give what to copy, and where to", "write for example: sync . remote:work")
    source, target = parse_places(words[-2], words[-1])
    if watch and (source.is_remote or dry_run):
        raise UsageError("--watch copies from here, and not as a dry run", "leave it out")
    options = _options(words[0] if len(words) == 3 else None, given)
    wishes = Wishes(delete=delete, dry_run=dry_run, checksum=checksum, names=dry_run or verbose)
    if rsync is not None:
        wishes = wishes._replace(rsync=ALL if rsync else NEVER)
    manner = Manner(wishes, tuple(exclude or ()), not no_ignore, sftp)
    with reporter(f"{source} to {target}") as report:
        if watch:
            watch_folder(
                options,
                source,
                target,
                manner,
                report,
                lambda outcome: _tell_changes(outcome, wishes),
                report.interrupted,
            )
        outcome = persistently(lambda: copy(options, source, target, manner, report), report.interrupted)
    _tell(outcome, wishes)
    if outcome.failures:
        _raise_failed(outcome)


def _options(name: str | None, given: Settings) -> LaunchOptions:
    """Give the way there, and the workdir that relative paths start from. Raises UsageError."""
    if name is not None and given.any():
        try:
            return given.applied_to(find_target(name).options)
        except NoSuchKernelspec:
            return given.applied_to(LaunchOptions(Endpoint.parse(name)))
    if name is not None:
        return find_target(name).options
    specs = [spec for spec in list_kernelspecs() if spec.options and not spec.options.resume]
    if len(specs) != 1 or specs[0].options is None:
        names = ", ".join(spec.slug for spec in specs)
        what = f"several: {names}" if specs else "no kernelspec"
        raise UsageError(
            f"which host is meant? There is {what}" if not specs else f"which host is meant? There are {what}",
            "give a kernelspec or a host before SRC and DST",
        )
    return given.applied_to(specs[0].options)


def _tell(outcome: Outcome, wishes: Wishes) -> None:
    """Print what was done: every path if asked for, and one line in the end."""
    for verb, path in outcome.actions:
        typer.echo(f"{verb:<8}{shown(path)}")
    did = "would copy" if wishes.dry_run else "copied"
    parts = [f"{did} {counted(outcome.files, 'file')} ({size_text(outcome.bytes)})"]
    parts += [f"{counted(outcome.deleted, 'path')} deleted"] if outcome.deleted else []
    parts += [f"{counted(outcome.links, 'link')} made"] if outcome.links else []
    parts += [f"{outcome.touched} given another mode or time"] if outcome.touched else []
    parts += [f"{outcome.unchanged} unchanged"] if outcome.unchanged else []
    parts += [f"{outcome.left_out} left out (--no-ignore takes them along)"] if outcome.left_out else []
    typer.echo(", ".join(parts))
    if outcome.passed_over:
        first = ", ".join(map(shown, outcome.passed_over[:3]))
        note(f"passed over {counted(len(outcome.passed_over), 'socket, pipe or device', '')}: {first}")


def _tell_changes(outcome: Outcome, wishes: Wishes) -> None:
    """Print what one round of watching did, if anything."""
    if outcome.failures or outcome.files or outcome.links or outcome.deleted or outcome.folders or outcome.touched:
        _tell(outcome, wishes)
    _note_failed(outcome.failed[:_MOST_SHOWN])


def _note_failed(failed: tuple[tuple[str, str], ...]) -> None:
    for path, reason in failed:
        note(f"remote_kernel: {shown(path)}: {shown(reason)}" if path else f"remote_kernel: {shown(reason)}")


def _raise_failed(outcome: Outcome) -> None:
    _note_failed(outcome.failed[1:_MOST_SHOWN])
    path, reason = outcome.failed[0]
    what = f"{counted(outcome.failures, 'path')} could not be copied: {shown(path)}: {reason}" if path else reason
    raise SyncIncomplete(what, "the others are in place")
