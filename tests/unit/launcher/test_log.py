"""The launcher's log file, of which others remove the oldest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from remote_kernel.launcher.log import LOGS_KEPT, Log


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_log_that_many_later_launchers_have_removed_is_closed_all_the_same(folder: Path) -> None:
    first, later = Log(), [Log() for _ in range(LOGS_KEPT + 1)]
    first.open("first")
    os.utime(first.path, (time.time() - 60, time.time() - 60))
    for number, log in enumerate(later):
        log.open(str(number))
    assert not Path(first.path).exists()
    for log in (first, *later):
        log.keep = False
        log.close()
    assert not list(folder.iterdir())


def test_log_is_opened_while_another_launcher_removes_old_ones(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(LOGS_KEPT + 1):
        (folder / f"remote_kernel-{number}.log").symlink_to(folder / "gone")  # seen in the folder, and no more there
    log = Log()
    log.open("mine")
    log.close()
    assert Path(log.path).exists()
    assert capfd.readouterr().err == ""
