"""`remote_kernel doctor` on set-ups that are broken in one place each: it names the place, and what to do there."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_kernel import errors
from remote_kernel.cli.manager import main
from remote_kernel.doctor import host
from remote_kernel.doctor.examination import examine
from remote_kernel.doctor.finding import STEPS, Finding, State
from remote_kernel.kernelspec import read_kernelspec
from remote_kernel.options import LaunchOptions
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

    def options(self, name: str = "target", *lines: str, **replaced: str) -> LaunchOptions:
        return options_for(name, self.config(*lines, **replaced), self.good)


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


def closed_folder(world: World) -> LaunchOptions:
    world.patch.setenv("REMOTE_CONN_DIR", "/proc/none")
    return world.options()


HERE = ("HostName 127.0.0.1", "StrictHostKeyChecking no")

# The step that fails, the kind of error, and words of what is said and of what to do.
BROKEN: dict[str, tuple[Callable[[World], LaunchOptions], str, type[errors.RemoteKernelError], str, str]] = {
    "no ssh program": (no_program, "ssh", errors.SshNotFound, "/nothing/ssh", "install the OpenSSH client"),
    "bad option": (
        lambda world: world.options("target", "Host target", "Colour blue"),
        *("config", errors.SshConfigError, "colour", "mend the file"),
    ),
    "no such config": (
        lambda world: options_for("target", world.folder / "none", world.good),
        *("config", errors.SshConfigError, "none", "mend the file"),
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
        *("reach", errors.JumpHostFailed, "jump host jump cannot be reached", "check the port"),
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
        *("login", errors.AuthenticationFailed, "the server offers publickey, tried: ", "IdentityFile"),
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
    "closed folder": (closed_folder, "sockets", errors.RemoteFolderError, "/proc/none", "REMOTE_CONN_DIR"),
}


def in_order(findings: list[Finding]) -> list[str]:
    return [finding.step for finding in sorted(findings, key=lambda finding: STEPS.index(finding.step))]


@pytest.mark.parametrize("fault", BROKEN)
def test_fault_is_named_and_mended_in_words(world: World, fault: str) -> None:
    broken, step, kind, says, hint = BROKEN[fault]
    findings = list(examine(broken(world), start=True))

    (bad,) = [finding for finding in findings if finding.state is State.FAILED]
    assert (bad.step, bad.error) == (step, kind), bad
    assert says in bad.text
    assert hint in bad.hint
    assert set(in_order(findings)) == set(STEPS)
    for finding in findings:  # nothing that needs what is broken is called good
        if finding.step in ("kernel", "cell"):
            assert finding.state is State.UNKNOWN
    if bad.error and issubclass(bad.error, errors.TransportError):
        behind = [f for f in findings if STEPS.index(f.step) > STEPS.index(step)]
        assert {finding.state for finding in behind} == {State.UNKNOWN}


def test_kernel_that_dies_is_the_step_that_fails(world: World) -> None:
    (world.remote / "ipykernel_launcher.py").write_text("import libcuda_that_is_not_there\n")
    findings = list(examine(world.options()._replace(env=(("PYTHONPATH", str(world.remote)),))))
    (bad,) = [finding for finding in findings if finding.state is State.FAILED]
    assert (bad.step, bad.error) == ("kernel", errors.KernelDied)
    assert "libcuda_that_is_not_there" in bad.text


def test_single_session_is_a_warning(world: World) -> None:
    with world.servers.target.configured("MaxSessions 1"):
        findings = {finding.step: finding for finding in examine(world.options(), start=False)}
    assert findings["sessions"].state is State.WARNING
    assert "MaxSessions" in findings["sessions"].text


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
    assert "SHA256:" in findings["host key"]["text"]
    assert "publickey" in findings["login"]["text"]
    assert took - findings["kernel"]["seconds"] < 20  # 3 s where nothing else runs


def test_exit_status_is_that_of_the_step(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    config = str(world.config())
    assert main(["doctor", "target", "--ssh-config", config, "--python", "/opt/none/python"]) == 41
    said = capfd.readouterr().out
    assert "✗ python" in said
    assert said.splitlines()[-1] == "? not reached: ipykernel, folder, curve, kernel, cell"


@contextmanager
def kernelspec_called(folder: Path, slug: str, display_name: str, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    patch.setenv("LOCAL_KERNELS_DIR", str(folder / "kernels"))
    patch.setenv("JUPYTER_PATH", str(folder))
    path = write_kernelspec(folder / "kernels", slug, options_for("target", folder / "none", "python3"))
    document = json.loads((path / "kernel.json").read_text())
    (path / "kernel.json").write_text(json.dumps({**document, "display_name": display_name}))
    yield path


@pytest.mark.parametrize(("slug", "name"), [("python3", "Mine"), ("mine", "Python 3 (ipykernel)")])
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
    "survey": {
        "python": "/p",
        "python_version": "3.11",
        "ipykernel_version": "7.3.1",
        "is_the_systems": False,
        "kernelspec": None,
    },
    "curve": "curve",
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
def test_what_the_host_tells(change: dict[str, object], step: str, state: State) -> None:
    options = LaunchOptions(options_for("x", Path("none"), "python3").endpoint)
    findings = host.look(options, {**SEEN, **change}, "", 99.0, 101.0)
    (found,) = [finding for finding in findings if finding.step == step]
    assert found.state is state
    assert bool(found.hint) == (state is State.WARNING)
