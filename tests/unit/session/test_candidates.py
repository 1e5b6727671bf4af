"""The kernels that are open on this machine, and which of them is meant."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_kernel.errors import UsageError
from remote_kernel.jupyter.connection_file import CHANNELS
from remote_kernel.session.candidates import find_candidate, list_candidates


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a runtime folder with two open kernels, a dead one, and files that are something else."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        _write(
            tmp_path / "kernel-1a.json", port, kernel_name="remote_cuda", jupyter_session="/home/me/work/train.ipynb"
        )
        _write(tmp_path / "kernel-2b.json", port, kernel_name="ir")
        dead = socket.create_server(("127.0.0.1", 0))
        _write(tmp_path / "kernel-3c.json", dead.getsockname()[1], kernel_name="python3")
        dead.close()
        (tmp_path / "kernel-4d.json").write_text("{")
        (tmp_path / "jpserver-1.json").write_text("{}")
        os.utime(tmp_path / "kernel-2b.json", (1.0, 1.0))
        yield tmp_path


def _write(path: Path, port: int, **values: str) -> None:
    ports = {f"{channel}_port": port for channel in CHANNELS}
    path.write_text(json.dumps({"key": "k", "ip": "127.0.0.1", "transport": "tcp", **ports, **values}))


def test_open_kernels_are_listed_the_newest_first(runtime: Path) -> None:
    found = [(Path(one.path).name, one.kernel_name, one.notebook) for one in list_candidates()]
    assert found == [
        ("kernel-1a.json", "remote_cuda", "/home/me/work/train.ipynb"),
        ("kernel-2b.json", "ir", ""),
    ]


@pytest.mark.parametrize("text", ["1a", "kernel-1a.json", "train.ipynb", "./train.ipynb", "work/train.ipynb", "train"])
def test_kernel_is_found_by_its_file_or_its_notebook(runtime: Path, text: str) -> None:
    (runtime / "train.ipynb").write_text("a notebook of that name here is no connection file")
    assert find_candidate(text) == str(runtime / "kernel-1a.json")


def test_several_are_listed_with_their_notebooks(runtime: Path) -> None:
    with pytest.raises(UsageError) as raised:
        find_candidate("")
    lines = str(raised.value).splitlines()
    assert lines[0] == "several kernels are open; give a part of one's file name or notebook:"
    assert lines[1].startswith("  kernel-1a.json  remote_cuda  ")
    assert lines[1].endswith("  /home/me/work/train.ipynb")
    assert lines[2].startswith("  kernel-2b.json  ir  ")


@pytest.mark.parametrize(
    ("text", "why"), [("nothing", "no open kernel has 'nothing'"), ("/no/file.json", "there is no file /no/file.json")]
)
def test_none_is_explained(runtime: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_candidate(text)
