"""Print a table: fitted to a terminal by rich, or plain, one row a line, for other programs.

Texts are wrapped between words. On a terminal too narrow for a column's longest word, a path for example, each row is a
block of lines: a path in pieces can be neither read nor copied.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import typer
from rich.cells import cell_len

from remote_kernel.cli.edge import say
from remote_kernel.harmless import harmless

_GAP = 2


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with these column titles; the first column is never wrapped. A text makes no row but its own."""
    rows = [[harmless(text).replace("\n", "?").replace("\t", " ") for text in row] for row in rows]
    widths = [max(cell_len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    if not sys.stdout.isatty():
        _print_plain(columns, rows, widths)
    elif sum(words := _longest_words(columns, rows)) + _GAP * len(words) <= shutil.get_terminal_size().columns:
        _print_fitted(columns, rows, words)
    else:
        _print_blocks(columns, rows)
    sys.stdout.flush()  # what is noted of it on stderr comes behind it


def _longest_words(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return what each column needs at least; the first is not wrapped."""
    first = max(cell_len(row[0]) for row in [columns, *rows])
    rest = range(1, len(columns))
    return [
        first,
        *(max(cell_len(word) for row in [columns, *rows] for word in (row[at].split() or [""])) for at in rest),
    ]


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    indent = max(map(len, columns)) + _GAP
    for number, row in enumerate(rows):
        if number:
            typer.echo()
        typer.echo(typer.style(f"{columns[0]:<{indent}}{harmless(row[0])}", bold=True))
        for title, text in zip(columns[1:], row[1:], strict=True):
            say(f"{title:<{indent}}{text}")


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for row in [columns, *rows]:
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        say("  ".join(cells).rstrip())


def _print_fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, least, strict=True):
        table.add_column(column, overflow="fold", no_wrap=column == columns[0], min_width=width)
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    Console(highlight=False).print(table)
