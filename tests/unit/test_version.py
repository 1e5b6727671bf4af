"""The version is told in two places; they agree."""

from __future__ import annotations

import re
from pathlib import Path

import remote_kernel

_CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_changelog_starts_with_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", _CHANGELOG.read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert released[0] == remote_kernel.__version__
