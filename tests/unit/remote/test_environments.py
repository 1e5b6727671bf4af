"""What `--discover` runs on the remote host, and that it waits for none of it."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from remote_kernel.remote import environments
from remote_kernel.remote.environments import TrustedOwners
from remote_kernel.remote.kernel import KernelSettings
from tests.support.kernels import wait_until

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="giving a file away takes root")
SETTINGS = KernelSettings(
    {
        "id": "",
        "connection": {},
        "python": "python3",
        "kernel": "",
        "env": [],
        "workdir": "",
        "init": "",
        "folder": "",
        "launched_by": "",
        "fingerprint": "",
        "link": "",
        "keep": False,
        "linger": 0.0,
        "spool_bytes": 0,
        "extra_arguments": [],
        "spec_env": [],
    }
)


def make_environment(folder: Path, ran: Path) -> Path:
    """Make what looks like an environment; its interpreter leaves a mark when it is run."""
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    (folder / ".venv/pyvenv.cfg").touch()
    python.write_text(f'#!/bin/sh\ntouch {ran}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cluster's folder for a project, of which the host's environment tells; the home has nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PROJECT", str(tmp_path / "project"))
    for name in ("WORK", "SCRATCH", "WORKSPACE", "CONDA_EXE", "MAMBA_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environments, "which", lambda _: None)
    return tmp_path / "project"


def seen(python: Path) -> str:
    """Look around, and say what became of an interpreter."""
    found = environments.find(SETTINGS)
    if str(python) in [one["python"] for one in found["environments"]]:
        return "asked"
    return next(kind for kind in ("foreign", "silent") if str(python) in found[kind])


def test_ones_own_environment_on_a_shared_disk_is_asked(shared: Path, tmp_path: Path) -> None:
    assert seen(make_environment(shared / "mine", tmp_path / "ran")) == "asked"
    assert (tmp_path / "ran").exists()


@AS_ROOT
@pytest.mark.parametrize("what", [".venv/bin/python", ".venv/bin", ".venv"])
def test_a_colleagues_environment_is_named_and_not_run(shared: Path, tmp_path: Path, what: str) -> None:
    python = make_environment(shared / "mallory", tmp_path / "ran")
    os.chown(shared / "mallory" / what, NOBODY, -1)
    assert seen(python) == "foreign"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", [".venv/bin/python", ".venv/bin", ".venv"])
def test_an_environment_that_all_can_write_is_not_run(shared: Path, tmp_path: Path, what: str) -> None:
    python = make_environment(shared / "open", tmp_path / "ran")
    (shared / "open" / what).chmod(0o777)
    assert seen(python) == "foreign"
    assert not (tmp_path / "ran").exists()


@AS_ROOT
def test_an_environment_below_the_home_or_in_the_path_is_asked(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_home = make_environment(tmp_path / "home/work", tmp_path / "ran")
    in_path = make_environment(tmp_path / "site", tmp_path / "ran2").rename(tmp_path / "site/.venv/bin/python3")
    monkeypatch.setenv("PATH", f"{in_path.parent}:/usr/bin:/bin")
    for python in (in_home, in_path):
        os.chown(python, NOBODY, -1)
        assert seen(python) == "asked"


@AS_ROOT
def test_what_belongs_to_the_owner_of_the_users_conda_is_asked(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make_environment(shared / "envs", tmp_path / "ran")
    (tmp_path / "conda").mkdir()
    for path in (python, python.parent, python.parents[1], tmp_path / "conda"):
        os.chown(path, NOBODY, -1)
    monkeypatch.setenv("MAMBA_ROOT_PREFIX", str(tmp_path / "conda"))
    assert seen(python) == "asked"


def test_a_group_of_ones_own_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = make_environment(tmp_path / "mine", tmp_path / "ran")
    python.parent.chmod(0o775)
    if os.getuid() == 0:
        os.chown(python.parent, -1, 7777)
    gid = python.parent.stat().st_gid
    members: list[str] = []
    me = SimpleNamespace(pw_name="me", pw_gid=gid)
    monkeypatch.setattr(environments, "pwd", SimpleNamespace(getpwuid=lambda _: me))
    group = SimpleNamespace(gr_name="me", gr_mem=members)
    monkeypatch.setattr(environments, "grp", SimpleNamespace(getgrgid=lambda _: group))
    assert TrustedOwners().have(str(python))
    members.append("mallory")
    assert not TrustedOwners().have(str(python))


def test_a_wrapper_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ASK_SECONDS", 1.0)
    (tmp_path / "python3").write_text(f'#!/bin/sh\nsleep 1234.5\nexec {sys.executable} "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    began = time.monotonic()
    answers = environments._ask([str(tmp_path / "python3"), sys.executable])
    assert time.monotonic() - began < 10
    assert list(answers) == [sys.executable]

    def left() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "1234.5"]]

    assert wait_until(lambda: not left())


@pytest.mark.parametrize(
    "says",
    [
        "echo 'remote_kernel {bad}'",
        "echo 'remote_kernel {}'",
        """echo 'remote_kernel {"version": 3, "prefix": "/", "own": true, "managed": false}'""",
        """echo 'remote_kernel {"version": "three", "prefix": "/", "own": true, "managed": false}'""",
        "yes",
        "exit 3",
    ],
)
def test_one_interpreter_that_answers_something_else_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(environments, "ASK_SECONDS", 2.0)
    (tmp_path / "python3").write_text(f"#!/bin/sh\n{says}\n")
    (tmp_path / "python3").chmod(0o755)
    tracemalloc.start()
    try:
        assert list(environments._ask([str(tmp_path / "python3"), sys.executable])) == [sys.executable]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
