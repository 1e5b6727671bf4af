"""README.md and docs/ say what the code says: options, exit statuses, variables, names, links."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from remote_kernel import errors
from remote_kernel.cli import manager
from remote_kernel.cli.rkernel import command as command_line
from remote_kernel.errors import RemoteKernelError
from remote_kernel.session.events import VERDICTS
from tests.support.pages import (
    EXIT_STATUSES,
    KERNELSPECS,
    PAGES,
    README,
    REFERENCE,
    ROOT,
    anchors,
    links,
    named_options,
    shown_commands,
)
from tests.support.pictures import LARGEST_BYTES

AGENTS = ROOT / "docs" / "agents.md"
COMMANDS: dict[str, Any] = typer.main.get_command(manager.build()).commands  # type: ignore[attr-defined]
KINDS = {
    kind.__name__: kind.exit_status
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RemoteKernelError)
}
OTHERS_OPTIONS = {
    "--execute": "jupyter nbconvert",
    "--runtime-dir": "jupyter",
}


def of_pages(pages: tuple[Path, ...] = PAGES) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


def every_option() -> set[str]:
    """Give the long options of every command, and those that the programs take without one."""
    group: Any = typer.main.get_command(manager.build())
    parameters = [parameter for command in (group, *COMMANDS.values()) for parameter in command.params]
    found = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    for name in command_line.COMMANDS:
        command = command_line.find_command(name)
        assert command
        found |= set(command_line.make_parser(name, command)._option_string_actions)
    return {name for name in found if name.startswith("--")} | {"--help", "--version"}


@of_pages()
def test_options_are_those_of_the_commands(page: Path) -> None:
    assert named_options(page) - every_option() - set(OTHERS_OPTIONS) == set()


@of_pages()
def test_commands_are_taken(page: Path) -> None:
    for shown in shown_commands(page):
        words = shlex.split(shown.command.partition("<<")[0].partition("||")[0], comments=True)
        if words[0] == "remote_kernel" and not words[1].startswith("-"):
            with COMMANDS[words[1]].make_context(words[1], words[2:]):
                pass
        elif words[0] == "rkernel":
            command = command_line.find_command(words[1])
            assert command, shown
            command_line.parse(words[1], command, words[2:])


@of_pages()
def test_names_of_commands_in_the_text_are_theirs(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(remote_kernel|rkernel) ([a-z]+)", text))
    wrong = {
        name for name in named if name[1] not in (COMMANDS if name[0] == "remote_kernel" else command_line.COMMANDS)
    }
    assert not wrong


@of_pages((*PAGES, REFERENCE))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_every_page_is_in_the_readme() -> None:
    listed = {README.parent / link for link in links(README)}
    assert {*PAGES[1:], REFERENCE} - listed == set()


def test_every_picture_is_shown_and_small() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.resolve() in shown
        assert picture.stat().st_size < LARGEST_BYTES, picture


def test_every_command_is_in_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    unnamed = [name for name in COMMANDS if f"remote_kernel {name}" not in text and f"`{name}" not in text]
    unnamed += [name for name in command_line.COMMANDS if f"rkernel {name}" not in text]
    assert set(unnamed) <= {"inspect", "complete", "interrupt", "restart", "ls"}  # in the reference


def test_exit_statuses_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", EXIT_STATUSES.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: int(status) for status, name, _ in rows} == KINDS
    assert [int(status) for status, _, _ in rows] == sorted(KINDS.values())


def test_exit_statuses_of_cells_are_those_of_the_verdicts() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|$", AGENTS.read_text(encoding="utf-8"), re.MULTILINE)
    usage = (errors.UsageError.exit_status, errors.NoSuchKernelspec.exit_status)
    assert [int(status) for status, _ in rows] == sorted([*VERDICTS.values(), *usage])
    assert all(f" {status}  " in command_line.HELP for status, _ in rows)


@of_pages()
def test_errors_are_named_with_their_statuses(page: Path) -> None:
    for name, status in re.findall(r"`([A-Z][A-Za-z]+)` \((\d+)\)", page.read_text(encoding="utf-8")):
        assert KINDS[name] == int(status)


@of_pages((ROOT / "docs" / "quick-start.md", ROOT / "docs" / "troubleshooting.md"))
def test_quoted_messages_are_those_of_the_code(page: Path) -> None:
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "remote_kernel").rglob("*.py")))
    rows = re.findall(r"^\| (`[^|]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([a-z][^`]+)`", row)]
    assert len(quoted) >= 6
    for text in quoted:
        pattern = r"\{[^}]*\}".join(map(re.escape, text.split("gpu1")))
        assert re.search(pattern, sources), text


def test_variables_are_those_of_the_code() -> None:
    shown = set(re.findall(r"^\| `([A-Z_]+)` \|", KERNELSPECS.read_text(encoding="utf-8"), re.MULTILINE))
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "remote_kernel").rglob("*.py")))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"((?:REMOTE|LOCAL)_[A-Z_]+)\"", sources))
    assert shown == read - {"REMOTE_KERNEL_DEBUG"}


def test_scripts_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"\bscripts/\w+", page.read_text(encoding="utf-8")):
            assert os.access(ROOT / name, os.X_OK), name


def test_reading_list_has_twenty_files_that_exist() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\d+\. `([\w/]+\.py)`: ", page, re.MULTILINE)
    assert len(listed) == 20
    named = {*listed, *re.findall(r"`((?:cli|session|transport|launcher|kernelspec|remote|doctor)/[\w/]+\.py)`", page)}
    assert [name for name in sorted(named) if not (ROOT / "remote_kernel" / name).exists()] == []
