"""What every transport promises: the remote command's bytes, its exit status, its stderr, and how each fault ends."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from remote_kernel import errors
from remote_kernel.errors import RemoteKernelError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, masters, openssh, ssh_config
from remote_kernel.transport.carrier import Carrier
from remote_kernel.transport.ssh_errors import explain
from tests.support.kernels import options_for, wait_until
from tests.support.relay import relay_to
from tests.support.servers import Server, Servers, free_port, is_alive, make_key

TRANSPORTS = ("openssh", "paramiko")
WAYS = ("target", "behind", "far")
MEGABYTE = 1 << 20


class Way(NamedTuple):
    """A transport and where it leads to."""

    transport: str
    host: str
    ssh_config: Path

    def options(self, **more: object) -> LaunchOptions:
        return options_for(self.host, self.ssh_config, "python3", transport=self.transport, **more)

    def argv(self, command: str) -> list[str]:
        return choice.carrier_argv(self.options(), command)

    def run(self, command: str, data: bytes = b"", seconds: float = 60) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(command),
            input=data,
            capture_output=True,
            timeout=seconds,
            env=choice.environment(self.options()),
            check=False,
        )

    def run_anew(self, command: str) -> subprocess.CompletedProcess[bytes]:
        """Run over a connection of its own: ssh's shared one would not ask again who anybody is."""
        options = self.options()
        masters.end_masters(options)
        return self.run(command)

    @contextmanager
    def opened(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self.argv(command), stdin=pipe, stdout=pipe, stderr=pipe, env=choice.environment(self.options()), bufsize=0
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def contract_config(tmp_path: Path, servers: Servers) -> Path:
    """Give a configuration with `far`, the target through the jump host and the target itself."""
    path = tmp_path / "contract_config"
    target = servers.target
    path.write_text(
        f"Host far\n    HostName {target.host}\n    Port {target.port}\n    ProxyJump jump,middle\n"
        f"Host middle\n    HostName {target.host}\n    Port {target.port}\n{servers.ssh_config.read_text()}"
    )
    return path


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, transport: str, contract_config: Path) -> Way:
    return Way(transport, request.param, contract_config)


@pytest.fixture
def direct(transport: str, contract_config: Path) -> Way:
    return Way(transport, "target", contract_config)


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


# -- bytes


def test_bytes_come_back_intact(way: Way) -> None:
    data = bytes(range(256)) * 4096 + os.urandom(3 * MEGABYTE + 1)
    done = way.run("cat", data)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout == data


@pytest.mark.parametrize("megabytes", [50, pytest.param(200, marks=pytest.mark.nightly)])
def test_bulk_is_intact_each_way(way: Way, megabytes: int) -> None:
    block = os.urandom(MEGABYTE)
    sent = way.run("sha256sum", block * megabytes, seconds=110)
    assert sent.stdout.split()[:1] == [hashlib.sha256(block * megabytes).hexdigest().encode()]
    program = f"import sys;[sys.stdout.buffer.write(bytes(range(256))*4096) for _ in range({megabytes})]"
    received = way.run(f"python3 -c '{program}'", seconds=110)
    assert received.returncode == 0
    assert hashlib.sha256(received.stdout).digest() == hashlib.sha256(bytes(range(256)) * 4096 * megabytes).digest()


def test_both_ways_at_once_do_not_wait_for_each_other(way: Way) -> None:
    # More than any window: a transport that sends before it reads stands still here.
    data = os.urandom(MEGABYTE) * 24
    with way.opened("cat") as process:
        assert process.stdin
        assert process.stdout
        writer = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close()))  # type: ignore
        writer.start()
        found = hashlib.sha256()
        while block := process.stdout.read(MEGABYTE):
            found.update(block)
        writer.join(30)
        assert process.wait(10) == 0
    assert found.digest() == hashlib.sha256(data).digest()


def test_small_messages_do_not_stall(way: Way) -> None:
    with way.opened("cat") as process:
        assert process.stdin
        assert process.stdout
        seconds = []
        for _ in range(60):
            begun = time.monotonic()
            process.stdin.write(b"x" * 100)
            process.stdin.write(b"y" * 100)  # Nagle's algorithm would hold this one back
            got = 0
            while got < 200:
                got += len(process.stdout.read(200 - got) or b"")
            seconds.append(time.monotonic() - begun)
    assert sorted(seconds)[len(seconds) // 2] < 0.03, sorted(seconds)


# -- status, stderr, ends


@pytest.mark.parametrize("status", [0, 1, 42, 254])
def test_exit_status_is_the_commands(direct: Way, status: int) -> None:
    assert direct.run(f"exit {status}").returncode == status


def test_stderr_stays_apart(way: Way) -> None:
    done = way.run("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


def test_command_ended_by_a_signal_is_not_a_success(direct: Way) -> None:
    assert direct.run("kill -TERM $$").returncode not in (0, None)


FOR_A_PERSON = (
    *("RequestTTY force", "RemoteCommand echo other", "SessionType none", "SessionType subsystem", "StdinNull yes"),
    *("ForkAfterAuthentication yes", "Tunnel yes", "EscapeChar ~", "LocalForward 1 localhost:1", "ForwardX11 yes"),
    "LocalCommand echo other\nPermitLocalCommand yes",
)


@pytest.mark.parametrize("setting", FOR_A_PERSON)
def test_what_a_config_sets_for_a_persons_session_is_not_meant_for_ours(
    setting: str, target: Server, config: Callable[..., Path]
) -> None:
    way = Way("openssh", "target", config(setting))
    options = way.options()
    data = b"\n~.\n\0\r\x03 as it is"
    logged_in = subprocess.run(openssh.login_argv(options, 60, asks=False), capture_output=True, timeout=20)
    assert (logged_in.returncode, logged_in.stdout, logged_in.stderr) == (0, b"", b"")
    done = way.run("cat; echo ended", data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data + b"ended\n", b"")
    with subprocess.Popen(choice.subsystem_argv(options, "sftp"), stdin=-1, stdout=-1, bufsize=0) as sftp:
        assert sftp.stdin and sftp.stdout
        sftp.stdin.write(b"\0\0\0\5\1\0\0\0\3")
        assert (sftp.stdout.read(9) or b"")[4:] == b"\2\0\0\0\3"
    reach = openssh.reach_argv(options, target.host, target.port)
    banner = subprocess.run(reach, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert banner.stdout.startswith(b"SSH-2.0-")


def test_refusal_that_names_no_file_is_shown_with_the_command_that_tells_it(config: Callable[..., Path]) -> None:
    path = config("ControlPath %z")
    with pytest.raises(errors.SshConfigError, match="unknown key %z") as caught:
        choice.carrier_argv(options_for("target", path, ""), "true")
    assert caught.value.hint == f"try: ssh -T -G -oRemoteCommand=none -F {path} target true"


def test_environment_there_is_what_plain_ssh_gives(
    transport: str, target: Server, config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Debian and Ubuntu have it: the server takes the client's language.
    lines = ("SendEnv LANG LC_*", "SendEnv RK_A* RK_GONE", "SendEnv -RK_G*", 'SetEnv RK_SET="two words" RK_AND=more')
    path = config("Host target", *lines)
    monkeypatch.delenv("LC_ALL", raising=False)
    for name in ("LANG", "LC_CTYPE"):
        monkeypatch.setenv(name, "C.UTF-8")
    for name in ("RK_A1", "RK_GONE", "RK_OTHER"):
        monkeypatch.setenv(name, "x")
    way = Way(transport, "target", path)
    with target.configured("AcceptEnv LANG LC_* RK_*"):
        plain = subprocess.run(["ssh", "-F", path, "target", "env"], capture_output=True, text=True, check=True).stdout
        terminal = choice.session_argv(way.options(), "env", terminal=False)
        for argv in (way.argv("env"), terminal):
            done = subprocess.run(argv, capture_output=True, text=True, env=choice.environment(way.options()))
            assert variables(done.stdout) == variables(plain)
    assert variables(plain) >= {"LANG=C.UTF-8", "RK_A1=x", "RK_SET=two words", "RK_AND=more"}
    assert not any(line.startswith(("LC_ALL=", "RK_GONE", "RK_OTHER")) for line in variables(plain))


def variables(printed: str) -> set[str]:
    return {line for line in printed.splitlines() if not line.startswith(("SSH_C", "_="))}


def test_end_of_input_is_passed_on_and_output_goes_on(way: Way) -> None:
    done = way.run("cat >/dev/null; sleep 0.3; echo after", b"data")
    assert (done.returncode, done.stdout) == (0, b"after\n")


def test_end_of_output_does_not_end_the_command(direct: Way) -> None:
    with direct.opened("exec 1>&- 2>&-; read line; exit 7") as process:
        assert process.stdin
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.write(b"go\n")
        assert process.wait(10) == 7


def test_command_that_reads_nothing_ends_it(direct: Way) -> None:
    with direct.opened("exit 5") as process:
        assert process.wait(20) == 5  # its own stdin is still open


def test_reader_that_has_gone_ends_nothing_by_itself(direct: Way, target: Server) -> None:
    # The launcher was killed: the remote side is to see the end of its input and no more.
    with direct.opened("echo up; cat >/dev/null; echo down; exit 0") as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.read(3) == b"up\n"
        process.stdout.close()
        process.stdin.close()
        assert process.wait(10) in (0, 255)


def test_carrier_ends_when_its_parent_is_killed(direct: Way) -> None:
    launcher = (
        "import os, sys, time\nfrom remote_kernel.transport.carrier import Carrier\n"
        "c = Carrier(sys.argv[1:], os.environ)\n"
        "print(c._group, os.read(c.stdout, 3).decode(), flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", launcher, *direct.argv("echo up; cat")], stdout=-1, text=True) as one:
        assert one.stdout
        group = int(one.stdout.readline().split()[0])
        one.kill()
    assert wait_until(lambda: not _group(group), 10)


def _group(number: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == number and is_alive(process) and "ControlPersist" not in str(process):
                found.append(process)
        except ProcessLookupError:
            continue
    return found


# -- faults while it runs


def test_killed_server_ends_it_with_255(way: Way, servers: Servers) -> None:
    with way.opened("echo up; cat") as process:
        assert process.stdout
        assert process.stdout.read(3) == b"up\n"
        servers.target.kill_sessions()
        assert process.wait(15) == 255


@pytest.mark.parametrize("flow", ["idle", "receiving", "sending"])
def test_frozen_network_ends_it(transport: str, flow: str, tmp_path: Path, target: Server, ssh_config: Path) -> None:
    with relay_to(target, ssh_config, tmp_path) as (relay, path):
        path.write_text(f"ServerAliveInterval 1\nServerAliveCountMax 2\n{path.read_text()}")
        command = "echo up; yes" if flow == "receiving" else "echo up; cat >/dev/null"
        with Way(transport, "target", path).opened(command) as process, pumped(process, flow) as moved:
            if flow == "idle":
                time.sleep(4)  # longer than the patience with a server: idle is not frozen
                assert process.poll() is None
            else:
                assert wait_until(lambda: moved() > 2 * MEGABYTE)
            relay.freeze()
            begun = time.monotonic()
            assert process.wait(20) == 255
            assert 1 < time.monotonic() - begun < 10
            relay.thaw()


@contextmanager
def pumped(process: subprocess.Popen[bytes], flow: str) -> Iterator[Callable[[], int]]:
    """Wait for the command, then read all it prints or write without end; give how many bytes have moved so far."""
    assert process.stdin
    assert process.stdout
    reading, writing = process.stdout.fileno(), process.stdin.fileno()
    assert os.read(reading, 3) == b"up\n"
    moved = [0]

    def pump() -> None:
        try:
            while count := len(os.read(reading, 65536)) if flow == "receiving" else os.write(writing, bytes(65536)):
                moved[0] += count
        except OSError:
            pass  # it has ended

    thread = threading.Thread(target=pump)
    if flow != "idle":
        thread.start()
    yield lambda: moved[0]
    process.kill()
    if flow != "idle":
        thread.join(10)


def test_carrier_that_is_killed_leaves_nothing(way: Way) -> None:
    carrier = Carrier(way.argv("echo up; cat"), choice.environment(way.options()))
    assert os.read(carrier.stdout, 3) == b"up\n"
    carrier.kill()
    carrier.close()


# -- faults on the way there


def fails(
    kind: type[RemoteKernelError], options: LaunchOptions, *says: str, within: float = 10.0, traceless: bool = True
) -> str:
    begun = time.monotonic()
    done = subprocess.run(
        choice.carrier_argv(options, "true"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=choice.environment(options),
        check=False,
    )
    assert time.monotonic() - begun < within
    assert done.returncode == 255, done
    assert "Traceback" not in done.stderr
    stderr = choice.complete_stderr(options, done.stderr)
    found = explain(options, stderr, done.returncode, b"")
    assert type(found) is kind, done.stderr
    for text in says:
        assert text in str(found)
    return done.stderr


def login_command(options: LaunchOptions) -> str:
    """Give what a hint tells a person to run."""
    return f"{options.login_command()}' in a terminal"


def test_unknown_name(transport: str, ssh_config: Path) -> None:
    options = options_for("no-such-host.invalid", ssh_config, "", transport=transport)
    fails(errors.UnknownHost, options, "no-such-host.invalid has no address")


def test_closed_port(transport: str, config: Callable[..., Path]) -> None:
    path = config("Host closed", "HostName 127.0.0.1", f"Port {free_port()}")
    fails(errors.ConnectionRefused, options_for("closed", path, "", transport=transport), "closed")


def test_silent_server(transport: str, config: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = config("Host silent", "HostName 127.0.0.1", f"Port {silent.getsockname()[1]}", "ConnectTimeout 2")
        options = options_for("silent", path, "", transport=transport)
        fails(errors.ConnectTimeout, options, "silent does not answer", within=6)


def test_wrong_key(transport: str, tmp_path: Path, config: Callable[..., Path]) -> None:
    make_key(tmp_path / "key")
    options = options_for("target", config(IdentityFile=str(tmp_path / "key")), "", transport=transport)
    fails(errors.AuthenticationFailed, options, "permission denied (publickey)")


def test_key_with_a_passphrase(transport: str, tmp_path: Path, config: Callable[..., Path]) -> None:
    secret = "a secret of the test"
    make_key(tmp_path / "key")
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", secret, "-f", str(tmp_path / "key")]
    subprocess.run(command, check=True, capture_output=True)
    options = options_for("target", config(IdentityFile=str(tmp_path / "key")), "", transport=transport)
    says = ("permission denied (publickey)", f"the key {tmp_path / 'key'} has a passphrase", login_command(options))
    assert secret not in fails(errors.AuthenticationFailed, options, *says)


def test_unknown_host_key(transport: str, tmp_path: Path, target: Server, config: Callable[..., Path]) -> None:
    options = options_for("target", config(UserKnownHostsFile=str(tmp_path / "none")), "", transport=transport)
    logins = target.log_text().count("Accepted")
    fails(errors.HostKeyUnknown, options, "host key of target is not known", "fingerprint", login_command(options))
    assert target.log_text().count("Accepted") == logins
    assert not (tmp_path / "none").exists()


def test_changed_host_key(transport: str, tmp_path: Path, target: Server, config: Callable[..., Path]) -> None:
    make_key(tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[{target.host}]:{target.port} {key}\n")
    options = options_for("target", config(UserKnownHostsFile=str(tmp_path / "known")), "", transport=transport)
    logins = target.log_text().count("Accepted")
    fails(errors.HostKeyChanged, options, "host key of target has changed", login_command(options))
    assert target.log_text().count("Accepted") == logins


@pytest.mark.parametrize("changed", ["jump", "target"])
def test_changed_host_key_is_no_connection_on_the_way(
    transport: str, changed: str, tmp_path: Path, servers: Servers, config: Callable[..., Path]
) -> None:
    make_key(tmp_path / "other")
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    keys = {server.name: other if server.name == changed else server.host_key for server in servers}
    (tmp_path / "known").write_text("".join(f"[{s.host}]:{s.port} {keys[s.name]}\n" for s in servers))
    server = next(server for server in servers if server.name == changed)
    logins = server.log_text().count("Accepted")
    options = options_for("behind", config(UserKnownHostsFile=str(tmp_path / "known")), "", transport=transport)
    who = "jump host" if changed == "jump" else "the host key of behind"
    fails(errors.HostKeyChanged, options, "has changed (SHA256:", who, login_command(options))
    assert server.log_text().count("Accepted") == logins


@pytest.mark.parametrize("missing", ["jump", "target"])
def test_no_host_key_is_no_connection_on_the_way(
    transport: str, missing: str, tmp_path: Path, servers: Servers, config: Callable[..., Path]
) -> None:
    known = [server for server in servers if server.name != missing]
    (tmp_path / "known").write_text("".join(f"[{s.host}]:{s.port} {s.host_key}\n" for s in known))
    unknown = next(server for server in servers if server.name == missing)
    logins = unknown.log_text().count("Accepted")
    options = options_for("behind", config(UserKnownHostsFile=str(tmp_path / "known")), "", transport=transport)
    fails(errors.HostKeyUnknown, options, "is not known here", "jump host" if missing == "jump" else "behind")
    assert unknown.log_text().count("Accepted") == logins


def test_hashed_known_hosts(transport: str, tmp_path: Path, servers: Servers, config: Callable[..., Path]) -> None:
    (tmp_path / "known").write_text(servers.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(tmp_path / "known")], check=True, capture_output=True)
    assert servers.target.host not in (tmp_path / "known").read_text()
    way = Way(transport, "behind", config(UserKnownHostsFile=str(tmp_path / "known")))
    assert way.run("exit 4").returncode == 4


@pytest.fixture
def sshd_file(target: Server, remote_folder: Path) -> Callable[..., Path]:
    """Give a function that makes a key of a type where the target's sshd can read it."""

    def make(kind: str) -> Path:
        path = remote_folder / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True, capture_output=True)
        for file in (path, path.with_suffix(".pub")):
            os.chown(file, target.account.uid, target.account.gid)
        return path

    return make


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside ed25519"])
def test_host_key_of_another_type(
    transport: str,
    kind: str,
    alone: bool,
    tmp_path: Path,
    target: Server,
    config: Callable[..., Path],
    sshd_file: Callable[..., Path],
) -> None:
    # Of several host keys the one on record has to be asked for, whatever the server likes best.
    key = sshd_file(kind)
    name = f"[{target.host}]:{target.port}"
    (tmp_path / "known").write_text(f"{name} {key.with_suffix('.pub').read_text()}")
    way = Way(transport, "target", config(UserKnownHostsFile=str(tmp_path / "known")))
    names = "rsa-sha2-512,rsa-sha2-256" if kind == "rsa" else "ecdsa-sha2-nistp256"
    with target.configured(f"HostKey {key}", *([f"HostKeyAlgorithms {names}"] if alone else [])):
        assert way.run_anew("exit 4").returncode == 4
    make_key(tmp_path / "other")
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"{name} {other}\n")
    with target.configured(f"HostKey {key}", f"HostKeyAlgorithms {names}"):
        done = way.run_anew("exit 4")  # a key of another type than the one on record is not a known one
    assert (done.returncode, b"Host key verification failed" in done.stderr) == (255, True)


@pytest.fixture
def agent(tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an ssh-agent that has the client's key."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert wait_until(path.exists)
        subprocess.run(["ssh-add", "-q", servers.client_key], check=True)
        yield
        process.terminate()


@pytest.mark.parametrize("named", [True, False], ids=["named", "any"])
def test_key_of_the_agent(
    transport: str, agent: None, named: bool, tmp_path: Path, servers: Servers, config: Callable[..., Path]
) -> None:
    # With IdentitiesOnly the agent's key counts if its public half is named: the private one is nowhere else.
    (tmp_path / "half.pub").write_text(servers.client_key.with_suffix(".pub").read_text())
    only = "yes" if named else "no"
    path = config(IdentityFile=str(tmp_path / ("half" if named else "none")), IdentitiesOnly=only)
    assert Way(transport, "target", path).run_anew("exit 4").returncode == 4


def test_certificate(
    transport: str, tmp_path: Path, target: Server, config: Callable[..., Path], sshd_file: Callable[..., Path]
) -> None:
    authority = sshd_file("ed25519")
    make_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "test", "-n", target.user, tmp_path / "key.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    path = config(IdentityFile=str(tmp_path / "key"))
    trusted = f"TrustedUserCAKeys {authority.with_suffix('.pub')}"
    with target.configured("AuthorizedKeysFile none", trusted):
        assert Way(transport, "target", path).run_anew("exit 4").returncode == 4
        (tmp_path / "key-cert.pub").rename(tmp_path / "elsewhere-cert.pub")
        assert Way(transport, "target", path).run_anew("exit 4").returncode == 255
        named = config(f"CertificateFile {tmp_path / 'elsewhere-cert.pub'}", IdentityFile=str(tmp_path / "key"))
        assert Way(transport, "target", named).run_anew("exit 4").returncode == 4


def test_accept_new_remembers(transport: str, tmp_path: Path, target: Server, config: Callable[..., Path]) -> None:
    path = config(UserKnownHostsFile=str(tmp_path / "new"), StrictHostKeyChecking="accept-new")
    assert Way(transport, "target", path).run("exit 4").returncode == 4
    assert target.host_key in (tmp_path / "new").read_text()


def test_jump_host_that_is_down(transport: str, target: Server, config: Callable[..., Path]) -> None:
    options = options_for("behind", config("Host jump", f"Port {free_port()}"), "", transport=transport)
    fails(errors.JumpHostFailed, options, "refused")


def test_jump_host_that_cannot_reach_the_target(transport: str, target: Server, config: Callable[..., Path]) -> None:
    options = options_for("behind", config("Host behind", f"Port {free_port()}"), "", transport=transport)
    fails(errors.JumpHostFailed, options, "cannot reach behind", "connection refused")


def test_jump_host_that_forbids_forwarding(transport: str, jump: Server, target: Server, ssh_config: Path) -> None:
    with jump.configured("AllowTcpForwarding no"):
        options = options_for("behind", ssh_config, "", transport=transport)
        fails(errors.JumpHostFailed, options, "cannot reach behind", "prohibited")


def test_jump_host_that_does_not_let_in(transport: str, servers: Servers, config: Callable[..., Path]) -> None:
    with servers.jump.configured("AuthorizedKeysFile none"):
        fails(errors.AuthenticationFailed, options_for("behind", servers.ssh_config, "", transport=transport), "jump")


def test_proxy_command(transport: str, target: Server, config: Callable[..., Path], remote_python: Path) -> None:
    program = (
        "import os, socket, sys, threading; s = socket.create_connection((sys.argv[1], int(sys.argv[2])));"
        "threading.Thread(target=lambda: [os.write(1, b) for b in iter(lambda: s.recv(65536), bytes())], daemon=True)"
        ".start(); [s.sendall(b) for b in iter(lambda: os.read(0, 65536), bytes())]"
    )
    line = f"    ProxyCommand python3 -c '{program}' %h %p"
    assert Way(transport, "target", config("Host target", line)).run("cat", b"through").stdout == b"through"


def test_alias_may_have_any_signs_that_ssh_takes(transport: str, target: Server, config: Callable[..., Path]) -> None:
    names = ("work=gpu", "~gpu", "lab/gpu", "büro", "gpu:1")
    lines = [f"Host {name}\n HostName {target.host}\n Port {target.port}" for name in names]
    path = config(*lines, "Host gpu", "HostName 127.0.0.1", f"Port {free_port()}")
    for name in names:
        way = Way(transport, name, path)
        assert way.run("exit 4").returncode == 4, name
        assert str(way.options().endpoint) == name
        masters.end_masters(way.options())
    options = options_for("gpu:2", path, "", transport=transport)  # no alias: a port
    assert ssh_config.destination(options)[-3:] == ["-p", "2", "gpu"]


@pytest.mark.parametrize("changed", ["port", "user", "identity", "jump host", "ProxyCommand"])
def test_alias_leads_where_its_configuration_says_now(changed: str, servers: Servers, tmp_path: Path) -> None:
    # Per-job host entries: a connection that is up is shared by those that would go the same way, and by no others.
    target, jump = servers
    path = tmp_path / "moving"
    way = Way("openssh", "alias", path)

    def server_reached(port: int, user: str = target.user, key: Path = servers.client_key, nearest: int = 0) -> str:
        by = {
            "jump host": "ProxyJump nearest",
            "ProxyCommand": f"ProxyCommand ssh -F {path} -W %h:%p nearest",
        }.get(changed, "")
        usual = servers.ssh_config.read_text().partition("Host *")[2]
        path.write_text(
            f"Host nearest\n HostName {target.host}\n Port {nearest or target.port}\n"
            f"Host alias\n HostName {target.host}\n Port {port}\n User {user}\n {by}\n"
            f"Host *{usual.replace(str(servers.client_key), str(key))}"
        )
        return way.run("echo $SSH_CONNECTION").stdout.decode().rpartition(" ")[2].strip()

    logins = jump.log_text().count("Accepted publickey")
    assert server_reached(target.port) == str(target.port)
    first = masters.master_pid(way.options())
    assert first
    path.write_text(f"{path.read_text()} SetEnv RK=1\n LocalForward 1 localhost:1\n")
    assert masters.master_pid(way.options()) == first  # what each session has for itself changes nothing
    if changed == "port":
        assert server_reached(jump.port) == str(jump.port)
    elif changed == "user":
        assert server_reached(target.port, user="nobody") == ""
    elif changed == "identity":
        assert server_reached(target.port, key=tmp_path / "none") == ""
    else:
        assert server_reached(target.port, nearest=jump.port) == str(target.port)
        assert jump.log_text().count("Accepted publickey") == logins + 1
    assert len(masters.end_masters(way.options())) == (1 if changed in ("user", "identity") else 2)
    assert not masters.end_masters(way.options())


def test_missing_configuration_file(transport: str, tmp_path: Path) -> None:
    options = options_for("target", tmp_path / "none", "", transport=transport)
    if transport == "openssh":
        with pytest.raises(errors.SshConfigError):
            choice.carrier_argv(options, "true")
    else:
        fails(errors.SshConfigError, options)


def test_terminated_carrier_is_not_a_success(direct: Way) -> None:
    with direct.opened("echo up; cat") as process:
        assert process.stdout
        assert process.stdout.read(3) == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) != 0
