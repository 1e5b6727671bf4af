"""The test servers themselves, over plain ssh, and the leak check's eyes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.interpreters import interpreters
from tests.support.isolation import Isolation
from tests.support.leaks import end_control_masters, end_processes, find_leaks, take_snapshot
from tests.support.servers import Server, Servers


def _ssh(config: Path, *words: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(config), *words], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def open_session(ssh_config: Path) -> Iterator[subprocess.Popen[str]]:
    """Give an ssh whose remote command echoes lines, until its input ends."""
    with subprocess.Popen(
        ["ssh", "-F", str(ssh_config), "target", "echo up; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_target_direct_runs_as_its_user(target: Server, ssh_config: Path) -> None:
    done = _ssh(ssh_config, "target", "id -un")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{target.user}\n", "")


def test_home_is_the_accounts_own(target: Server, ssh_config: Path) -> None:
    done = _ssh(ssh_config, "target", 'echo "$HOME"; pwd; echo "$SHELL"')
    shell = "/bin/bash" if target.account.is_own else os.environ["SHELL"]
    assert done.stdout.splitlines() == [str(target.home), str(target.home), shell]


def test_client_environment_stays_here(ssh_config: Path, isolation: Isolation) -> None:
    assert isolation.marker in os.environ.values()
    names = [line.partition("=")[0] for line in _ssh(ssh_config, "target", "env").stdout.splitlines()]
    assert "RK_TEST_REMOTE" in names
    assert not [name for name in names if name.startswith(("RK_TEST_SESSION", "JUPYTER", "XDG"))]


def test_behind_goes_through_the_jump_host(target: Server, jump: Server, ssh_config: Path) -> None:
    before = jump.log_text().count("Accepted publickey")
    done = _ssh(ssh_config, "behind", 'echo "$SSH_CONNECTION"')
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[3] == str(target.port)
    assert jump.log_text().count("Accepted publickey") == before + 1


def test_unknown_host_key_is_refused(ssh_config: Path, tmp_path: Path) -> None:
    done = _ssh(ssh_config, "-o", f"UserKnownHostsFile={tmp_path / 'empty'}", "target", "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_other_key_is_refused(ssh_config: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    text = ssh_config.read_text()
    (name,) = {line.split()[1] for line in text.splitlines() if "IdentityFile" in line}
    (tmp_path / "config").write_text(text.replace(name, str(tmp_path / "key")))
    done = _ssh(tmp_path / "config", "-o", "BatchMode=yes", "target", "true")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_sftp_reaches_the_home(target: Server, ssh_config: Path, remote_folder: Path) -> None:
    command = ["sftp", "-q", "-b", "-", "-F", str(ssh_config), "target"]
    done = subprocess.run(command, input=f"mkdir {remote_folder}/made\n", capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert (remote_folder / "made").stat().st_uid == target.account.uid


def test_kill_sessions_drops_the_session(target: Server, open_session: subprocess.Popen[str]) -> None:
    assert target.sessions()
    assert target.kill_sessions() >= 1
    assert open_session.wait(10) == 255
    assert not target.sessions()


def test_stop_keeps_sessions_and_refuses_new_ones(
    target: Server, ssh_config: Path, open_session: subprocess.Popen[str]
) -> None:
    target.stop()
    try:
        assert "Connection refused" in _ssh(ssh_config, "target", "true").stderr
        assert open_session.stdin is not None
        assert open_session.stdout is not None
        open_session.stdin.write("still there\n")
        open_session.stdin.flush()
        assert open_session.stdout.readline() == "still there\n"
        assert target.kill_sessions() >= 1
        assert open_session.wait(10) == 255
    finally:
        target.start()
    assert _ssh(ssh_config, "target", "true").returncode == 0


def test_freeze_answers_nothing_until_thaw(target: Server, ssh_config: Path) -> None:
    target.freeze()
    try:
        done = _ssh(ssh_config, "-o", "ConnectTimeout=1", "target", "true")
        assert done.returncode == 255
        assert "timed out" in done.stderr
    finally:
        target.thaw()
    assert _ssh(ssh_config, "target", "true").returncode == 0


def test_configured_lines_hold_inside_the_block(target: Server, ssh_config: Path) -> None:
    with target.configured("ForceCommand echo forced"):
        assert _ssh(ssh_config, "target", "echo asked").stdout == "forced\n"
    assert _ssh(ssh_config, "target", "echo asked").stdout == "asked\n"


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_login_shell_is_the_one_asked_for(target: Server, ssh_config: Path, shell: str) -> None:
    with target.login_shell(f"/usr/bin/{shell}"):
        assert _ssh(ssh_config, "target", "sh -c 'readlink /proc/$PPID/exe'; true").stdout.strip().endswith(shell)
    assert _ssh(ssh_config, "target", "echo $0").stdout.strip().endswith("bash")


def test_remote_python_runs_for_the_remote_user(target: Server, ssh_config: Path, remote_python: Path) -> None:
    program = "import ipykernel, ipywidgets, matplotlib; print(ipykernel.version_info[0])"
    done = _ssh(ssh_config, "target", f"{remote_python} -c '{program}'")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


def test_ipykernel6_python_has_ipykernel_6(target: Server, ssh_config: Path, remote_python_ipykernel6: Path) -> None:
    program = "import ipykernel; print(ipykernel.version_info[0])"
    done = _ssh(ssh_config, "target", f"{remote_python_ipykernel6} -c '{program}'")
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


def test_bare_python_lacks_ipykernel(target: Server, ssh_config: Path, bare_python: Path) -> None:
    done = _ssh(ssh_config, "target", f"{bare_python} -c 'import ipykernel'")
    assert done.returncode == 1
    assert "No module named 'ipykernel'" in done.stderr


def test_interpreters_are_what_they_are_listed_as() -> None:
    for (major, minor), python in interpreters().items():
        done = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.startswith(f"Python {major}.{minor}.")


def test_leak_check_finds_a_remote_process(servers: Servers, ssh_config: Path, isolation: Isolation) -> None:
    before = take_snapshot(isolation, servers)
    _ssh(ssh_config, "target", "nohup setsid sleep 987 > /dev/null 2>&1 < /dev/null & echo")
    try:
        (leak,) = find_leaks(before, isolation, servers, patience_seconds=0.5)
        assert leak.startswith("process ")
        assert leak.endswith(f" of {servers.account.user}: sleep 987")
    finally:
        end_processes(take_snapshot(isolation, servers).processes - before.processes)
    assert find_leaks(before, isolation, servers) == []


def test_leak_check_finds_files_on_both_sides(servers: Servers, isolation: Isolation) -> None:
    before = take_snapshot(isolation, servers)
    left = [isolation.jupyter_runtime / "kernel-1.json", servers.account.home / "rk-leak-check.py"]
    fine = [isolation.jupyter_runtime / "remote_kernel-1.log", servers.account.home / ".cache-of-a-test"]
    for path in (*left, *fine):
        path.touch()
    try:
        assert find_leaks(before, isolation, servers, patience_seconds=0) == sorted(f"file {path}" for path in left)
    finally:
        for path in (*left, *fine):
            path.unlink()


def test_leak_check_finds_a_detached_local_process(isolation: Isolation) -> None:
    # The child that starts it ends at once, so that only the environment tells whose it is.
    before = take_snapshot(isolation, None)
    program = "import subprocess; print(subprocess.Popen(['sleep', '986'], start_new_session=True, stdout=-3).pid)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    sleeper = psutil.Process(int(done.stdout))
    try:
        assert len(find_leaks(before, isolation, None, patience_seconds=0)) == 1
        assert find_leaks(before, isolation, None, patience_seconds=0, allowed=[sleeper.pid]) == []
    finally:
        end_processes([sleeper])


def test_leak_check_waits_for_what_is_ending(isolation: Isolation) -> None:
    before = take_snapshot(isolation, None)
    with subprocess.Popen(["sleep", "0.5"]):
        assert find_leaks(before, isolation, None) == []


def test_control_masters_are_ended(isolation: Isolation, servers: Servers, ssh_config: Path) -> None:
    before = take_snapshot(isolation, servers)
    folder = isolation.runtime / "remote_kernel"
    folder.mkdir(mode=0o700, exist_ok=True)
    shared = ["-o", f"ControlPath={folder}/%C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    command = ["ssh", "-F", str(ssh_config), *shared, "target", "true"]
    # With its stderr on a pipe the master would hold it open, and nobody could read to the end.
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30
    )
    assert take_snapshot(isolation, servers).processes - before.processes
    end_control_masters(isolation.runtime)
    assert find_leaks(before, isolation, servers) == []
