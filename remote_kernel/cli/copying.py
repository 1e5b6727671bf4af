"""What `remote_kernel sync` does, once its command line is read: copy, tell how far it is and what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from remote_kernel.cli.progress import counted, reporter, shown, size_text
from remote_kernel.cli.telling import note
from remote_kernel.errors import SyncIncomplete, UsageError
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.outcome import Manner, Outcome
from remote_kernel.sync.place import parse_places
from remote_kernel.sync.retry import persistently
from remote_kernel.sync.transfer import sync as copy
from remote_kernel.sync.wishes import Wishes

_MOST_SHOWN = 10


class Request(NamedTuple):
    """The words and options of one command line, as they were given; options to get there are not among them."""

    words: list[str]
    exclude: list[str] | None = None
    no_ignore: bool = False
    delete: bool = False
    dry_run: bool = False
    checksum: bool = False
    watch: bool = False
    verbose: bool = False
    sftp: bool = False

    @property
    def name(self) -> str | None:
        """Give the kernelspec or host that was named, if one was."""
        return self.words[0] if len(self.words) == 3 else None


def run(asked: Request, change: Callable[[LaunchOptions], LaunchOptions] | None) -> None:
    """Do what is asked for; `change` puts in what was given of the way there, and is None where nothing was."""
    if len(asked.words) not in (2, 3):
        raise UsageError("give what to copy, and where to", "write for example: sync . remote:work")
    source, target = parse_places(asked.words[-2], asked.words[-1])
    if asked.watch and (source.is_remote or asked.dry_run):
        raise UsageError("--watch copies from here, and not as a dry run", "leave it out")
    options = _options(asked.name, change)
    names = asked.dry_run or asked.verbose
    wishes = Wishes(delete=asked.delete, dry_run=asked.dry_run, checksum=asked.checksum, names=names)
    manner = Manner(wishes, tuple(asked.exclude or ()), not asked.no_ignore, asked.sftp)
    with perhaps_a_slug(asked.name or ""), reporter(f"{source} to {target}") as report:
        if asked.watch:
            from remote_kernel.sync.watching import watch as watch_folder  # few need it, and ssh is not started yet

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


def _options(name: str | None, change: Callable[[LaunchOptions], LaunchOptions] | None) -> LaunchOptions:
    """Give the way there, and the workdir that relative paths start from. Raises UsageError."""
    if name is not None:
        options = find_target(name).options
        return change(options) if change else options
    specs = [spec for spec in list_kernelspecs() if spec.options and not spec.options.resume]
    if len(specs) != 1 or specs[0].options is None:
        names = ", ".join(spec.slug for spec in specs)
        what = f"several: {names}" if specs else "no kernelspec"
        raise UsageError(
            f"which host is meant? There is {what}" if not specs else f"which host is meant? There are {what}",
            "give a kernelspec or a host before SRC and DST",
        )
    return change(specs[0].options) if change else specs[0].options


def _tell(outcome: Outcome, wishes: Wishes) -> None:
    """Print what was done: every path if asked for, and one line in the end."""
    for verb, path in outcome.actions:
        print(f"{verb:<8}{shown(path)}")
    did = "would copy" if wishes.dry_run else "copied"
    parts = [f"{did} {counted(outcome.files, 'file')} ({size_text(outcome.bytes)})"]
    parts += [f"{counted(outcome.deleted, 'path')} deleted"] if outcome.deleted else []
    parts += [f"{counted(outcome.links, 'link')} made"] if outcome.links else []
    parts += [f"{outcome.touched} given another mode or time"] if outcome.touched else []
    parts += [f"{outcome.unchanged} unchanged"] if outcome.unchanged else []
    parts += [f"{outcome.left_out} left out (--no-ignore takes them along)"] if outcome.left_out else []
    print(", ".join(parts))
    if outcome.passed_over:
        first = ", ".join(map(shown, outcome.passed_over[:3]))
        note(f"skipped {counted(len(outcome.passed_over), 'socket, pipe or device', '')}: {first}")


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
