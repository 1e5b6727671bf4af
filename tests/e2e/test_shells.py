"""Kernels behind every login shell, whatever its rc files print, in homes of every kind."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_kernel import handshake
from remote_kernel.errors import KernelDied, RemoteShellNoise
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.launcher import attempt
from remote_kernel.launcher.forward import Forwarder
from remote_kernel.launcher.log import Log
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.remote_end import RemoteEnd
from remote_kernel.transport import masters
from tests.support.kernels import launch, options_for, run, running_kernel, wait_until, write_connection_file
from tests.support.servers import Server

SHELLS = ("bash", "dash", "zsh", "fish", "tcsh")
# What each shell reads when sshd runs a command with it.
RC_FILES = {"bash": ".bashrc", "zsh": ".zshenv", "fish": ".config/fish/config.fish", "tcsh": ".tcshrc"}


def _path_of(shell: str) -> str:
    found = shutil.which(shell)
    assert found, f"there is no {shell} here: run scripts/test, which installs it"
    return found


@contextmanager
def home_file(target: Server, name: str, text: str) -> Iterator[None]:
    """Put a file into the remote home for a while."""
    path = target.home / name
    assert not path.exists() or path.name.startswith(".")
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else None
    path.write_text(text)
    subprocess.run(["chown", "-R", f"{target.account.uid}:{target.account.gid}", str(target.home)], check=True)
    try:
        yield
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


@pytest.mark.parametrize("shell", SHELLS)
def test_kernel_runs_behind_the_login_shell(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, shell: str
) -> None:
    value = 'it\'s "quoted"\n$HOME `id` !! \\n \\ %s {a,b} ~ * \U0001f642 é'
    options = options_for("target", ssh_config, remote_python, env=(("RK_VALUE", value),))
    with target.login_shell(_path_of(shell)), running_kernel(tmp_path, options) as (_, client):
        assert run(client, "import os; os.environ['RK_VALUE']").result == repr(value)
        assert run(client, "import os; os.environ['SHELL']").result.strip("'").endswith(shell)


NOISE = {
    "on stdout": "echo Welcome to gpu1",
    "on stderr": "echo 'module: command not found' >&2",
    "much": "head -c 100000 /dev/zero | tr '\\0' x; echo",
    "much on stderr": "sh -c 'head -c 100000 /dev/zero | tr \"\\0\" x >&2'",
    "without an end of line": "printf 'prompt> '",
    "that looks like ours": "printf '\\nremote_kernel-0123456789abcdef\\n'",
    "of bytes": "head -c 3000 /dev/urandom",
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("shell", RC_FILES)
def test_noise_of_rc_files_is_skipped(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, shell: str, noise: str
) -> None:
    command = NOISE[noise]
    if shell == "tcsh":  # it cannot redirect stderr alone
        command = command.replace("echo 'module: command not found' >&2", "sh -c 'echo module >&2'")
    options = options_for("target", ssh_config, remote_python)
    with target.login_shell(_path_of(shell)), home_file(target, RC_FILES[shell], command + "\n"):
        seen = subprocess.run(
            ["ssh", "-F", str(ssh_config), "target", "true"], capture_output=True, stdin=subprocess.DEVNULL, timeout=20
        )
        assert seen.stdout + seen.stderr, "the shell does not read this file, so the test would show nothing"
        with running_kernel(tmp_path, options) as (_, client):
            assert run(client, "1 + 1").result == "2"


def test_rc_file_that_replaces_the_shell_is_told(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with home_file(target, ".bashrc", "echo 'This cluster is closed for maintenance'; exit 0\n"):
        done = launch(
            options_for("target", ssh_config, remote_python), write_connection_file(tmp_path / "kernel-1.json")
        )
    assert done.returncode == RemoteShellNoise.exit_status
    assert "closed for maintenance" in done.stderr.splitlines()[-1]


# -- another program in the place of the login shell, or one that reads what is sent


def _forward(options: LaunchOptions) -> None:
    with Reactor() as reactor:
        Forwarder(reactor, options, Log(), lambda: None).run([])


def _sync(options: LaunchOptions) -> None:
    with RemoteEnd(options, "receive", {}) as far:
        far.greet()


PROGRAMS: dict[str, Callable[[LaunchOptions], object]] = {"probe": probe, "forward": _forward, "sync": _sync}


def _listing(home: Path) -> list[tuple[str, float]]:
    return sorted((str(path), path.stat().st_mtime) for path in home.rglob("*"))


@pytest.mark.over_both("zsh")
@pytest.mark.parametrize("other", ["zsh -l", "bash", "dash", "tcsh", "fish"])
def test_shell_that_an_rc_file_starts_runs_nothing_of_ours(
    monkeypatch: pytest.MonkeyPatch, target: Server, ssh_config: Path, remote_python: Path, other: str
) -> None:
    monkeypatch.setattr(handshake, "QUIET_SECONDS", 0.5)  # fish says nothing before its input ends
    monkeypatch.setattr(attempt, "QUIET_SECONDS", 0.5)
    options = options_for("target", ssh_config, remote_python)
    with home_file(target, ".bashrc", f"exec {other}\n"):
        # The first fish of a user makes its own files.
        subprocess.run(["ssh", "-F", str(ssh_config), "target", "true"], input=b"exit\n", timeout=20, check=True)
        before = _listing(target.home)
        for name, program in PROGRAMS.items():
            with pytest.raises(RemoteShellNoise, match=r"in the place of the login shell.*~/\.bashrc"):
                program(options)
            assert _listing(target.home) == before, name
        assert wait_until(lambda: not target.processes())


@pytest.mark.parametrize("other", ["zsh -l", "fish"])
def test_kernel_behind_another_shell_names_the_rc_file_soon(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, other: str
) -> None:
    options = options_for("target", ssh_config, remote_python)
    with home_file(target, ".bashrc", f"exec {other}\n"):
        before, begun = _listing(target.home), time.monotonic()
        done = launch(options, write_connection_file(tmp_path / "kernel-1.json"))
        took = time.monotonic() - begun
        assert _listing(target.home) == before
    assert done.returncode == RemoteShellNoise.exit_status
    assert "~/.bashrc" in done.stderr.splitlines()[-1]
    assert took < 15  # not the 45 s that an answer may take


def test_rc_file_that_asks_a_question_does_not_stop_a_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with home_file(target, ".bashrc", "read -p 'Load modules? ' -n 1 -r\n"):
        assert probe(options_for("target", ssh_config, remote_python)).python == str(remote_python)
        with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (_, client):
            assert run(client, "1 + 1").result == "2"


@pytest.mark.parametrize("program", PROGRAMS)
def test_rc_file_that_waits_for_more_input_is_told(
    monkeypatch: pytest.MonkeyPatch, target: Server, ssh_config: Path, remote_python: Path, program: str
) -> None:
    monkeypatch.setattr(handshake, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(attempt, "QUIET_SECONDS", 0.5)
    with home_file(target, ".bashrc", "cat > /dev/null\n"), pytest.raises(RemoteShellNoise, match="waits for input"):
        PROGRAMS[program](options_for("target", ssh_config, remote_python))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("without", ["< /dev/null", "<&-"])
def test_wrapper_that_closes_its_input_is_told(
    target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path, program: str, without: str
) -> None:
    wrapper = remote_folder / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {remote_python} "$@" {without}\n')
    wrapper.chmod(0o755)
    with pytest.raises(RemoteShellNoise, match=f"'{wrapper}', or something in the rc files .* reads or closes"):
        PROGRAMS[program](options_for("target", ssh_config, wrapper))


FLOODS = {"stdout": "yes", "stderr": "yes >&2", "one line on stdout": "tr '\\0' x < /dev/zero"}


@pytest.mark.over_both("stdout")
@pytest.mark.parametrize("flood", FLOODS)
def test_rc_file_that_prints_without_end_is_told_and_takes_no_memory(
    target: Server, ssh_config: Path, remote_python: Path, flood: str
) -> None:
    options = options_for("target", ssh_config, remote_python)
    with home_file(target, ".bashrc", f"{FLOODS[flood]}\n"):
        for name, program in PROGRAMS.items():
            tracemalloc.start()
            try:
                with pytest.raises(RemoteShellNoise, match=r"prints without end.*[xy]'"):
                    program(options)
                assert tracemalloc.get_traced_memory()[1] < 20 << 20, name
            finally:
                tracemalloc.stop()
    masters.end_masters(options)  # sshd keeps what writes to stderr until then
    assert wait_until(lambda: not target.processes())


# -- homes


def test_home_that_cannot_be_written(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python)
    mode = target.home.stat().st_mode
    before = sorted(target.home.iterdir())
    target.home.chmod(0o555)
    try:
        with running_kernel(tmp_path, options) as (_, client):
            assert run(client, "import os; os.access(os.path.expanduser('~'), os.W_OK)").result == "False"
        assert sorted(target.home.iterdir()) == before
    finally:
        target.home.chmod(mode)


@contextmanager
def small_home(target: Server) -> Iterator[Path]:
    """Cover the remote home with a file system of 2 MB; sshd's own files are elsewhere."""
    owner = f"uid={target.account.uid},gid={target.account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=2m,mode=755,{owner}", "none", str(target.home)], check=True)
    try:
        yield target.home
    finally:
        subprocess.run(["umount", "-l", str(target.home)], check=True)


def fill(home: Path) -> None:
    """Write a file until nothing more fits."""
    with pytest.raises(OSError, match="No space"):
        (home / "full").write_bytes(bytes(4 << 20))


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system takes root")
def test_home_that_is_full(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python)
    with small_home(target) as home:
        with running_kernel(tmp_path, options):
            pass  # IPython makes its profile there at the first start, or does not start
        fill(home)
        with running_kernel(tmp_path, options) as (_, client):
            code = (
                "import os\ntry: open(os.path.expanduser('~/x'), 'w').write('x' * 10000)\nexcept OSError as e: print(e)"
            )
            assert "No space left" in run(client, code).streams["stdout"]


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system takes root")
def test_full_home_without_a_profile_is_told(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with small_home(target) as home:
        fill(home)
        done = launch(
            options_for("target", ssh_config, remote_python), write_connection_file(tmp_path / "kernel-1.json")
        )
    assert done.returncode == KernelDied.exit_status
    assert "No space left on device" in done.stderr.splitlines()[-1]


def test_home_that_does_not_exist(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    away = target.home.with_name(target.home.name + "-away")
    target.home.rename(away)
    try:
        with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (_, client):
            assert run(client, "import os; os.getcwd()").result == "'/'"
    finally:
        if target.home.exists():
            shutil.rmtree(target.home)
        away.rename(target.home)
