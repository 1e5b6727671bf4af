"""The ways to install that the README shows, and that uninstalling leaves nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import remote_kernel
from tests.support.interpreters import UV, environment

CLONE = Path(remote_kernel.__file__).parents[1]


@pytest.mark.nightly
@pytest.mark.timeout(600)  # it downloads
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_installs_from_a_clone_and_uninstalls_without_a_trace(tool: str, tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    env = {**os.environ, "HOME": str(home), "UV_CACHE_DIR": str(cache), "PIP_CACHE_DIR": str(cache)}
    env = {name: value for name, value in env.items() if not name.startswith(("JUPYTER", "XDG_DATA", "XDG_BIN"))}
    programs = home / (".local/bin" if tool == "uv" else ".local/share/rkernel/bin")
    env["PATH"] = os.pathsep.join((str(programs), str(environment(*UV).parent), "/usr/bin:/bin"))

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=CLONE, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if tool == "uv":
        run("uv", "tool", "install", ".")
    else:
        run("python3", "-m", "venv", str(programs.parent))
        run(str(programs / "pip"), "install", ".")
    run("remote_kernel", "add", "gpu1", "--name", "Mine", "--no-check")
    assert f"remote_kernel {remote_kernel.__version__}" in run("remote_kernel", "--version")
    assert run("rkernel", "--version") == f"rkernel {remote_kernel.__version__}\n"
    run("rkernel", "skill", "install")
    run("remote_kernel", "delete", "--all")
    run("rkernel", "skill", "uninstall")
    if tool == "uv":
        run("uv", "tool", "uninstall", "rkernel")
        left = [path for path in home.rglob("*") if path.is_file() and "uv" not in path.relative_to(home).parts]
        assert left == []
