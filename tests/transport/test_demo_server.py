"""The SSH server of `remote_kernel demo` keeps the contract that sshd keeps."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from remote_kernel.demo.folder import HOST, MARK, DemoFolder, make_key, temporary_folder
from remote_kernel.demo.ssh_server import running_server
from remote_kernel.errors import SshNotFound
from tests.support.kernels import wait_until


@pytest.fixture(scope="module")
def folder() -> Iterator[DemoFolder]:
    """Give the folder of a server that runs; its ssh_config knows the host `demo`."""
    with temporary_folder() as made, running_server(made):
        yield made


def ssh(folder: DemoFolder, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command there."""
    argv = ["ssh", "-F", str(folder.ssh_config), "-oBatchMode=yes", *words]
    return subprocess.run(argv, input=data, capture_output=True, timeout=60)


def test_bytes_come_back_unchanged(folder: DemoFolder) -> None:
    data = random.Random(7).randbytes(10 << 20)
    done = ssh(folder, HOST, "cat", data=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_exit_status_comes_back(folder: DemoFolder) -> None:
    assert ssh(folder, HOST, "exit 7").returncode == 7


def test_stdout_and_stderr_stay_apart(folder: DemoFolder) -> None:
    done = ssh(folder, HOST, "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_end_of_input_arrives(folder: DemoFolder) -> None:
    assert ssh(folder, HOST, "wc -c", data=b"12345").stdout.strip() == b"5"


def test_output_that_a_daemon_let_go_of_does_not_hold_the_session(folder: DemoFolder) -> None:
    done = ssh(folder, HOST, "sleep 3 > /dev/null 2>&1 < /dev/null & echo started")
    assert done.stdout == b"started\n"
    pid = ssh(folder, HOST, "pgrep -nx sleep").stdout
    os.kill(int(pid), signal.SIGKILL)


def test_environment_is_the_servers(folder: DemoFolder) -> None:
    lines = ssh(folder, HOST, "env").stdout.decode().splitlines()
    assert f"{MARK}={folder.path}" in lines
    assert not [line for line in lines if line.startswith(("RK_TEST_SESSION", "JUPYTER", "XDG_RUNTIME"))]
    assert [line for line in lines if line.startswith("SSH_CONNECTION=127.0.0.1 ")]


def test_two_sessions_share_a_connection(folder: DemoFolder) -> None:
    shared = ["-oControlMaster=auto", f"-oControlPath={folder.path}/m", "-oControlPersist=no"]
    argv = ["ssh", "-F", str(folder.ssh_config), *shared, HOST, "echo up; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as master:
        assert master.stdin
        assert master.stdout
        assert master.stdout.readline() == b"up\n"
        done = ssh(folder, f"-oControlPath={folder.path}/m", HOST, "cat; exit 5", data=b"x")
        assert (done.returncode, done.stdout) == (5, b"x")
        master.stdin.close()
        assert master.wait(10) == 0


def test_other_key_is_refused(folder: DemoFolder) -> None:
    key = folder.path / "other_key"
    if not key.exists():
        make_key(key)
    text = folder.ssh_config.read_text().replace(str(folder.path / "client_key"), str(key))
    config = folder.path / "other_config"
    config.write_text(text)
    done = subprocess.run(["ssh", "-F", str(config), "-oBatchMode=yes", HOST, "true"], capture_output=True, timeout=30)
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


def test_other_user_is_refused(folder: DemoFolder) -> None:
    assert b"Permission denied (publickey)" in ssh(folder, "-l", "nobody", HOST, "true").stderr


def test_forwarding_is_refused(folder: DemoFolder) -> None:
    done = ssh(folder, "-W", "127.0.0.1:1", HOST)
    assert done.returncode == 255
    assert b"administratively prohibited" in done.stderr


def test_killed_client_closes_the_output_before_the_input(folder: DemoFolder) -> None:
    # The agent tells a lost connection from a launcher that ended by looking at its output when the input ends.
    saw = folder.path / "saw"
    program = f"""
import os, select
os.write(1, b"up\\n")
while os.read(0, 100): pass
poll = select.poll()
poll.register(1, 0)
with open("{saw}.new", "w") as file: file.write("error" if poll.poll(0) else "healthy")
os.rename("{saw}.new", "{saw}")
"""
    script = folder.path / "script.py"
    script.write_text(program)
    argv = ["ssh", "-F", str(folder.ssh_config), HOST, f"python3 {script}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert wait_until(saw.exists)
    assert saw.read_text() == "error"
    saw.unlink()


def test_missing_ssh_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_KERNEL_SSH", "/nowhere/ssh")
    with temporary_folder() as made, pytest.raises(SshNotFound, match="openssh-client"), running_server(made):
        pass


def test_nothing_listens_after_the_end() -> None:
    with temporary_folder() as made, running_server(made) as server:
        pid = server.pid
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        pytest.fail("it still runs")
    assert not made.path.exists()
