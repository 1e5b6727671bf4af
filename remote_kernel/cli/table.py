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
from remote_kernel.terminal_safe import terminal_safe

_GAP = 2


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with these column titles; the first column is never wrapped. A text makes no row but its own."""
    rows = [[terminal_safe(text).replace("\n", "?").replace("\t", " ") for text in row] for row in rows]
    whole = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    words = [max(map(cell_len, " ".join(column).split(" "))) for column in zip(columns, *rows, strict=True)]
    least = [whole[0], *words[1:]]
    room = shutil.get_terminal_size().columns - _GAP * (len(columns) - 1)
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            cells = [text + " " * (width - cell_len(text)) for text, width in zip(row, whole, strict=True)]
            say((" " * _GAP).join(cells).rstrip())
    elif sum(least) <= room:
        _print_fitted(columns, rows, _narrowed(whole, least, room))
    else:
        _print_blocks(columns, rows)
    sys.stdout.flush()  # what is noted of it on stderr comes behind it


def _narrowed(widths: list[int], least: list[int], room: int) -> list[int]:
    """Return widths that fit into the room; rich would go below what a column needs at least."""
    widths = list(widths)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
        widths[widest] -= 1
    return widths


def _print_fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    """Print the rows, texts wrapped between words where a column is too narrow for them."""
    from rich.console import Console  # only here: other programs need not wait for the import
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for title, width in zip(columns, widths, strict=True):
        table.add_column(Text(title), width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    # Of rich's own guesses only the colours: its width of a dumb terminal is 80, and CI variables make a pipe one.
    Console(width=shutil.get_terminal_size().columns, height=len(rows), force_terminal=True).print(table)


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    indent = max(map(len, columns)) + _GAP
    for number, row in enumerate(rows):
        if number:
            typer.echo()
        typer.echo(typer.style(f"{columns[0]:<{indent}}{row[0]}", bold=True))
        for title, text in zip(columns[1:], row[1:], strict=True):
            say(f"{title:<{indent}}{text}")
