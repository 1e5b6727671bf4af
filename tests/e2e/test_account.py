"""What is told where the server accepts a login and refuses the account, or a session."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_kernel.doctor.steps import examine
from remote_kernel.errors import AccountRefused, RemoteKernelError
from remote_kernel.kept.running import find_running
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.remote_end import RemoteEnd
from remote_kernel.transport import masters, notes, openssh
from remote_kernel.transport.login import log_in
from tests.support.ends import carriers
from tests.support.kernels import launch, log_of, options_for, running_kernel, wait_until, write_connection_file
from tests.support.servers import Server, Servers, server_with_pam

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="rules for PAM of one's own take root")

NO_JOB = "Access denied by pam_slurm_adopt: you have no active jobs on this node"
MAINTENANCE = "The system is down for maintenance until Monday."
TOO_MANY = "There were too many logins"


@contextmanager
def server_that_refuses(servers: Servers, how: str) -> Iterator[Path]:
    """Run a server that refuses the account, or its session; give an ssh config whose `target` it is."""
    with (
        tempfile.TemporaryDirectory(prefix="rk-account-", dir="/var/tmp") as folder,
        _server(servers, Path(folder), how) as config,
    ):
        yield config


@contextmanager
def _server(servers: Servers, folder: Path, how: str) -> Iterator[Path]:
    denies = folder / "denies"
    denies.write_text(
        f"#!/bin/sh\n[ -e {folder}/allow ] && exit 0\necho x >> {folder}/asked\necho '{NO_JOB}'\nexit 1\n"
    )
    denies.chmod(0o755)
    (folder / "limits").write_text(f"{servers.account.user} - maxlogins 0\n")
    (folder / "nologin").write_text(f"{MAINTENANCE}\n")
    good = "required pam_permit.so"
    account = {
        "account": f"required pam_exec.so stdout {denies}",
        "silently": "required pam_deny.so",
        "nologin": f"required pam_nologin.so file={folder}/nologin",
    }
    session = {"maxlogins": f"required pam_limits.so conf={folder}/limits"}
    with server_with_pam(servers, folder, account.get(how, good), session.get(how, good)) as config:
        yield config
        options = options_for("target", config, "python3")
        masters.end_master(masters.master_of(openssh.ssh_argv(options, "true")))


WORDS = {
    "account": NO_JOB,
    "nologin": MAINTENANCE,
    "maxlogins": f"{TOO_MANY}.*'who'",
}


def _sync(options: LaunchOptions) -> None:
    with RemoteEnd(options, "receive", {}) as far:
        far.greet()


def _doctor(options: LaunchOptions) -> None:
    for finding in examine(options, start=False):
        if finding.step == "login":
            raise AccountRefused(finding.text, finding.hint)


COMMANDS: dict[str, Callable[[LaunchOptions], object]] = {
    "add": probe,
    "ps": lambda options: find_running([options]).check(),
    "sync": _sync,
    "doctor": _doctor,
    "connect": lambda options: log_in(options, None),
}


@pytest.mark.over_both("account")
@pytest.mark.parametrize("how", WORDS)
def test_server_that_refuses_the_account_is_quoted(tmp_path: Path, servers: Servers, how: str, transport: str) -> None:
    with server_that_refuses(servers, how) as config:
        options = options_for("target", config, "python3", transport=transport)
        for name, command in COMMANDS.items():
            if (transport, how, name) == ("paramiko", "maxlogins", "connect"):
                continue  # its login opens no session, and what comes behind it shows the words by itself
            with pytest.raises(RemoteKernelError) as raised:
                command(options)
            assert isinstance(raised.value, AccountRefused), (name, raised.value)
            assert re.search(WORDS[how], str(raised.value)), name
            assert "try again" not in str(raised.value)
            masters.end_master(masters.master_of(openssh.ssh_argv(options, "true")))
        done = launch(options, write_connection_file(tmp_path / "kernel-1.json"))
        assert done.returncode == AccountRefused.exit_status, done
        assert re.search(WORDS[how], done.stderr.splitlines()[-1])


@pytest.mark.over_both
def test_server_that_refuses_the_account_of_a_running_kernel_is_quoted(
    tmp_path: Path, servers: Servers, remote_python: Path
) -> None:
    with server_that_refuses(servers, "account") as config:
        options = options_for("target", config, remote_python)
        allow = config.with_name("allow")
        allow.touch()
        with running_kernel(tmp_path, options) as (manager, _):
            allow.unlink()
            for process in carriers():
                process.kill()
            assert wait_until(lambda: NO_JOB in log_of(manager), 40)
            allow.touch()


@pytest.mark.openssh_only  # paramiko does not tell whether a key was accepted
def test_server_that_refuses_the_account_without_a_word_is_told(servers: Servers) -> None:
    with (
        server_that_refuses(servers, "silently") as config,
        pytest.raises(AccountRefused, match="closes the connection after the login"),
    ):
        probe(options_for("target", config, "python3"))


@pytest.mark.over_both
def test_restarts_of_a_kernel_do_not_ask_a_server_that_refuses_the_account_again(
    tmp_path: Path, servers: Servers
) -> None:
    with server_that_refuses(servers, "account") as config:
        options = options_for("target", config, "python3")
        file = write_connection_file(tmp_path / "kernel-1.json")
        asked = config.with_name("asked")
        first = launch(options, file)
        count = asked.read_text()
        again = [launch(options, file) for _ in range(2)]
        assert asked.read_text() == count
        assert {done.returncode for done in again} == {first.returncode} == {AccountRefused.exit_status}
        assert {done.stderr.splitlines()[-1] for done in again} == {first.stderr.splitlines()[-1]}
        launch(options, write_connection_file(tmp_path / "kernel-2.json"))  # a person starts another
        assert asked.read_text() > count
        notes.clear_refusals(options)


@pytest.mark.over_both
def test_server_that_opens_no_session_is_named(
    tmp_path: Path, target: Server, ssh_config: Path, transport: str
) -> None:
    options = options_for("target", ssh_config, "python3", transport=transport)
    with target.configured("MaxSessions 0"):
        for name, command in COMMANDS.items():
            if (transport, name) == ("paramiko", "connect"):
                continue  # its login opens no session
            masters.end_masters(options)
            with pytest.raises(AccountRefused, match=r"lets you in and opens no session.*MaxSessions"):
                command(options)
        masters.end_masters(options)
        done = launch(options, write_connection_file(tmp_path / "kernel-1.json"))
        masters.end_masters(options)
    assert done.returncode == AccountRefused.exit_status
    assert "MaxSessions" in done.stderr.splitlines()[-1]
