"""Print a table: fitted to a terminal, or plain, one row a line, for other programs.

Texts are wrapped between words. On a terminal too narrow for a column's longest word, a path for example, each row is a
block of lines: a path in pieces can be neither read nor copied.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from itertools import zip_longest

import typer
from rich.cells import cell_len

from remote_kernel.cli.edge import say
from remote_kernel.terminal_safe import terminal_safe

_GAP = 2


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with these column titles; the first column is never wrapped. A text makes no row but its own."""
    rows = [[terminal_safe(text).replace("\n", "?").replace("\t", " ") for text in row] for row in rows]
    widths = [max(cell_len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    if not sys.stdout.isatty():
        _print_plain(columns, rows, widths)
    elif sum(words := _longest_words(columns, rows)) + _GAP * (len(words) - 1) <= shutil.get_terminal_size().columns:
        _print_wrapped(columns, rows, widths, words)
    else:
        _print_blocks(columns, rows)
    sys.stdout.flush()  # what is noted of it on stderr comes behind it


def _longest_words(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return what each column needs at least; the first is not wrapped."""
    every = [columns, *rows]
    rest = [max(cell_len(word) for row in every for word in (row[at].split() or [""])) for at in range(1, len(columns))]
    return [max(cell_len(row[0]) for row in every), *rest]


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    indent = max(map(len, columns)) + _GAP
    for number, row in enumerate(rows):
        if number:
            typer.echo()
        typer.echo(typer.style(f"{columns[0]:<{indent}}{terminal_safe(row[0])}", bold=True))
        for title, text in zip(columns[1:], row[1:], strict=True):
            say(f"{title:<{indent}}{text}")


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for row in [columns, *rows]:
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        say("  ".join(cells).rstrip())


def _print_wrapped(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], least: Sequence[int]
) -> None:
    """Print the rows, texts wrapped between words where the columns would be too wide for the terminal."""
    widths = list(widths)
    while sum(widths) + _GAP * (len(widths) - 1) > shutil.get_terminal_size().columns:
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
        widths[widest] -= 1
    for number, row in enumerate([columns, *rows]):
        for line in zip_longest(*map(_wrapped, row, widths), fillvalue=""):
            cells = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
            text = "  ".join(cells).rstrip()
            typer.echo(text if number else typer.style(text, bold=True))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and cell_len(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
