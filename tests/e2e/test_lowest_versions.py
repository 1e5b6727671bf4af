"""The main commands with the lowest versions of Python and of all that pyproject.toml names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.interpreters import lowest_environment
from tests.support.servers import Server

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return what runs one command of the lowest environment, at this test's kernelspecs, and returns its stdout."""
    programs = lowest_environment().parent
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "JUPYTER_DATA_DIR": str(tmp_path / "j")}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["openssh", "paramiko"])
def test_lowest_versions_start_a_kernel_and_run_code(
    run: Run, transport: str, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    way = ["--transport", transport, "--ssh-config", str(ssh_config)]
    run("remote_kernel", "add", "target", "--name", "Low", "--python", str(remote_python), *way)
    assert run("rkernel", "exec", "-k", "low", "--code", "6 * 7").splitlines() == ["42"]
    assert "low" in run("rkernel", "ls")
    run("rkernel", "close", "low")
    assert str(remote_python) in run("remote_kernel", "list")
    assert "✗" not in run("remote_kernel", "doctor", "low")
    run("remote_kernel", "sync", "low", str(ssh_config), "remote:copied_config")
    assert run("remote_kernel", "connect", "low", "--", "rm", "copied_config") == ""
    run("remote_kernel", "delete", "low")


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_lowest_versions_show_the_demo_with_its_server_in_python(run: Run, tmp_path: Path) -> None:
    run("remote_kernel", "demo", "--log", str(tmp_path / "demo.ipynb"))
    assert (tmp_path / "demo.ipynb").exists()
