"""Hosts named by their IPv6 address, as target and as jump host: from `add` to a kernel that answers."""

from __future__ import annotations

import errno
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pexpect
import pytest

from remote_kernel import errors
from remote_kernel.cli.manager import main
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.options import find_program
from tests.support.kernels import run, running_kernel, wait_until
from tests.support.servers import Servers


def connecting_gives(port: int) -> int:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", port))


pytestmark = pytest.mark.skipif(
    connecting_gives(9) not in (0, errno.ECONNREFUSED), reason="this machine has no IPv6 loopback address"
)


@pytest.fixture
def servers_on_ipv6(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let both servers listen on [::1] as well; give an ssh config that knows nothing but their keys."""
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    known = "".join(f"[::1]:{server.port} {server.host_key}\n" for server in servers)
    (tmp_path / "known_hosts").write_text(known)
    lines = (f"IdentityFile {servers.client_key}", f"UserKnownHostsFile {tmp_path / 'known_hosts'}")
    (tmp_path / "config").write_text("\n".join((*lines, "IdentitiesOnly yes", "StrictHostKeyChecking yes\n")))
    with ExitStack() as undo:
        for server in servers:
            undo.enter_context(server.configured(f"ListenAddress [::1]:{server.port}"))
            assert wait_until(lambda port=server.port: connecting_gives(port) == 0)  # type: ignore[misc]
        yield tmp_path / "config"


@pytest.mark.parametrize("transport", ["openssh", "paramiko"])
@pytest.mark.parametrize("through_the_jump_host", [False, True], ids=["direct", "jump"])
def test_kernel_runs_behind_addresses(
    through_the_jump_host: bool,
    transport: str,
    servers: Servers,
    servers_on_ipv6: Path,
    remote_python: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    target, jump = (f"{server.user}@[::1]:{server.port}" for server in servers)
    words = ["--python", str(remote_python), "--transport", transport, "--ssh-config", str(servers_on_ipv6)]
    logins = servers.jump.log_text().count("Accepted publickey")
    if through_the_jump_host:
        words += ["-J", jump]
    assert main(["add", "--endpoint", target, "--name", "Six", *words]) == 0
    assert "it answered after" in capfd.readouterr().err
    assert (servers.jump.log_text().count("Accepted publickey") > logins) == through_the_jump_host
    (spec,) = list_kernelspecs()
    assert spec.options
    assert (str(spec.options.endpoint), *map(str, spec.options.jumps)) == (target, jump)[: 1 + through_the_jump_host]
    with running_kernel(tmp_path / "kernels", spec.options, "six") as (_, client):
        assert run(client, "import os; os.environ['SSH_CONNECTION'].split()[2]").result == "'::1'"


def test_command_in_the_error_works_as_it_stands(
    servers: Servers, servers_on_ipv6: Path, remote_python: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The keys of the two servers are mixed up; the error's command is run as it is shown, and lets us in.
    keys = [server.host_key for server in servers][::-1]
    lines = [f"[::1]:{server.port} {key}\n" for server, key in zip(servers, keys, strict=True)]
    (tmp_path / "known_hosts").write_text("".join(lines))
    servers_on_ipv6.write_text(servers_on_ipv6.read_text().replace("StrictHostKeyChecking yes", ""))
    target, jump = (f"{server.user}@[::1]:{server.port}" for server in servers)
    words = ["add", target, "-J", jump, "--python", str(remote_python), "--ssh-config", str(servers_on_ipv6)]
    assert main(words) == errors.HostKeyChanged.exit_status
    shown = re.search(r"run ([\"'])(.+)\1 in a terminal", capfd.readouterr().err)
    assert shown
    program, *rest = shlex.split(shown[2])
    assert program == "remote_kernel"
    with closing(pexpect.spawn(str(find_program()), rest, encoding="utf-8", timeout=30)) as terminal:
        for _ in range(4):  # an old key and a new one at each of the two
            terminal.expect(r"yes/no[^?]*\)\?? ")
            terminal.sendline("yes")
        terminal.expect("logged in to")
        terminal.expect(pexpect.EOF)
    assert main(words) == 0
