"""Write docs/reference.md from the commands' own help: `python -m tests.support.reference`. A test compares the two."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from remote_kernel.cli import manager
from remote_kernel.cli.rkernel import command as command_line

PATH = Path(__file__).parents[2] / "docs" / "reference.md"
_OF_TYPER = {"--install-completion", "--show-completion", "--help"}


def text() -> str:
    """Give the whole page."""
    parts = [
        "# Command reference",
        "This page is made from the code by `scripts/reference`. `--help` shows the same. The exit statuses are "
        "[on a page of their own](exit-statuses.md).",
        *_of_manager(),
        *_of_rkernel(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _of_manager() -> Iterator[str]:
    group: Any = typer.main.get_command(manager.build())
    for name, command in group.commands.items():
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        options = [p for p in command.params if p.opts[0].startswith("-") and not _OF_TYPER & set(p.opts)]
        yield f"## remote_kernel {name}"
        words = [manager.shown(argument) for argument in arguments]
        yield f"`remote_kernel {' '.join([name, *(['[OPTIONS]'] if options else []), *words])}`"
        yield inspect.cleandoc(command.help)
        rows = [(f"`{argument.metavar}`", argument.help) for argument in arguments]
        rows += [(_flags([*o.opts, *o.secondary_opts], "" if o.is_flag else o.metavar), o.help) for o in options]
        yield _table(rows)
        yield _examples(command.epilog)


def _of_rkernel() -> Iterator[str]:
    for name in command_line.COMMANDS:
        command = command_line.find_command(name)
        assert command
        parser = command_line.make_parser(name, command)
        yield f"## rkernel {name}"
        yield inspect.cleandoc(parser.description or "")
        rows = []
        for action in parser._actions:
            if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
                continue
            value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
            shown = value if isinstance(value, str) else " ".join(value)
            rows.append((_flags(action.option_strings, shown) if action.option_strings else f"`{shown}`", action.help))
        yield _table(rows)
        yield _examples(parser.epilog or "")


def _flags(flags: list[str], value: str | None) -> str:
    return ", ".join(f"`{flag}`" for flag in flags) + (f" `{value}`" if value else "")


def _table(rows: list[tuple[str, str | None]]) -> str:
    cells = [(left, " ".join((right or "").split())) for left, right in rows]
    lines = [f"| {left} | {right} |".replace("||", "\\|\\|") for left, right in cells]
    return "\n".join(["| | |", "|---|---|", *(_barred(line) for line in lines)])


def _barred(line: str) -> str:
    """Keep a bar inside a cell from ending it."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in line[2:-2].split(" | ")) + " |"


def _examples(epilog: str) -> str:
    return "```text\n" + epilog.replace("\b\n", "").strip() + "\n```" if epilog.strip() else ""


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
