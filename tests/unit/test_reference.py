"""docs/reference.md says what the commands say."""

from __future__ import annotations

from tests.support import reference


def test_reference_is_what_the_commands_say() -> None:
    assert reference.PATH.read_text(encoding="utf-8") == reference.text(), "run scripts/reference"
