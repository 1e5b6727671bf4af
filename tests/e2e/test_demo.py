"""`remote_kernel demo` as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from remote_kernel.demo.folder import MARK
from remote_kernel.demo.notebook import DemoNotebook
from remote_kernel.options import find_program

SECONDS = 60


def command(*words: str) -> list[str]:
    """Give the command line of a run."""
    program = find_program()
    assert program
    return [program, "demo", *words]


def folder_of(text: str) -> Path:
    """Give the temporary folder that the output names."""
    found = re.search(r"(\S*/rk-demo-\w+)", text)
    assert found, text
    return Path(found[1])


def assert_nothing_left(folder: Path) -> None:
    """Assert that the folder is gone, and every process that the run's SSH server has started."""
    assert not folder.exists()
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                left.append(process.cmdline())
        except (psutil.Error, OSError):
            continue
    assert not left


def test_demo_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "demo.ipynb"
    begun = time.monotonic()
    done = subprocess.run(command("--log", str(log)), capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < SECONDS
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    for text in (
        "with keys made for this run",
        "SSH_CONNECTION: 127.0.0.1",
        "│ 385",
        "epoch 8/8",
        "image/png",
        "ZeroDivisionError: division by zero",
        "KeyboardInterrupt",
        "all 16 lines came",
        "kernel_info round trip",
        "the SSH server: ended",
    ):
        assert text in done.stdout
    assert_nothing_left(folder_of(done.stdout))
    assert list(tmp_path.iterdir()) == [log]


def test_demo_needs_no_ssh_program(tmp_path: Path) -> None:
    log = tmp_path / "demo.ipynb"
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "empty")}
    done = subprocess.run(
        command("--log", str(log)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "logging in with the SSH client in Python (paramiko) took" in done.stdout
    assert "the SSH client in Python (paramiko) is killed here" in done.stdout
    assert "all 16 lines came" in done.stdout
    assert_nothing_left(folder_of(done.stdout))


def test_demo_notebook_is_valid_and_complete(tmp_path: Path) -> None:
    log = tmp_path / "demo.ipynb"
    DemoNotebook("an earlier one").write(log)  # as an earlier run has left one, which may be replaced
    done = subprocess.run(
        command("--log", str(log)), capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(log, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert [output.ename for output in outputs if output.output_type == "error"] == [
        "ZeroDivisionError",
        "KeyboardInterrupt",
    ]
    (progress,) = [output.text for output in outputs if "epoch 1/8" in output.get("text", "")]
    assert progress.count("\n") == 8


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("kernel.json starts", signal.SIGTERM),
        ("epoch 2/8", signal.SIGINT),
        ("ssh is killed here", signal.SIGINT),
        pytest.param("kernel.json starts", signal.SIGINT, marks=pytest.mark.nightly),
        pytest.param("epoch 2/8", signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param("ssh is killed here", signal.SIGTERM, marks=pytest.mark.nightly),
    ],
)
def test_interrupted_demo_leaves_nothing(moment: str, number: int, tmp_path: Path) -> None:
    words = command("--log", str(tmp_path / "demo.ipynb"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        said = ""
        while moment not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        if moment == "kernel.json starts":
            said += process.stdout.readline()
        process.send_signal(number)
        rest, complaint = process.communicate(timeout=30)
    assert process.returncode == 130, complaint
    assert complaint == "remote_kernel: interrupted\n"
    assert_nothing_left(folder_of(said + rest))
    assert not list(tmp_path.iterdir())


def test_demo_spares_a_file_that_is_not_its_own(tmp_path: Path) -> None:
    log = tmp_path / "mine.ipynb"
    log.write_text("{}")
    done = subprocess.run(command("--log", str(log)), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "is not from an earlier demo" in done.stderr
    assert log.read_text() == "{}"


def test_demo_names_a_missing_ssh_client(tmp_path: Path) -> None:
    environment = {**os.environ, "REMOTE_KERNEL_SSH": "/nowhere/ssh"}
    done = subprocess.run(
        command("--log", str(tmp_path / "x.ipynb")), capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert done.returncode == 21
    assert "install the OpenSSH client" in done.stderr
