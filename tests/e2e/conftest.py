"""Fixtures of the tests that break connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.relay import Relay, relay_to
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
