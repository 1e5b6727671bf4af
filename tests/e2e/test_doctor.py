"""`remote_kernel doctor` on set-ups that are broken in one place each: it names the place, and what to do there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_kernel import bootstrap, errors
from remote_kernel.cli.manager import main
from remote_kernel.doctor import host
from remote_kernel.doctor.finding import STEPS, Finding, State
from remote_kernel.doctor.steps import examine
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.kernelspec.installed import read_kernelspec
from remote_kernel.options import LaunchOptions, parse_forwards
from remote_kernel.remote import survey
from tests.support.kernels import options_for, write_kernelspec
from tests.support.servers import Servers, free_port, make_key


class World(NamedTuple):
    """What a broken set-up is made of, and what undoes it."""

    servers: Servers
    folder: Path
    remote: Path
    good: Path
    bare: Path
    patch: pytest.MonkeyPatch
    undo: ExitStack

    def config(self, *lines: str, **replaced: str) -> Path:
        """Write a client configuration: lines ahead of the usual ones, the values of options replaced."""
        text = self.servers.ssh_config.read_text()
        for old, new in replaced.items():
            found = [line for line in text.splitlines() if line.strip().startswith(old)]
            assert found
            for line in found:
                text = text.replace(line, f"    {old} {new}")
        path = self.folder / "ssh_config"
        path.write_text("\n".join([*lines, text]))
        return path

    def options(self, name: str = "target", *lines: str, forward: str = "", **replaced: str) -> LaunchOptions:
        return options_for(name, self.config(*lines, **replaced), self.good, forward=parse_forwards([forward]))


@pytest.fixture
def world(
    servers: Servers,
    tmp_path: Path,
    remote_folder: Path,
    remote_python: Path,
    bare_python: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    with ExitStack() as undo:
        yield World(servers, tmp_path, remote_folder, remote_python, bare_python, monkeypatch, undo)


def no_program(world: World) -> LaunchOptions:
    world.patch.setenv("REMOTE_KERNEL_SSH", "/nothing/ssh")
    return world.options()


def silent_server(world: World) -> LaunchOptions:
    silent = world.undo.enter_context(socket.create_server(("127.0.0.1", 0)))
    return world.options("silent", "Host silent", f"Port {silent.getsockname()[1]}", *HERE, "ConnectTimeout 1")


def no_ssh_server(world: World) -> LaunchOptions:
    world.undo.enter_context(other := socket.create_server(("127.0.0.1", 0)))
    pid = os.fork()
    if not pid:
        connection, _ = other.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        os._exit(0)
    world.undo.callback(os.waitpid, pid, 0)
    return world.options("web", "Host web", f"Port {other.getsockname()[1]}", *HERE)


def unknown_key(world: World) -> LaunchOptions:
    return world.options(UserKnownHostsFile=str(world.folder / "none"))


def changed_key(world: World) -> LaunchOptions:
    make_key(world.folder / "other")
    key = " ".join((world.folder / "other.pub").read_text().split()[:2])
    (world.folder / "known").write_text(f"[{world.servers.target.host}]:{world.servers.target.port} {key}\n")
    return world.options(UserKnownHostsFile=str(world.folder / "known"))


def wrong_key(world: World) -> LaunchOptions:
    make_key(world.folder / "key")
    return world.options(IdentityFile=str(world.folder / "key"))


def jump_that_forbids(world: World) -> LaunchOptions:
    world.undo.enter_context(world.servers.jump.configured("AllowTcpForwarding no"))
    return world.options("behind")


def closed_shell(world: World) -> LaunchOptions:
    path = world.servers.target.home / ".bashrc"
    path.write_text("echo 'closed for maintenance'; exit 0\n")
    world.undo.callback(path.unlink)
    return world.options()


def program(text: str) -> Callable[[World], LaunchOptions]:
    """Put a script in the place of the interpreter."""

    def broken(world: World) -> LaunchOptions:
        path = world.remote / "python"
        path.write_text(text)
        path.chmod(0o755)
        return world.options()._replace(python=str(path))

    return broken


def locked_key(world: World) -> LaunchOptions:
    path = world.folder / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)
    return world.options(IdentityFile=str(path))


def open_key(world: World) -> LaunchOptions:
    path = world.folder / "open"
    shutil.copy(world.servers.client_key, path)
    path.chmod(0o644)
    return world.options(IdentityFile=str(path))


def configured(*lines: str, name: str = "target", jump: bool = False) -> Callable[[World], LaunchOptions]:
    """Let the target, or the jump host, have these lines in its sshd_config."""

    def broken(world: World) -> LaunchOptions:
        world.undo.enter_context((world.servers.jump if jump else world.servers.target).configured(*lines))
        return world.options(name)

    return broken


def no_common_cipher(world: World) -> LaunchOptions:
    world.undo.enter_context(world.servers.target.configured("Ciphers aes128-ctr"))
    return world.options("target", "Host target", "Ciphers aes256-gcm@openssh.com")


def many_keys(world: World) -> LaunchOptions:
    world.undo.enter_context(world.servers.target.configured("MaxAuthTries 2"))
    for number in range(3):
        make_key(world.folder / f"key{number}")
    keys = [f"IdentityFile {world.folder / f'key{number}'}" for number in range(3)]
    return world.options("target", "Host target", *keys)


def no_shell(world: World) -> LaunchOptions:
    world.undo.enter_context(world.servers.target.login_shell("/usr/sbin/nologin"))
    return world.options()


def changed_key_of_the_jump_host(world: World) -> LaunchOptions:
    make_key(world.folder / "other")
    key = " ".join((world.folder / "other.pub").read_text().split()[:2])
    (world.folder / "known").write_text(f"[{world.servers.jump.host}]:{world.servers.jump.port} {key}\n")
    return world.options("behind", "Host jump", f"UserKnownHostsFile {world.folder / 'known'}")


def full_folder(world: World) -> LaunchOptions:
    """A disk without room: /dev/full takes nothing, but is no folder; a file system of one page is."""
    world.patch.setenv("REMOTE_CONN_DIR", str(world.undo.enter_context(full_disk(world.remote))))
    return world.options()


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """Give a folder on a disk that is full, where this may mount one; else one that is not writable."""
    place = folder / "full"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=1777", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        place.chmod(0o555)
        yield place
        return
    try:
        (place / "file").write_bytes(bytes(4096))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def closed_folder(world: World) -> LaunchOptions:
    world.patch.setenv("REMOTE_CONN_DIR", "/proc/none")
    return world.options()


HERE = ("HostName 127.0.0.1", "StrictHostKeyChecking no")

Fault = tuple[Callable[[World], LaunchOptions], str, type[errors.RemoteKernelError], str, str]

# How it is broken, the step that fails, the kind of error, and words of what is said and of what to do.
BROKEN: dict[str, Fault] = {
    "no such config": (
        lambda world: options_for("target", world.folder / "none", world.good),
        *("config", errors.SshConfigError, "none", "correct the file"),
    ),
    "unknown name": (
        lambda world: world.options("no-such-host.invalid"),
        *("name", errors.UnknownHost, "no-such-host.invalid has no address", "VPN"),
    ),
    "closed port": (
        lambda world: world.options("shut", "Host shut", f"Port {free_port()}", *HERE),
        *("reach", errors.ConnectionRefused, "connection refused", "check the port"),
    ),
    "silent server": (silent_server, "reach", errors.ConnectTimeout, "does not answer", "VPN"),
    "no ssh server": (no_ssh_server, "reach", errors.TransportError, "closed the connection", "SSH server"),
    "jump host down": (
        lambda world: world.options("behind", "Host jump", f"Port {free_port()}"),
        *("reach", errors.JumpHostFailed, "cannot be reached: nothing answers", "check the port"),
    ),
    "jump host unknown": (
        lambda world: world.options("behind", "Host jump", "HostName no-such-jump.invalid"),
        *("name", errors.JumpHostFailed, "no-such-jump.invalid has no address", "VPN"),
    ),
    "nothing behind the jump host": (
        lambda world: world.options("behind", "Host behind", f"Port {free_port()}"),
        *("reach", errors.JumpHostFailed, "cannot reach behind", "as the jump host sees it"),
    ),
    "no forwarding": (jump_that_forbids, "reach", errors.JumpHostFailed, "cannot reach", "AllowTcpForwarding"),
    "unknown host key": (unknown_key, "host key", errors.HostKeyUnknown, "not known", "remote_kernel login target"),
    "changed host key": (changed_key, "host key", errors.HostKeyChanged, "changed", "remote_kernel login target"),
    "wrong key": (
        wrong_key,
        *("login", errors.AuthenticationFailed, "offers publickey, tried: ", "ssh-copy-id"),
    ),
    "closed shell": (closed_shell, "shell", errors.RemoteShellNoise, "closed for maintenance", "rc files"),
    "noise for a Python": (
        program("#!/bin/sh\necho hello\n"),
        *("shell", errors.RemoteShellNoise, "hello", "is a Python"),
    ),
    "no program": (program("not a program\n"), "shell", errors.RemoteShellNoise, "target", "try: "),
    "no such Python": (
        lambda world: world.options()._replace(python="/opt/none/bin/python"),
        *("python", errors.PythonNotFound, "no interpreter '/opt/none/bin/python'", "/usr/bin/python3"),
    ),
    "no ipykernel": (
        lambda world: world.options()._replace(python=str(world.bare)),
        *("ipykernel", errors.KernelNotInstalled, "has no ipykernel", "pip install ipykernel"),
    ),
    "the system's Python": (
        lambda world: world.options()._replace(python="/usr/bin/python3"),
        *("ipykernel", errors.KernelNotInstalled, "has no ipykernel", "-m venv ~/.venv"),
    ),
    "no such kernelspec": (
        lambda world: world.options()._replace(kernel="no-such-kernel"),
        *("ipykernel", errors.RemoteKernelspecNotFound, "no-such-kernel", "it has: "),
    ),
    "no such folder": (
        lambda world: world.options()._replace(workdir="~/no such"),
        *("folder", errors.RemoteError, "no folder '~/no such'", "--workdir"),
    ),
    "key with a passphrase": (
        locked_key,
        *("login", errors.AuthenticationFailed, "has a passphrase", "remote_kernel login target"),
    ),
    "password only": (
        configured("PasswordAuthentication yes", "AuthenticationMethods password"),
        *("login", errors.AuthenticationFailed, "offers password", "remote_kernel login target"),
    ),
    "second factor": (
        configured("KbdInteractiveAuthentication yes", "AuthenticationMethods publickey,keyboard-interactive"),
        *("login", errors.AuthenticationFailed, "keyboard-interactive", "remote_kernel login target"),
    ),
    "user not allowed": (
        configured("AllowUsers somebody_else"),
        *("login", errors.AuthenticationFailed, "tried: ", "load the key into ssh-agent"),
    ),
    "no such user": (
        lambda world: world.options("nobody_of_that_name@target"),
        *("login", errors.AuthenticationFailed, "nobody_of_that_name@target does not let you in", "IdentityFile"),
    ),
    "too many keys": (many_keys, "login", errors.AuthenticationFailed, "too many keys", "IdentitiesOnly yes"),
    "jump host that does not let in": (
        configured("AllowUsers somebody_else", name="behind", jump=True),
        *("login", errors.AuthenticationFailed, "jump host", "IdentityFile"),
    ),
    "jump host's key changed": (
        changed_key_of_the_jump_host,
        *("host key", errors.HostKeyChanged, "jump host", "remote_kernel login behind"),
    ),
    "no shell": (no_shell, "login", errors.AccountRefused, "not available", "ask who runs the server"),
    "forced command": (
        configured("ForceCommand echo only sftp here"),
        *("shell", errors.RemoteShellNoise, "only sftp here", "rc files"),
    ),
    "init that ends": (
        lambda world: world.options()._replace(init="exit 3"),
        *("python", errors.PythonNotFound, "exit status 3", "--init"),
    ),
    "old Python": (
        program("#!/bin/sh\necho 'Unknown option: -I' >&2; exit 2\n"),
        *("python", errors.PythonNotFound, "does not run", "3.8 or later"),
    ),
    "full disk": (full_folder, "sockets", errors.RemoteFolderError, "full", "free some space"),
    "proxy command fails": (
        lambda world: world.options("odd", "Host odd", "ProxyCommand sh -c 'echo no way today >&2; exit 3'", *HERE),
        *("reach", errors.TransportError, "before the login", "SSH server"),
    ),
    "closed folder": (closed_folder, "sockets", errors.RemoteFolderError, "/proc/none", "REMOTE_CONN_DIR"),
}

# What only the ssh program has, or heeds.
BROKEN_SSH: dict[str, Fault] = {
    "no ssh program": (no_program, "ssh", errors.SshNotFound, "/nothing/ssh", "install the OpenSSH client"),
    "bad option": (
        lambda world: world.options("target", "Host target", "Colour blue"),
        *("config", errors.SshConfigError, "colour", "correct the file"),
    ),
    "no cipher in common": (
        no_common_cipher,
        *("reach", errors.TransportError, "cipher", "Ciphers"),
    ),
}


def in_order(findings: list[Finding]) -> list[str]:
    return [finding.step for finding in sorted(findings, key=lambda finding: STEPS.index(finding.step))]


@pytest.mark.over_both("no such config", "closed port", "wrong key", "jump host's key", "second factor", "no shell")
@pytest.mark.parametrize("fault", BROKEN)
def test_fault_is_named_and_mended_in_words(world: World, fault: str) -> None:
    is_named_and_mended_in_words(world, *BROKEN[fault])


@pytest.mark.openssh_only
@pytest.mark.parametrize("fault", BROKEN_SSH)
def test_fault_of_ssh_is_named_and_mended_in_words(world: World, fault: str) -> None:
    is_named_and_mended_in_words(world, *BROKEN_SSH[fault])


def is_named_and_mended_in_words(
    world: World, broken: Callable[[World], LaunchOptions], step: str, kind: type, says: str, hint: str
) -> None:
    findings = list(examine(broken(world), start=True))

    (bad,) = [finding for finding in findings if finding.state is State.FAILED]
    assert (bad.step, bad.error) == (step, kind), bad
    assert says in bad.text
    assert hint in bad.hint
    assert all("makes one" not in finding.hint for finding in findings)  # nothing can be added before that is mended
    assert set(in_order(findings)) == set(STEPS)
    for finding in findings:  # nothing that needs what is broken is called good
        if finding.step in ("kernel", "cell"):
            assert finding.state is State.UNKNOWN
    if bad.error and issubclass(bad.error, errors.TransportError):
        behind = [f for f in findings if STEPS.index(f.step) > STEPS.index(step)]
        assert {finding.state for finding in behind} == {State.UNKNOWN}


@pytest.mark.openssh_only
def test_what_paramiko_cannot_do_is_a_warning_of_the_config_alone(world: World) -> None:
    options = world.options("target", "Host target", "Compression yes")._replace(transport="paramiko")
    warned = [finding for finding in examine(options) if finding.state is State.WARNING]
    (found,) = [finding for finding in warned if finding.step in ("config", "kernel")]
    assert (found.step, found.text.endswith("not honoured: compression yes")) == ("config", True)


def test_kernel_that_dies_is_the_step_that_fails(world: World) -> None:
    (world.remote / "ipykernel_launcher.py").write_text("import libcuda_that_is_not_there\n")
    findings = list(examine(world.options()._replace(env=(("PYTHONPATH", str(world.remote)),))))
    (bad,) = [finding for finding in findings if finding.state is State.FAILED]
    assert (bad.step, bad.error) == ("kernel", errors.KernelDied)
    assert "libcuda_that_is_not_there" in bad.text


@pytest.mark.openssh_only
def test_single_session_is_a_warning(world: World) -> None:
    with world.servers.target.configured("MaxSessions 1"):
        findings = {finding.step: finding for finding in examine(world.options(), start=False)}
    assert findings["sessions"].state is State.WARNING
    assert "MaxSessions" in findings["sessions"].text


@pytest.mark.over_both
def test_healthy_host_is_all_good_and_soon(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(world.folder / "kernels"))
    monkeypatch.setenv("JUPYTER_PATH", str(world.folder))
    write_kernelspec(world.folder / "kernels", "mine", world.options("behind"))
    began = time.monotonic()
    status = main(["doctor", "mine", "--json"])
    took = time.monotonic() - began
    findings = {found["step"]: found for found in json.loads(capfd.readouterr().out)}
    assert status == 0
    assert {found["state"] for found in findings.values()} == {"ok"}, findings
    for step in ("ssh", "config", "reach", "login", "python", "kernel", "cell"):
        assert findings[step]["seconds"] > 0, step
    for server in world.servers:  # every hop
        assert f"port {server.port}" in findings["reach"]["text"]
        assert f"{server.port} shows ssh-ed25519 SHA256:" in findings["host key"]["text"]
        assert f"{server.port} lets in by publickey" in findings["login"]["text"]
    assert took - findings["kernel"]["seconds"] < 20  # 3 s where nothing else runs


def login_of(options: LaunchOptions) -> Finding:
    return next(finding for finding in examine(options, start=False) if finding.step == "login")


@pytest.mark.openssh_only
def test_alias_that_moves_is_examined_where_it_leads_now(world: World) -> None:
    options = world.options()
    for hint in ("", "'remote_kernel logout target' ends it"):
        assert hint in login_of(options).hint
    moved = world.options(Port=str(world.servers.jump.port))
    assert f":{world.servers.jump.port} lets in by publickey" in login_of(moved).text


@pytest.mark.openssh_only
def test_users_own_shared_connection_is_said_to_be_as_old_as_it_is(world: World) -> None:
    own = ("Host target", f"ControlPath {world.folder}/%n", "ControlMaster auto", "ControlPersist 9")
    options = world.options("target", *own)
    login_of(options)
    found = login_of(options)
    command = ["ssh", "-O", "exit", "-F", options.ssh_config, "target"]
    subprocess.run(command, check=True, capture_output=True)
    assert "leads where it was made to" in found.text
    assert f"'{' '.join(command)}' ends it" in found.hint


@pytest.mark.openssh_only
def test_exit_status_is_that_of_the_step(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    config = str(world.config())
    assert main(["doctor", "target", "--ssh-config", config, "--python", "/opt/none/python"]) == 41
    said = capfd.readouterr().out
    assert "✗ python" in said
    assert said.splitlines()[-1] == "? not reached: ipykernel, folder, kernel, cell, vs code"


@pytest.mark.openssh_only
def test_server_that_refuses_is_asked_once_for_all_its_kernelspecs(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(world.folder / "kernels"))
    refused = wrong_key(world)
    for slug in ("one", "two"):
        write_kernelspec(world.folder / "kernels", slug, refused._replace(workdir=slug))
    seen = world.servers.target.log_text().count("Connection closed by authenticating user")
    assert main(["doctor", "--json"]) == errors.AuthenticationFailed.exit_status
    found = [one for one in json.loads(capfd.readouterr().out) if one["step"] in ("reach", "login", "vs code")]
    assert [(one["name"], one["step"], one["state"]) for one in found] == [
        *(("one", "reach", "ok"), ("one", "login", "failed"), ("one", "vs code", "warning")),
        *(("two", "login", "failed"), ("two", "vs code", "warning"), ("two", "reach", "unknown")),
    ]
    assert found[3]["text"] == f"{found[1]['text']}; not tried again after one"
    assert found[3]["hint"] == found[1]["hint"]
    log = world.servers.target.log_text()
    assert log.count("Connection closed by authenticating user") == seen + 1


def test_init_that_hangs_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = survey.__name__.removeprefix("remote_kernel.")
    text = f"INIT_SECONDS = {survey.INIT_SECONDS}"
    source = bootstrap._source(shipped)
    assert text in source
    monkeypatch.setitem(bootstrap._read_ahead, shipped, source.replace(text, "INIT_SECONDS = 1.0"))
    options = world.options()._replace(init="sleep 1234.5")
    words = "with --init 'sleep 1234.5' has no end within 1 s"
    with pytest.raises(errors.RemoteError, match=words):
        probe(options)
    findings = {finding.step: finding for finding in examine(options, start=False)}
    assert findings["init"].state is State.WARNING
    assert words in findings["python"].text


def test_init_that_fails_is_a_warning(world: World) -> None:
    options = world.options()._replace(init="echo loading; no_such_module load cuda")
    findings = {finding.step: finding for finding in examine(options, start=False)}
    assert findings["init"].state is State.WARNING
    assert "status 127" in findings["init"].text
    assert "no_such_module" in findings["init"].text
    assert findings["python"].state is State.OK


@pytest.mark.openssh_only
def test_taken_port_is_a_warning(world: World) -> None:
    taken = world.undo.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
    findings = {f.step: f for f in examine(world.options(forward=f"{taken}:6006"), start=False)}
    assert findings["forward"].state is State.WARNING
    assert f"port {taken} of this machine is in use" in findings["forward"].text
    assert "LOCAL:PORT" in findings["forward"].hint


@pytest.mark.openssh_only
def test_settings_that_cannot_be_read_are_the_step_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with kernelspec_called(tmp_path, "mine", "Mine", monkeypatch) as path:
        text = (path / "kernel.json").read_text()
        (path / "kernel.json").write_text(text.replace('"-f"', '"--env", "1BAD=2", "-f"'))
        for words in (["mine"], []):
            assert main(["doctor", *words]) == 2
            said = capfd.readouterr().out
            assert "✗ config" in said
            assert "'1BAD=2' is not a variable" in said
            assert str(path / "kernel.json") in said


@contextmanager
def kernelspec_called(folder: Path, slug: str, display_name: str, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    patch.setenv("LOCAL_KERNELS_DIR", str(folder / "kernels"))
    patch.setenv("JUPYTER_PATH", str(folder))
    path = write_kernelspec(folder / "kernels", slug, options_for("target", folder / "none", "python3"))
    document = json.loads((path / "kernel.json").read_text())
    (path / "kernel.json").write_text(json.dumps({**document, "display_name": display_name}))
    yield path


@pytest.mark.parametrize(("slug", "name"), [("python3", "Mine"), ("mine", "Python 3 (ipykernel)")])
@pytest.mark.openssh_only
def test_kernelspec_that_vs_code_hides_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slug: str, name: str
) -> None:
    with kernelspec_called(tmp_path, slug, name, monkeypatch) as path:
        spec = read_kernelspec(path)
        assert spec and spec.options
        (found,) = [f for f in examine(spec.options, spec) if f.step == "vs code"]
    assert found.state is State.WARNING
    assert "--name" in found.hint


SEEN = {
    "errors": {},
    "seconds": {},
    "survey": {
        "python": "/p",
        "python_version": "3.11",
        "ipykernel_version": "7.3.1",
        "is_the_systems": False,
        "kernelspec": None,
    },
    "folder": "/tmp/r/x",
    "disks": [("/tmp", 5 << 30)],
    "scope": True,
    "kills": False,
    "lingers": False,
    "systemd": True,
    "clock": 100.0,
}


@pytest.mark.parametrize(
    ("change", "step", "state"),
    [
        ({}, "logout", State.OK),
        ({"kills": True}, "logout", State.WARNING),
        ({"kills": True, "lingers": True}, "logout", State.OK),
        ({"disks": [("/tmp", 1 << 20)]}, "disk", State.WARNING),
        ({"disks": []}, "disk", State.UNKNOWN),
        ({"clock": 100.9}, "clock", State.OK),
        ({"clock": 3700.0}, "clock", State.WARNING),
        ({"clock": 10.0}, "clock", State.WARNING),
    ],
)
@pytest.mark.openssh_only
def test_what_the_host_tells(change: dict[str, object], step: str, state: State) -> None:
    options = LaunchOptions(options_for("x", Path("none"), "python3").endpoint)
    findings = host.look(options, {**SEEN, **change}, "", 99.0, 101.0)
    (found,) = [finding for finding in findings if finding.step == step]
    assert found.state is state
    assert bool(found.hint) == (state is State.WARNING)
