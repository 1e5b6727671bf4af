"""Completion in the shell: the program is asked as bash asks it, and what it installs is loaded by a real bash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest

from remote_kernel.cli.manager import main
from remote_kernel.cli.rkernel import main as rkernel
from remote_kernel.errors import UsageError
from remote_kernel.options import find_program


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a user with two kernelspecs and an ssh config."""
    tmp_path = tmp_path_factory.mktemp("home")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")},
        "HOME": str(tmp_path),
        "LOCAL_KERNELS_DIR": str(tmp_path / "kernels"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    ssh = tmp_path / ".ssh"
    (ssh / "more").mkdir(parents=True)
    (ssh / "config").write_text("Include more/*\nHost gpu1 gpu2\n    User me\nHost *.example.org !x\nHost=gate\n")
    (ssh / "more" / "lab").write_text("Host lab1\n")
    for name in ("Mine", "Other"):
        run(env, "add", "me@gpu9", "--name", name, "--no-check")
    evil = tmp_path / ".local" / "share" / "jupyter" / "kernels" / "zevil"
    evil.mkdir(parents=True)
    ran = f"touch {tmp_path}/ran"  # as a host may name a kernelspec that 'add --discover' finds there
    name = f"a'b\"\\$({ran}) $({ran}) `{ran}` ${{x}} \\`{ran}` : \x1b[2J"
    (evil / "kernel.json").write_text(json.dumps({"argv": ["x"], "display_name": name, "language": "python"}))
    env["JUPYTER_RUNTIME_DIR"] = str(tmp_path / "runtime")
    for name in ("my-work", "other"):
        session = tmp_path / "runtime" / "rkernel" / name
        session.mkdir(parents=True)
        (session / "session.json").touch()
    return env


def run(env: dict[str, str], *words: str, program: str = "remote_kernel", **more: str) -> str:
    found = find_program()
    assert found
    path = Path(found).with_name(program)
    done = subprocess.run([path, *words], env={**env, **more}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def completed(env: dict[str, str], line: str) -> list[str]:
    """Return what bash offers when tab is pressed at the end of this line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line.strip(), "COMP_CWORD": str(len(words) - 1)}
    return run(env, program=words[0], **asked, **{f"_{words[0].upper()}_COMPLETE": "complete_bash"}).split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("remote_kernel conn", ["connect"]),
        ("remote_kernel delete m", ["mine"]),
        ("remote_kernel edit ", ["mine", "other"]),
        ("remote_kernel connect ", ["mine", "other", "me@gpu9", "lab1", "gpu1", "gpu2", "gate"]),
        ("remote_kernel doctor gp", ["gpu1", "gpu2"]),
        ("remote_kernel login la", ["lab1"]),
        ("remote_kernel add me@gpu", ["me@gpu9", "me@gpu1", "me@gpu2"]),
        ("remote_kernel ps ga", ["gate"]),
        ("remote_kernel forward o", ["other"]),
        ("remote_kernel add --disc", ["--discover"]),
        ("rkernel in", ["interrupt", "inspect"]),
        ("rkernel --v", ["--version"]),
        ("rkernel exec --full", ["--full-traceback"]),
        ("rkernel exec -s ", ["my-work", "other"]),
        ("rkernel exec -k mi", ["mine"]),
        ("rkernel status m", ["my-work"]),
        ("rkernel close my-work o", ["other"]),
        ("rkernel exec --timeout ", []),
        ("rkernel exec train.py -- --l", []),
        ("rkernel skill un", ["uninstall"]),
        ("rkernel no-such-command x", []),
    ],
)
def test_words_are_offered(environment: dict[str, str], line: str, offered: list[str]) -> None:
    assert completed(environment, line) == offered


TYPED = {
    "remote_kernel": (("conn", "connect"), ("connect mi", "connect mine"), ("login la", "login lab1")),
    "rkernel": (("interr", "interrupt"), ("exec -k ze", "exec -k zevil"), ("wait -s my", "wait -s my-work")),
}


@pytest.mark.parametrize(
    ("shell", "name"),
    [
        ("bash", "remote_kernel"),
        ("bash", "rkernel"),
        ("zsh", "remote_kernel"),
        ("fish", "rkernel"),
        pytest.param("zsh", "rkernel", marks=pytest.mark.nightly),
        pytest.param("fish", "remote_kernel", marks=pytest.mark.nightly),
    ],
)
def test_tab_completes_in_a_real_shell_after_the_installation(
    environment: dict[str, str], shell: str, name: str
) -> None:
    program, path = find_program(), shutil.which(shell)
    assert program and path
    for _ in range(2):
        said = run(environment, "--install-completion", shell, program=name)
    assert said.startswith(f"{shell} completion installed in {environment['HOME']}")
    env = {**environment, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}
    dropped = ("ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    env = {name: value for name, value in env.items() if name not in dropped}
    spawned = pexpect.spawn(path, ["-i"], env=env, encoding="utf-8", timeout=30, dimensions=(40, 132))
    try:
        spawned.expect("[$%>#] ")
        for typed, completed_to in TYPED[name]:
            spawned.send(f"{name} {typed}\t")
            # Shells write what was completed in parts, and again: what is asked for is the line in the end.
            spawned.expect(r"[^\n]*".join(completed_to.split()))
            spawned.sendcontrol("u")
    finally:
        spawned.close(force=True)
    assert not Path(environment["HOME"], "ran").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_home_that_takes_no_file_is_told(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert main(["--install-completion", shell]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"remote_kernel: cannot write {tmp_path}/file")
    assert said.endswith(f"'remote_kernel --show-completion {shell}' prints what belongs there\n")


def test_completion_for_a_shell_that_there_is_none_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--install-completion", "tcsh"]) == 2
    assert "name one of bash, zsh, fish" in capfd.readouterr().err
    assert main(["--show-completion", "fish"]) == 0
    assert "complete --command remote_kernel" in capfd.readouterr().out


def test_completion_of_rkernel_is_shown_in_its_own_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert rkernel.run(["--show-completion", "zsh"]) == 0
    shown = capfd.readouterr().out
    assert "#compdef rkernel" in shown and "_RKERNEL_COMPLETE=complete_zsh" in shown
    with pytest.raises(UsageError, match="there is no completion for 'tcsh'"):
        rkernel.run(["--install-completion", "tcsh"])
