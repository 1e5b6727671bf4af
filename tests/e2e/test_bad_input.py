"""Whatever is wrong, the launcher says in one line what it is and what to do, with an exit status of its own, soon."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from remote_kernel import errors
from remote_kernel.errors import RemoteKernelError
from remote_kernel.options import LaunchOptions, find_program
from remote_kernel.terminal_safe import terminal_safe
from tests.support.ends import ask_agents
from tests.support.kernels import launch, options_for, run, running_kernel, wait_until, write_connection_file
from tests.support.servers import Server, Servers, free_port, make_key

SOON = 10.0


@pytest.fixture
def connection_file(tmp_path: Path) -> Path:
    return write_connection_file(tmp_path / "kernel-1.json")


@pytest.fixture
def config(tmp_path: Path, ssh_config: Path) -> Callable[..., Path]:
    """Give a function that writes a client configuration: lines ahead of the usual ones, options changed."""

    def write(*lines: str, **replaced: str) -> Path:
        text = ssh_config.read_text()
        for old, new in replaced.items():
            found = [line for line in text.splitlines() if line.strip().startswith(old)]
            assert found
            for line in found:
                text = text.replace(line, f"    {old} {new}")
        path = tmp_path / "ssh_config"
        path.write_text("\n".join([*lines, text]))
        return path

    return write


def fails_with(
    error: type[RemoteKernelError],
    options: LaunchOptions,
    connection_file: Path,
    *says: str,
    within: float = SOON,
    env: dict[str, str] | None = None,
) -> str:
    """Launch, and check how it fails; give the last line of stderr."""
    started = time.monotonic()
    done = launch(options, connection_file, env={**os.environ, **(env or {})})
    took = time.monotonic() - started
    assert done.returncode == error.exit_status, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("remote_kernel: ")
    assert len([line for line in lines if line.startswith("remote_kernel: ")]) == 1, done.stderr
    # A traceback may be the kernel's, never ours.
    assert not [line for line in lines if line.lstrip().startswith("File ") and "remote_kernel" in line], done.stderr
    for text in says:
        assert text in lines[-1]
    assert "; " in lines[-1], "it does not say what to do"
    assert done.stdout == ""
    assert took < within, f"it took {took:.1f} s"
    return lines[-1]


# -- the way there


@pytest.mark.over_both
def test_unknown_host_name(connection_file: Path, ssh_config: Path) -> None:
    options = options_for("no-such-host.invalid", ssh_config, "python3")
    fails_with(errors.UnknownHost, options, connection_file, "no-such-host.invalid has no address", "VPN")


@pytest.mark.over_both
def test_closed_port(connection_file: Path, target: Server, config: Callable[..., Path]) -> None:
    options = options_for("closed", config("Host closed", "HostName 127.0.0.1", f"Port {free_port()}"), "python3")
    fails_with(errors.ConnectionRefused, options, connection_file, "closed", "connection refused")


def test_host_that_never_answers(connection_file: Path, target: Server, config: Callable[..., Path]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        lines = ("Host silent", "HostName 127.0.0.1", f"Port {silent.getsockname()[1]}", "ConnectTimeout 2")
        options = options_for("silent", config(*lines), "python3")
        fails_with(errors.ConnectTimeout, options, connection_file, "silent does not answer", within=6)


@pytest.mark.over_both
def test_host_that_is_no_ssh_server(connection_file: Path, target: Server, config: Callable[..., Path]) -> None:
    # It answers like a web server and hangs up.
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(5)
        port = other.getsockname()[1]
        program = (
            "import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\nc, _ = s.accept()\n"
            "c.recv(100)\nc.sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n')\nc.close()\n"
        )
        with subprocess.Popen(["python3", "-c", program, str(other.fileno())], pass_fds=[other.fileno()]) as web:
            options = options_for("web", config("Host web", "HostName 127.0.0.1", f"Port {port}"), "python3")
            fails_with(errors.TransportError, options, connection_file, "web closed the connection before the login")
            web.wait(10)


@pytest.mark.over_both
def test_wrong_key_is_offered_once_within_a_minute(
    connection_file: Path, target: Server, tmp_path: Path, config: Callable[..., Path]
) -> None:
    make_key(tmp_path / "key")
    options = options_for("target", config(IdentityFile=str(tmp_path / "key")), "python3")
    contacts = target.log_text().count("Connection from")

    line = fails_with(errors.AuthenticationFailed, options, connection_file, "permission denied (publickey)")
    assert target.log_text().count("Connection from") == contacts + 1
    # jupyter_client's restarter launches again, at once, up to five times.
    for _ in range(3):
        again = fails_with(errors.AuthenticationFailed, options, connection_file)
        assert again == line
    assert target.log_text().count("Connection from") == contacts + 1


@pytest.mark.over_both
def test_unknown_host_key(connection_file: Path, target: Server, tmp_path: Path, config: Callable[..., Path]) -> None:
    options = options_for("target", config(UserKnownHostsFile=str(tmp_path / "none")), "python3")
    fails_with(
        errors.HostKeyUnknown,
        options,
        connection_file,
        "host key of target is not known here",
        "remote_kernel login target",
    )


@pytest.mark.over_both
def test_changed_host_key(connection_file: Path, target: Server, tmp_path: Path, config: Callable[..., Path]) -> None:
    make_key(tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[{target.host}]:{target.port} {key}\n")
    options = options_for("target", config(UserKnownHostsFile=str(tmp_path / "known")), "python3")
    fails_with(
        errors.HostKeyChanged, options, connection_file, "host key of target has changed", "remote_kernel login target"
    )


@pytest.mark.over_both
def test_jump_host_that_is_down(connection_file: Path, target: Server, config: Callable[..., Path]) -> None:
    ssh_config = config("Host jump", f"Port {free_port()}")
    options = options_for("behind", ssh_config, "python3")
    fails_with(errors.JumpHostFailed, options, connection_file, "jump host", "refused")


def test_jump_host_option_that_is_down(connection_file: Path, target: Server, ssh_config: Path) -> None:
    port = free_port()
    jumps = (options_for(f"127.0.0.1:{port}", ssh_config, "").endpoint,)
    options = options_for("target", ssh_config, "python3", jumps=jumps)
    fails_with(errors.JumpHostFailed, options, connection_file, f"jump host 127.0.0.1:{port}", "refused")


def test_jump_host_with_an_unknown_name(connection_file: Path, target: Server, ssh_config: Path) -> None:
    jumps = (options_for("no-such-jump.invalid", ssh_config, "").endpoint,)
    options = options_for("target", ssh_config, "python3", jumps=jumps)
    fails_with(errors.JumpHostFailed, options, connection_file, "no-such-jump.invalid")


@pytest.mark.over_both
def test_jump_host_that_does_not_let_in(
    connection_file: Path, servers: Servers, tmp_path: Path, config: Callable[..., Path]
) -> None:
    make_key(tmp_path / "key")
    ssh_config = config("Host jump", f"IdentityFile {tmp_path / 'key'}", "IdentitiesOnly yes", "Host *")
    text = (
        ssh_config.read_text().replace(f"    IdentityFile {servers.client_key}\n", "")
        + f"\nHost behind\n    IdentityFile {servers.client_key}\n"
    )
    ssh_config.write_text(text)
    options = options_for("behind", ssh_config, "python3")
    line = fails_with(errors.AuthenticationFailed, options, connection_file, "permission denied (publickey)")
    # Which of the two it was is what the user needs to know.
    assert "behind does not let you in" not in line
    assert "jump" in line or f"{servers.account.user}@{servers.jump.host}" in line


@pytest.mark.over_both
def test_jump_host_that_cannot_reach_the_target(
    connection_file: Path, target: Server, config: Callable[..., Path]
) -> None:
    options = options_for("behind", config("Host behind", f"Port {free_port()}"), "python3")
    fails_with(errors.JumpHostFailed, options, connection_file, "cannot reach behind", "connection refused")


@pytest.mark.over_both
def test_jump_host_that_forbids_forwarding(
    connection_file: Path, jump: Server, target: Server, ssh_config: Path
) -> None:
    with jump.configured("AllowTcpForwarding no"):
        options = options_for("behind", ssh_config, "python3")
        fails_with(errors.JumpHostFailed, options, connection_file, "cannot reach behind", "AllowTcpForwarding")


# -- ssh itself


@pytest.mark.openssh_only
@pytest.mark.parametrize("program", ["/nothing/ssh", "no-such-ssh-program", "/etc/hostname"])
def test_missing_ssh_program(connection_file: Path, ssh_config: Path, program: str) -> None:
    env = {"REMOTE_KERNEL_SSH": program}
    options = options_for("target", ssh_config, "python3")
    fails_with(errors.SshNotFound, options, connection_file, program, "install the OpenSSH client", env=env)


@pytest.mark.openssh_only
def test_bad_ssh_config_line(connection_file: Path, config: Callable[..., Path]) -> None:
    options = options_for("target", config("Host target", "Colour blue"), "python3")
    fails_with(errors.SshConfigError, options, connection_file, "ssh_config", "colour")


@pytest.mark.over_both
def test_missing_ssh_config(connection_file: Path, tmp_path: Path) -> None:
    options = options_for("target", tmp_path / "none", "python3")
    fails_with(errors.SshConfigError, options, connection_file, str(tmp_path / "none"))


# -- the remote host


def test_missing_python_names_what_there_is(connection_file: Path, target: Server, ssh_config: Path) -> None:
    options = options_for("target", ssh_config, "/opt/none/bin/python")
    fails_with(
        errors.PythonNotFound, options, connection_file, "no interpreter '/opt/none/bin/python'", "/usr/bin/python3"
    )


def test_python_that_is_no_program(
    connection_file: Path, target: Server, ssh_config: Path, remote_folder: Path
) -> None:
    path = remote_folder / "python"
    path.write_text("this is no program\n")
    path.chmod(0o755)
    options = options_for("target", ssh_config, path)
    fails_with(errors.RemoteShellNoise, options, connection_file, "target")


@pytest.mark.over_both
def test_python_without_ipykernel(connection_file: Path, target: Server, ssh_config: Path, bare_python: Path) -> None:
    options = options_for("target", ssh_config, bare_python)
    fails_with(errors.KernelNotInstalled, options, connection_file, "has no ipykernel", "pip install ipykernel")


def test_command_that_installs_ipykernel_can_be_pasted(
    connection_file: Path, target: Server, ssh_config: Path, bare_python: Path, remote_folder: Path
) -> None:
    link = remote_folder / "my env"
    link.symlink_to(bare_python.parent.parent)
    options = options_for("target", ssh_config, link / "bin/python")
    said = fails_with(errors.KernelNotInstalled, options, connection_file, "has no ipykernel")
    pasted = shlex.split(said.partition("install it with: ")[2])
    assert shlex.split(pasted[-1]) == [str(link / "bin/python"), "-m", "pip", "install", "ipykernel"]
    program = find_program()
    assert program
    tried = [program, *pasted[1:-1], pasted[-1].replace("-m pip install ipykernel", "--version")]
    assert subprocess.run(tried, capture_output=True, text=True, timeout=30).stdout.startswith("Python 3.")


def test_pip_is_not_advised_for_the_systems_own_python(connection_file: Path, target: Server, ssh_config: Path) -> None:
    options = options_for("target", ssh_config, "/usr/bin/python3")
    said = fails_with(errors.KernelNotInstalled, options, connection_file, "has no ipykernel")
    look = f"remote_kernel add target --ssh-config {ssh_config} --discover"
    assert f"see which interpreters there have it: {look}" in said


def test_unknown_kernelspec(connection_file: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python, kernel="no-such-kernel")
    fails_with(errors.RemoteKernelspecNotFound, options, connection_file, "'no-such-kernel'", "it has: python3")


def test_missing_workdir(connection_file: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python, workdir="~/no such folder")
    fails_with(errors.RemoteError, options, connection_file, "no folder '~/no such folder'", "--workdir")


@pytest.mark.parametrize("folder", ["/proc/none", "/etc/remote_kernel-test", "/dev/null"])
def test_remote_folder_that_takes_nothing(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path, folder: str
) -> None:
    options = options_for("target", ssh_config, remote_python)
    env = {"REMOTE_CONN_DIR": folder}
    fails_with(errors.RemoteFolderError, options, connection_file, folder, "REMOTE_CONN_DIR", env=env)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system takes root")
def test_remote_disk_that_is_full(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    disk = remote_folder / "disk"
    disk.mkdir()
    owner = f"uid={target.account.uid},gid={target.account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64k,mode=700,{owner}", "none", str(disk)], check=True)
    try:
        with pytest.raises(OSError, match="No space"):
            (disk / "full").write_bytes(bytes(1 << 20))
        options = options_for("target", ssh_config, remote_python)
        env = {"REMOTE_CONN_DIR": str(disk / "agents")}
        fails_with(
            errors.RemoteFolderError, options, connection_file, "No space left on device", "free some space", env=env
        )
        assert [path.name for path in disk.rglob("*") if path.is_file()] == ["full"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("import libcuda_that_is_not_there", "ModuleNotFoundError"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9"),
    ],
)
def test_kernel_that_dies_at_its_imports(
    connection_file: Path,
    target: Server,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    code: str,
    says: str,
) -> None:
    # The kernel's own module is the one that fails; a sitecustomize that raises is only printed.
    (remote_folder / "ipykernel_launcher.py").write_text(f"{code}\n")
    options = options_for("target", ssh_config, remote_python, env=(("PYTHONPATH", str(remote_folder)),))
    fails_with(errors.KernelDied, options, connection_file, says, "remote_kernel-kernel-1.log")


def test_socket_that_the_front_end_has_removed_is_not_missed(tmp_path: Path, config: Callable[..., Path]) -> None:
    ports = {f"{name}_port": port for port, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
    file = write_connection_file(tmp_path / "kernel-1.json", transport="ipc", ip=str(tmp_path / "k"), **ports)
    options = options_for("target", config("Host target", "ProxyCommand sleep 100"), "python3")
    program = find_program()
    assert program
    words = options._replace(connection_file=str(file)).to_arguments()
    with subprocess.Popen([program, *words], stderr=subprocess.PIPE, text=True) as launcher:
        assert wait_until(lambda: all((tmp_path / f"k-{port}").exists() for port in ports.values()))
        (tmp_path / "k-3").unlink()
        launcher.terminate()
        said = launcher.communicate(timeout=20)[1]
    assert launcher.returncode == 128 + signal.SIGTERM and "Traceback" not in said, said
    assert not list(tmp_path.glob("k-*"))


GARBAGE = {
    "a word": "echo hello",
    "markers": "printf '\\nremote_kernel-0123456789abcdef\\n\\nremote_kernel-x {\"error\": 1}\\n'; cat > /dev/null",
    "much": "head -c 300000 /dev/zero | tr '\\0' x; cat > /dev/null",
    "bytes": "head -c 100000 /dev/urandom",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_something_else_than_python_answers(
    connection_file: Path, target: Server, ssh_config: Path, remote_folder: Path, name: str
) -> None:
    path = remote_folder / "python"
    path.write_text(f"#!/bin/sh\n{GARBAGE[name]}\nexit 0\n")
    path.chmod(0o755)
    options = options_for("target", ssh_config, path)
    if "cat >" in GARBAGE[name]:  # it would wait for the end of its input for ever, and so does ssh
        path.write_text(path.read_text().replace("cat > /dev/null", "exit 0"))
    line = fails_with(errors.RemoteShellNoise, options, connection_file, "answered something else")
    assert len(line) < 1500


def test_garbage_behind_the_marker_ends_the_launcher(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    # The agent's own words go through a filter that replaces the Link's frames.
    path = remote_folder / "python"
    path.write_text(f'#!/bin/sh\n{remote_python} "$@" | {{ sed -u 4q; head -c 50000 /dev/urandom; }}\n')
    path.chmod(0o755)
    options = options_for("target", ssh_config, path)
    fails_with(errors.RemoteShellNoise, options, connection_file, "something else than the kernel's agent")
    ask_agents(options._replace(python=str(remote_python)), "stop")  # it waits for its launcher to come back


# -- this side


BROKEN_FILES = {
    "empty": ("", "is not JSON"),
    "truncated": ('{"key": "1", "ip": "127.0', "is not JSON"),
    "binary": ("\x00\x01", "is not JSON"),
    "a list": ("[1]", "not a JSON object"),
    "no key": ({"key": None}, "lacks key"),
    "no port": ({"iopub_port": None}, "lacks iopub_port"),
    "port 0": ({"hb_port": 0}, "no valid port for hb"),
    "port 70000": ({"hb_port": 70000}, "no valid port for hb"),
    "port of text": ({"shell_port": "12"}, "no valid port for shell"),
    "port true": ({"shell_port": True}, "no valid port for shell"),
    "transport": ({"transport": "carrier pigeon"}, "carrier pigeon"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_connection_file(tmp_path: Path, connection_file: Path, ssh_config: Path, name: str) -> None:
    content, says = BROKEN_FILES[name]
    if isinstance(content, str):
        connection_file.write_text(content)
    else:
        values: dict[str, Any] = {**json.loads(connection_file.read_text()), **content}
        connection_file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    key = str(json.loads(connection_file.read_text()).get("key")) if isinstance(content, dict) else "no key in it"
    options = options_for("target", ssh_config, "python3")
    line = fails_with(errors.ConnectionFileError, options, connection_file, says, str(connection_file))
    assert key not in line


def test_missing_connection_file(tmp_path: Path, ssh_config: Path) -> None:
    options = options_for("target", ssh_config, "python3")
    fails_with(errors.ConnectionFileError, options, tmp_path / "none.json", "No such file or directory")


def test_connection_file_that_is_a_folder(tmp_path: Path, ssh_config: Path) -> None:
    options = options_for("target", ssh_config, "python3")
    fails_with(errors.ConnectionFileError, options, tmp_path, "Is a directory")


def test_port_that_is_taken_here(connection_file: Path, target: Server, ssh_config: Path) -> None:
    contacts = target.log_text().count("Connection from")
    port = json.loads(connection_file.read_text())["control_port"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen(1)
        options = options_for("target", ssh_config, "python3")
        fails_with(errors.PortInUse, options, connection_file, f"port {port} (control)", "is in use")
    assert target.log_text().count("Connection from") == contacts


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--endpoint", "host", "--colour", "blue"], "--colour"),
        (["--endpoint"], "--endpoint"),
        (["--endpoint", "-oProxyCommand=id"], ""),
        (["--endpoint", "a b"], "'a b' is not an endpoint"),
        (["--endpoint", "a$(touch${IFS}X)@host"], "is not an endpoint"),
        (["--endpoint", "host", "-J", "gate;reboot"], "is not an endpoint"),
        (["--endpoint", "host:99999"], "no valid port"),
        (["--endpoint", "host", "--env", "1=2"], "'1=2' is not a variable"),
        (["--endpoint", "host", "--linger", "soon"], "'soon' is not a duration"),
        (["--endpoint", "host", "--transport", "pigeon"], "'pigeon'"),
        (["--endpoint", "host", "--kernel", "../x"], "'../x'"),
        ([], "--endpoint"),
    ],
)
def test_arguments_that_cannot_be_meant_fail_at_once(connection_file: Path, words: list[str], says: str) -> None:
    program = find_program()
    assert program
    done = subprocess.run(
        [program, *words, "-f", str(connection_file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        # An ssh that would tell of being called.
        env={**os.environ, "REMOTE_KERNEL_SSH": "/nothing/ssh"},
    )
    assert done.returncode == errors.UsageError.exit_status
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("remote_kernel: ")
    assert says in line


# -- kernels that misbehave


def test_kernel_that_writes_much_to_stderr_lives(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    # Nobody reads the launcher's stderr here, as VS Code may not.
    options = options_for("target", ssh_config, remote_python)
    reading, writing = os.pipe()
    try:
        with running_kernel(tmp_path, options, stderr=writing) as (_, client):
            code = "import os\nfor _ in range(160): os.write(2, b'e' * 65535 + b'\\n')\n"
            assert run(client, code, timeout=60).status == "ok"
            assert run(client, "6 * 7").result == "42"
    finally:
        os.close(reading)
        os.close(writing)


def test_kernel_that_writes_controls_to_stderr_does_not_steer_the_terminal_of_jupyter(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    written = r"\033]52;c;QUJD\007\033[31mred\033[0m\r\n\302\233 2J \342\200\256 \033[6n"
    init = f"printf '{written}' >&2; exit 3"
    options = options_for("target", ssh_config, remote_python, init=init)
    done = launch(options, connection_file)
    plain = done.stderr.replace("\x1b[0m", "")  # behind each piece of it, however many it comes in
    assert "?]52;c;QUJD?\x1b[31mred\n? 2J ? ?[6n" in plain
    assert "\x1b[31mred\x1b[0m" in done.stderr
    left = plain.replace("\x1b[31m", "")
    assert left == terminal_safe(left)


@contextmanager
def launched(
    options: LaunchOptions, connection_file: Path
) -> Iterator[tuple[subprocess.Popen[str], BlockingKernelClient]]:
    """Run the launcher and wait until its kernel answers."""
    program = find_program()
    assert program
    words = options._replace(connection_file=str(connection_file)).to_arguments()
    client = BlockingKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    with subprocess.Popen(
        [program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as launcher:
        try:
            assert wait_until(lambda: launcher.poll() is not None or _listens(client.shell_port))
            client.start_channels(hb=False)  # without a manager a start of more than a second would look like a death
            client.wait_for_ready(timeout=60)
            yield launcher, client
        finally:
            client.stop_channels()
            if launcher.poll() is None:
                launcher.terminate()
                launcher.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def test_kernel_that_ignores_sigterm_is_killed(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with launched(options_for("target", ssh_config, remote_python), connection_file) as (launcher, client):
        code = "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid())"
        pid = int(run(client, code).streams["stdout"])
        assert pid in [process.pid for process in target.processes()]
        started = time.monotonic()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(10) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
        assert time.monotonic() - started < 7
        assert wait_until(lambda: pid not in [process.pid for process in target.processes()], 5)


def test_exit_status_is_the_kernels(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with launched(options_for("target", ssh_config, remote_python), connection_file) as (launcher, client):
        client.execute("import os; os._exit(7)")
        assert launcher.wait(15) == 7


def test_signal_that_killed_the_kernel_is_in_the_exit_status(
    connection_file: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with launched(options_for("target", ssh_config, remote_python), connection_file) as (launcher, client):
        client.execute("import os; os.kill(os.getpid(), 11)")
        assert launcher.wait(15) == 128 + 11
