"""Read README.md and the pages of docs/: the commands that they show, the options and links that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
EXIT_STATUSES = ROOT / "docs" / "exit-statuses.md"
KERNELSPECS = ROOT / "docs" / "kernelspecs.md"
REFERENCE = ROOT / "docs" / "reference.md"
PAGES = (README, *sorted(path for path in (ROOT / "docs").glob("*.md") if path != REFERENCE))
"""Those that somebody has written, the README first."""


class Shown(NamedTuple):
    """A command and where it stands."""

    page: Path
    line: int
    command: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}: {self.command}"


def shown_commands(page: Path) -> list[Shown]:
    """Give the commands of `console` blocks, behind their prompts, and those of `bash` blocks, a heredoc as one."""
    found = []
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(console|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        first = text.count("\n", 0, block.start()) + 2
        if "<<" in block[2]:
            found.append(Shown(page, first, block[2]))
            continue
        for number, line in enumerate(block[2].splitlines()):
            if block[1] == "bash" and line.strip():
                found.append(Shown(page, first + number, line))
            elif line.startswith("$ "):
                found.append(Shown(page, first + number, line.removeprefix("$ ")))
    return found


def links(page: Path) -> list[str]:
    """Give what a page's links and pictures lead to, but for those to other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in found if not target.startswith("https://")]


def anchors(page: Path) -> set[str]:
    """Give the names by which a link can lead to a heading, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_options(page: Path) -> set[str]:
    """Give the long options that a page names, in its text as in its commands."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
