"""Read a plain `sync` command line without typer, whose import and checks take longer than copying a few files.

Only what is beyond doubt is read here. All else (`--help`, a misspelling, an option that is not in the table) is left
to typer, where each option is declared and explained; a test holds the two side by side.
"""

from __future__ import annotations

from typing import Any

from remote_kernel.cli.copying import Request, run
from remote_kernel.cli.telling import ended
from remote_kernel.endpoint import parse_jumps
from remote_kernel.options import LaunchOptions, check_config_file, check_transport

# What each option is called in Request or below, and what it says; those without a saying take a value.
FLAGS = {
    "--no-ignore": ("no_ignore", True),
    "--delete": ("delete", True),
    "-n": ("dry_run", True),
    "--dry-run": ("dry_run", True),
    "--checksum": ("checksum", True),
    "--watch": ("watch", True),
    "--verbose": ("verbose", True),
    "--sftp": ("sftp", True),
}
VALUES = {"--transport": "transport", "--ssh-config": "ssh_config"}
LISTS = {"--exclude": "exclude", "-J": "jump", "--jump": "jump"}


def sync(arguments: list[str]) -> int | None:
    """Run `sync` with these arguments, its name left out, and give the exit status; None if typer is to read them."""
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

    return ended("remote_kernel", lambda: run(Request(**found), change if way else None))


def read(arguments: list[str]) -> dict[str, Any] | None:
    """Give what was said, by name; None where there is any doubt."""
    words: list[str] = []
    found: dict[str, Any] = {"words": words}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        if word in FLAGS:
            name, value = FLAGS[word]
            found[name] = value
            continue
        option, equals, text = word.partition("=")
        if equals and not option.startswith("--"):
            return None
        if not equals:
            if not waiting or waiting[0].startswith("-"):
                return None
            text = waiting.pop(0)
        if option in VALUES:
            found[VALUES[option]] = text
        elif option in LISTS:
            found.setdefault(LISTS[option], []).append(text)
        else:
            return None
    return found if words else None
