"""Print a table: fitted to a terminal by rich, or plain, one row a line, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from remote_kernel.cli.edge import say
from remote_kernel.harmless import harmless


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with these column titles; the first column is never wrapped. A text makes no row but its own."""
    rows = [[harmless(text).replace("\n", "?").replace("\t", " ") for text in row] for row in rows]
    if sys.stdout.isatty():
        _print_fitted(columns, rows)
    else:
        _print_plain(columns, rows)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [columns, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(columns))]
    for row in table:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _print_fitted(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    Console(highlight=False).print(table)
