"""Fixtures that every test can use; what they are made of is in tests/support."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.account import Account, remote_account
from tests.support.interpreters import KERNEL, KERNEL_6, environment
from tests.support.isolation import Isolation, isolated_environment
from tests.support.leaks import end_processes, find_leaks, take_snapshot
from tests.support.servers import Server, Servers, running_servers


def pytest_configure(config: pytest.Config) -> None:
    """Let scripts/test try the same examples each time, so that it fails for a change alone; others try new ones.

    What a shell runs in the background ignores Ctrl-C, under nohup a hangup too, and so would all that is started here,
    which is to hear them.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    settings.register_profile("steady", derandomize=True)
    if config.option.markexpr == "not nightly":
        settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def isolation() -> Iterator[Isolation]:
    """Private HOME, Jupyter and XDG folders for the session; no agent, no settings of the developer's."""
    with isolated_environment() as private:
        yield private


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    """Give the user that the remote side runs as."""
    with remote_account() as found:
        yield found


@pytest.fixture(scope="session")
def servers(account: Account, isolation: Isolation) -> Iterator[Servers]:
    """Both SSH servers, running, and the client's files for them."""
    with running_servers(account, isolation.marker) as running:
        yield running


@pytest.fixture(scope="session")
def target(servers: Servers) -> Server:
    """Give the SSH server that kernels run behind; alias `target` in `ssh_config`."""
    return servers.target


@pytest.fixture(scope="session")
def jump(servers: Servers) -> Server:
    """Give the SSH server to jump through; alias `jump` in `ssh_config`."""
    return servers.jump


@pytest.fixture(scope="session")
def ssh_config(servers: Servers) -> Path:
    """Give the client configuration with the aliases `target`, `jump` and `behind` (target through jump)."""
    return servers.ssh_config


@pytest.fixture(scope="session")
def remote_python(account: Account) -> Path:
    """Give a Python that the remote user can run, with ipykernel 7, ipywidgets and matplotlib."""
    return environment(*KERNEL)


@pytest.fixture(scope="session")
def remote_python_ipykernel6(account: Account) -> Path:
    """Give the same with ipykernel 6."""
    return environment(*KERNEL_6)


@pytest.fixture(scope="session")
def bare_python(account: Account) -> Path:
    """Give a Python that the remote user can run, without ipykernel or anything else."""
    return environment()


@pytest.fixture(autouse=True)
def allowed_to_stay(request: pytest.FixtureRequest, isolation: Isolation) -> Iterator[set[int]]:
    """Fail a test that leaves a process or a file behind, here or, where it used the servers, on the remote side.

    A test may add the pids of processes that are meant to outlive it, such as those that a fixture of a wider
    scope ends. Fixtures of a wider scope that a test names are set up before this one, and so are not its leaks.
    """
    servers = request.getfixturevalue("servers") if "servers" in request.fixturenames else None
    before = take_snapshot(isolation, servers)
    allowed: set[int] = set()
    interrupts = signal.getsignal(signal.SIGINT)
    yield allowed
    left = find_leaks(before, isolation, servers, allowed=allowed)
    if signal.getsignal(signal.SIGINT) is not interrupts:  # what later tests start would ignore it too
        signal.signal(signal.SIGINT, interrupts)
        left.append("another handler of SIGINT")
    if left:
        gone = take_snapshot(isolation, servers).processes - before.processes
        end_processes(process for process in gone if process.pid not in allowed)
        pytest.fail("left behind by the test:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def remote_folder(target: Server) -> Iterator[Path]:
    """Give a folder in the remote home, owned by the remote user, that goes with the test."""
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=target.home))
    os.chown(folder, target.account.uid, target.account.gid)
    yield folder
    shutil.rmtree(folder)
