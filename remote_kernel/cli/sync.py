"""`remote_kernel sync`, without typer, whose import and checks take longer than copying a few files.

Each option is declared here, once. A plain command line is read here too; all else (`--help`, a misspelling, an option
that is not in the table) is left to typer, which `files` makes of the same table.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from remote_kernel.cli.edge import ended, note
from remote_kernel.cli.progress import counted, reporter, shown, size_text
from remote_kernel.endpoint import parse_jumps
from remote_kernel.errors import SyncIncomplete, UsageError
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug
from remote_kernel.options import LaunchOptions, check_config_file, check_transport
from remote_kernel.sync.engine import retry, sync, watch
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.transfer import Outcome, Transfer, parse_paths

_MOST_SHOWN = 10


class Declared(NamedTuple):
    """One option: its field in SyncOptions, its spellings, what `--help` says, and a `metavar` if it takes values."""

    field: str
    flags: tuple[str, ...]
    help: str
    metavar: str = ""


DECLARED = (
    Declared(
        "exclude",
        ("--exclude",),
        "Skip what this pattern matches, written as in a .gitignore, e.g. '*.ckpt'; may be repeated. With ! in front "
        "it copies files that a .gitignore skips.",
        "PATTERN",
    ),
    Declared("no_ignore", ("--no-ignore",), "Also copy ignored files (.gitignore) and .git folders."),
    Declared(
        "delete",
        ("--delete",),
        "Delete files at the destination that the source does not have; skipped files stay.",
    ),
    Declared("dry_run", ("-n", "--dry-run"), "Change nothing, only list what would be done."),
    Declared("checksum", ("--checksum",), "Compare contents where sizes are equal, not only times."),
    Declared("watch", ("--watch",), "Keep running, and copy changes made here: looks once a second, until Ctrl-C."),
    Declared(
        "sftp",
        ("--sftp",),
        "Copy over SFTP. This happens by itself if the host has no Python or allows only SFTP.",
    ),
    Declared("verbose", ("--verbose",), "Name every path that is copied or deleted."),
)
# The options of the way there, which `settings` declares for all commands: their fields, and whether they repeat.
_WAY_THERE = {"--transport": ("transport", False), "--ssh-config": ("ssh_config", False)}
_WAY_THERE.update(dict.fromkeys(("-J", "--jump"), ("jump", True)))

_FLAGS = {flag: option.field for option in DECLARED if not option.metavar for flag in option.flags}
_VALUES = {flag: (option.field, True) for option in DECLARED if option.metavar for flag in option.flags} | _WAY_THERE


def main(arguments: list[str]) -> int | None:
    """Run `sync` with these arguments, its name left out, and return the exit status; None if typer is to read them."""
    found = read(arguments)
    if found is None:
        return None
    way = {name: found.pop(name) for name in ("jump", "transport", "ssh_config") if name in found}

    def change(options: LaunchOptions) -> LaunchOptions:
        if "jump" in way:
            options = options._replace(jumps=parse_jumps(",".join(way["jump"])))
        if "transport" in way:
            options = options._replace(transport=check_transport(way["transport"]))
        if "ssh_config" in way:
            options = options._replace(ssh_config=check_config_file(way["ssh_config"]))
        return options

    words = found.pop("words")
    return ended("remote_kernel", lambda: run(words, sync_options(found), change if way else None))


def read(arguments: list[str]) -> dict[str, Any] | None:
    """Return what was said, by name; None where there is any doubt."""
    words: list[str] = []
    found: dict[str, Any] = {"words": words}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        if word in _FLAGS:
            found[_FLAGS[word]] = True
            continue
        option, equals, text = word.partition("=")
        if option not in _VALUES or (equals and not option.startswith("--")):
            return None
        if not equals:
            if not waiting or waiting[0].startswith("-"):
                return None
            text = waiting.pop(0)
        name, is_repeated = _VALUES[option]
        if is_repeated:
            found.setdefault(name, []).append(text)
        else:
            found[name] = text
    return found if words else None


def sync_options(said: dict[str, Any]) -> SyncOptions:
    """Return the options of a command line that was read."""
    return SyncOptions(**{**said, "exclude": tuple(map(os.fsencode, said.get("exclude") or ()))})


def run(words: list[str], options: SyncOptions, change: Callable[[LaunchOptions], LaunchOptions] | None) -> None:
    """Copy what the words name, and print how far it is and what was done.

    `change` puts in what was given of the way there, and is None where nothing was.
    """
    if len(words) not in (2, 3):
        raise UsageError("give what to copy, and where to", "write for example: sync . remote:work")
    source, target = parse_paths(words[-2], words[-1])
    if options.watch and (source.is_remote or options.dry_run):
        raise UsageError("--watch copies from here, and not as a dry run", "leave it out")
    name = words[0] if len(words) == 3 else None
    launch = _find_launch(name, change)
    with perhaps_a_slug(name or ""), reporter(f"{source} to {target}") as report:
        transfer = Transfer(launch, source, target, options, report)
        if options.watch:
            watch(transfer, lambda outcome: _print_changes(outcome, options), report.interrupted)
        outcome = retry(lambda: sync(transfer), report.interrupted)
    _print_outcome(outcome, options)
    if outcome.failures:
        _raise_failed(outcome)


def _find_launch(name: str | None, change: Callable[[LaunchOptions], LaunchOptions] | None) -> LaunchOptions:
    """Return the way there, and the workdir that relative paths start from. Raises UsageError."""
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


def _print_outcome(outcome: Outcome, options: SyncOptions) -> None:
    """Print what was done: every path if asked for, and one line in the end."""
    for verb, path in outcome.actions:
        print(f"{verb:<8}{shown(path)}")
    did = "would copy" if options.dry_run else "copied"
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


def _print_changes(outcome: Outcome, options: SyncOptions) -> None:
    """Print what one round of watching did, if anything."""
    if outcome.failures or outcome.files or outcome.links or outcome.deleted or outcome.folders or outcome.touched:
        _print_outcome(outcome, options)
    _note_failed(outcome.failed[:_MOST_SHOWN])


def _note_failed(failed: tuple[tuple[str, str], ...]) -> None:
    for path, reason in failed:
        note(f"remote_kernel: {shown(path)}: {shown(reason)}" if path else f"remote_kernel: {shown(reason)}")


def _raise_failed(outcome: Outcome) -> None:
    _note_failed(outcome.failed[1:_MOST_SHOWN])
    path, reason = outcome.failed[0]
    what = f"{counted(outcome.failures, 'path')} could not be copied: {shown(path)}: {reason}" if path else reason
    raise SyncIncomplete(what, "the others are in place")
