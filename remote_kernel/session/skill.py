"""The instructions for coding agents: what `rkernel skill` shows and installs.

An installed file ends in a line with a checksum, so that a later install replaces what an earlier one wrote, and
nothing that somebody has written or changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from remote_kernel import __version__
from remote_kernel.errors import UsageError

NAME = "rkernel"

# Where each agent looks for a user's own skills, below the home folder. For Codex: developers.openai.com/codex/skills.
FOLDERS = {"claude": ".claude/skills", "codex": ".agents/skills"}

_SOURCE = Path(__file__).parent.parent / "skill"
_MARK = "<!-- rkernel skill install:"


class Installed(NamedTuple):
    """What install() or uninstall() did: `change` is `installed`, `updated`, `unchanged`, `removed` or `not there:`."""

    path: Path
    change: str


def skill_text() -> str:
    """Return SKILL.md: frontmatter and Markdown."""
    return (_SOURCE / "SKILL.md").read_text(encoding="utf-8")


def stanza_text() -> str:
    """Return the paragraph for a project's AGENTS.md or CLAUDE.md."""
    return (_SOURCE / "AGENTS.md").read_text(encoding="utf-8")


def skill_path(where: str) -> Path:
    """Return the file for the skill: of an agent in FOLDERS, in a folder of skills, or the .md file that is named."""
    if where in FOLDERS:
        return Path.home() / FOLDERS[where] / NAME / "SKILL.md"
    path = Path(where).expanduser()
    if path.suffix == ".md":
        return path
    return path / "SKILL.md" if path.name == NAME else path / NAME / "SKILL.md"


def install(where: str = "claude", *, force: bool = False) -> Installed:
    """Write the skill to where it belongs; the same text again changes nothing.

    Raises UsageError where there is a file that no install has written, or that was changed since, unless `force`; and
    where the file cannot be written.
    """
    path = skill_path(where)
    text = skill_text()
    marked = f"{text}{_mark(text)}"
    try:
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if old == marked:
            return Installed(path, "unchanged")
        if old is not None and not force and not _is_ours(old):
            raise UsageError(f"{path} was not written by rkernel, or was changed since", "--force replaces it")
        _write(Path(os.path.realpath(path)), marked)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "give another path") from error
    return Installed(path, "installed" if old is None else "updated")


def uninstall(where: str = "claude", *, force: bool = False) -> Installed:
    """Remove the skill from where `install` writes it, and its folder if that is empty then.

    Raises UsageError where there is a file that no install has written, or that was changed since, unless `force`.
    """
    path = skill_path(where)
    try:
        if not path.exists():
            return Installed(path, "not there:")
        if not force and not _is_ours(path.read_text(encoding="utf-8", errors="replace")):
            raise UsageError(f"{path} was not written by rkernel, or was changed since", "--force removes it")
        path.unlink()
        if path.parent.name == NAME and not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as error:
        raise UsageError(f"cannot remove {path}: {error.strerror}", "remove it by hand") from error
    return Installed(path, "removed")


def _mark(text: str) -> str:
    import hashlib

    return f"\n{_MARK} {__version__} {hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def _is_ours(old: str) -> bool:
    text, mark, rest = old.rpartition(f"\n{_MARK}")
    digest = rest.split()[1:2]
    return bool(mark) and digest == _mark(text).split()[-2:-1]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
