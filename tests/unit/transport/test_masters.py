"""Which file is the socket of a shared connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_kernel.transport import masters


@pytest.mark.parametrize("words", [[], ["-oControlPath=none"], ["-oControlPath="]])
def test_a_file_of_the_notebooks_folder_is_no_shared_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A command without one of ours names none; what is called so here must not be ended, which removes it."""
    monkeypatch.chdir(tmp_path)
    Path("none").write_text("of the user's")
    masters.end_master(masters.master_of(["ssh", *words, "gpu1", "true"]))
    assert Path("none").read_text() == "of the user's"
