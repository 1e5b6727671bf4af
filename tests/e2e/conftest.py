"""Fixtures of the tests that break connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.isolation import Isolation
from tests.support.relay import Relay, relay_to
from tests.support.rkernel import Rkernel, running_rkernel
from tests.support.servers import Server


@pytest.fixture(autouse=True)
def network_comes_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the target again after a test that failed while it was away."""
    servers = request.getfixturevalue("servers") if "servers" in request.fixturenames else None
    yield
    if servers:
        servers.target.thaw()
        servers.target.start()


@pytest.fixture
def network(tmp_path: Path, target: Server, ssh_config: Path) -> Iterator[tuple[Relay, Path]]:
    """Give a relay in front of the target, and the ssh config that leads through it."""
    with relay_to(target, ssh_config, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, isolation: Isolation) -> Iterator[Rkernel]:
    """Give `rkernel` with a session of a kernel on this machine, for tests that leave it as they find it."""
    with running_rkernel(tmp_path_factory.mktemp("shared"), "python3") as rkernel:
        yield rkernel


@pytest.fixture
def alone(tmp_path: Path, allowed_to_stay: set[int]) -> Iterator[Rkernel]:
    """Give `rkernel` without a session, for tests that end kernels and hosts."""
    with running_rkernel(tmp_path) as rkernel:
        yield rkernel
