"""What `add --discover` sees of GPUs, from files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_kernel.remote.environments import _gpus


@pytest.fixture(autouse=True)
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a PATH that is this folder alone."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def driver(root: Path, *texts: str) -> None:
    for number, text in enumerate(texts):
        card = root / "proc" / "driver" / "nvidia" / "gpus" / f"0000:0{number}:00.0"
        card.mkdir(parents=True)
        (card / "information").write_bytes(text.encode("latin-1"))


def test_cards_are_named_by_the_driver(tmp_path: Path) -> None:
    driver(tmp_path, "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ: 39\n", "Model: NVIDIA L4\n")
    assert _gpus(str(tmp_path)) == ["NVIDIA A100-SXM4-40GB", "NVIDIA L4"]


def test_garbage_of_the_driver_is_a_card_without_a_name(tmp_path: Path) -> None:
    driver(tmp_path, "\xff\xfe\x00", "")
    assert _gpus(str(tmp_path)) == ["NVIDIA GPU", "NVIDIA GPU"]


def test_nvidia_smi_is_not_run(tmp_path: Path, no_programs: Path) -> None:
    program = no_programs / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\nsleep 60\n")
    program.chmod(0o755)
    assert _gpus(str(tmp_path)) == ["NVIDIA GPU"]
    assert not (tmp_path / "was-run").exists()


def test_card_of_amd(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    assert _gpus(str(tmp_path)) == ["AMD GPU"]


def test_host_without_cards(tmp_path: Path) -> None:
    assert _gpus(str(tmp_path)) == []
