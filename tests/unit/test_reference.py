"""docs/reference.md says what the commands say, and the other pages show commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from remote_kernel import errors
from remote_kernel.cli import manager, rkernel
from tests.support import reference

DOCS = reference.PATH.parent
PAGES = sorted(path for path in DOCS.glob("*.md") if path != reference.PATH)


def test_reference_is_what_the_commands_say() -> None:
    assert reference.PATH.read_text(encoding="utf-8") == reference.text(), "run scripts/reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_taken(page: Path) -> None:
    commands = typer.main.get_command(manager.app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^\$ ((?:remote_kernel|rkernel) .+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for line in lines:
        program, name, *words = shlex.split(line, comments=True)
        if program == "remote_kernel":
            with commands[name].make_context(name, words):
                pass
        else:
            command = rkernel.find_command(name)
            assert command
            rkernel.make_parser(name, command).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_errors_of_a_page_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [
        target
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        if not target.startswith("https://") and not (DOCS / target).exists()
    ]
    assert not missing
    for name in re.findall(r"`([A-Z][A-Za-z]+)` \(\d+\)", text):
        assert issubclass(getattr(errors, name), errors.RemoteKernelError)
    for name, status in re.findall(r"`([A-Z][A-Za-z]+)` \((\d+)\)", text):
        assert getattr(errors, name).exit_status == int(status)
