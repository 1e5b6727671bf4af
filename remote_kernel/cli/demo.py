"""`remote_kernel demo`: show a remote kernel at work with no server at hand."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from remote_kernel.signals import ended_in_order

EXAMPLES = """\b
Examples:
  remote_kernel demo
  remote_kernel demo --log /tmp/demo.ipynb
"""

_BAR, _TICK, _MARK = "│", "✓", "●"
_IN_ASCII = str.maketrans({_BAR: "|", _TICK: "*", _MARK: "*"})


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
    """Print each thing as it happens: coloured on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        self._columns = min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 120

    def step(self, title: str) -> None:
        """Print a heading."""
        self._print("")
        self._print(self._paint(f"{_MARK} {title}", fg="cyan", bold=True))

    def fact(self, text: str) -> None:
        """Print a paragraph, wrapped between words."""
        for line in _wrap(text, self._columns - 2):
            self._print(f"  {line}")

    def cell(self, code: str) -> None:
        """Print the code, cut at the terminal's edge."""
        lines = code.splitlines()
        for number, line in enumerate(lines):
            prompt = self._paint(">>> " if number == 0 else "... ", fg="green")
            self._print(f"  {prompt}{self._paint(self._cut(line, 6), bold=True)}")

    def output(self, text: str, seconds: float) -> None:
        """Print output behind the time of its arrival."""
        for line in text.splitlines():
            stamp = self._paint(f"{seconds:5.2f} s", dim=True)
            self._print(f"  {stamp} {self._paint(_BAR, dim=True)} {self._cut(line, 12)}")

    def error(self, name: str, text: str) -> None:
        """Print a traceback's last line."""
        self._print(f"  {self._paint(f'{name}: {text}' if text else name, fg='red')}")

    def figures(self, rows: list[tuple[str, str]]) -> None:
        """Print values in a column."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self._print(f"  {name:<{width}}{self._paint(f'{value:>8}', bold=True)}")

    def done(self, text: str) -> None:
        """Print a ticked line."""
        for number, line in enumerate(_wrap(text, self._columns - 4)):
            self._print(f"  {' ' if number else self._paint(_TICK, fg='green')} {line}")

    def _paint(self, text: str, **style: object) -> str:
        return typer.style(text, **style) if self._colour else text  # type: ignore[arg-type]

    def _cut(self, line: str, margin: int) -> str:
        room = max(20, self._columns - margin)
        return line if len(line) <= room else line[: room - 3] + "..."

    def _print(self, line: str) -> None:
        typer.echo(line if self._unicode else line.translate(_IN_ASCII).encode("ascii", "replace").decode())
        sys.stdout.flush()


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False, break_long_words=False, subsequent_indent="  ")
