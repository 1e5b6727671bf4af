"""`remote_kernel demo`: show a remote kernel at work with no server at hand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from remote_kernel.signals import ended_in_order

EXAMPLES = """\b
Examples:
  remote_kernel demo
  remote_kernel demo --log /tmp/demo.ipynb
"""

_WIDEST = 120


def demo(
    log: Annotated[
        Path,
        typer.Option(
            "--log", metavar="FILE", help="Where the notebook with code and outputs goes, e.g. /tmp/demo.ipynb."
        ),
    ] = Path("remote_kernel-demo.ipynb"),
) -> None:
    """Show a remote kernel at work, with no server at hand.

    Starts an SSH server on this machine's loopback with keys of its own and a kernel behind it the way JupyterLab and
    VS Code do. Runs cells, plots, interrupts a cell, cuts the connection under another and loses nothing, measures,
    writes a notebook, and removes what it made. Takes about ten seconds.
    """
    from remote_kernel.demo import tour

    with ended_in_order():
        tour.run(TerminalNarrator(), log.absolute())
    typer.echo('\nNow with a host of yours: remote_kernel add HOST --name "Remote CUDA"')
    typer.echo("Then from a terminal, a script or an agent: rkernel exec -k remote_cuda --code '6 * 7'")


class TerminalNarrator:
    """Print each thing as it happens: coloured on a terminal, plain elsewhere; lines of code and output are cut."""

    def __init__(self) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else _WIDEST
        self._console = Console(width=width, height=25, force_terminal=sys.stdout.isatty(), highlight=False)
        self._bar, self._tick, self._mark = "│✓●" if self._console.encoding.startswith("utf") else "|**"

    def step(self, title: str) -> None:
        """Print a heading."""
        self._console.print(Text(f"\n{self._mark} {title}", "bold cyan"))

    def fact(self, text: str) -> None:
        """Print a paragraph."""
        self._hang("", text)

    def cell(self, code: str) -> None:
        """Print the code."""
        for number, line in enumerate(code.splitlines()):
            self._line(("... " if number else ">>> ", "green"), (line, "bold"))

    def output(self, text: str, seconds: float) -> None:
        """Print output behind the time of its arrival."""
        for line in text.splitlines():
            self._line((f"{seconds:5.2f} s {self._bar} ", "dim"), line)

    def error(self, name: str, text: str) -> None:
        """Print a traceback's last line."""
        self._line((f"{name}: {text}" if text else name, "red"))

    def figures(self, rows: list[tuple[str, str]]) -> None:
        """Print values in a column."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self._line(f"{name:<{width}}", (f"{value:>8}", "bold"))

    def done(self, text: str) -> None:
        """Print a ticked line."""
        self._hang(f"{self._tick} ", text)

    def _line(self, *parts: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble("  ", *parts), no_wrap=True, overflow="ellipsis")

    def _hang(self, sign: str, text: str) -> None:
        """Print a paragraph, wrapped between words, of which every line stands to the right of the sign."""
        for number, line in enumerate(Text(text).wrap(self._console, self._console.width - 2 - len(sign))):
            self._console.print(Text.assemble("  ", (" " * len(sign) if number else sign, "green"), line))
