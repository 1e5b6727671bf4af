"""Fixtures of the tests that run kernels: which transport carries them, and connections to break.

The modules in OVER_BOTH run over each transport. Over paramiko `scripts/test` runs what is marked `over_both` (with
words: only the cases whose id has one of them), and a nightly run the rest; `openssh_only` is for what only ssh has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.interpreters import KERNEL_6, environment
from tests.support.isolation import Isolation
from tests.support.relay import Relay, relay_to
from tests.support.rkernel import Rkernel, running_rkernel
from tests.support.servers import Server

OVER_BOTH = {
    *(
        "test_account",
        "test_bad_input",
        "test_doctor",
        "test_drops",
        "test_first_path",
        "test_front_ends",
        "test_kept",
        "test_lease",
    ),
    *("test_many_kernels", "test_outage", "test_probe", "test_rkernel_remote", "test_secrets", "test_shells"),
    *("test_spool", "test_teardown"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over each transport where its module says so."""
    is_of_ssh = metafunc.definition.get_closest_marker("openssh_only")
    if metafunc.module.__name__.rpartition(".")[2] in OVER_BOTH and not is_of_ssh:
        metafunc.parametrize("transport", ["openssh", "paramiko"], indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the nightly run what need not be seen over paramiko every time."""
    for item in items:
        case = getattr(item, "callspec", None)
        if item.path.parent != Path(__file__).parent or item.path.stem not in OVER_BOTH:
            continue
        if case is None or case.params.get("transport") != "paramiko":
            continue
        mark = item.get_closest_marker("over_both")
        if mark is None or (mark.args and not any(word in case.id for word in mark.args)):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the transport that kernels and commands of the test use; the default one where nothing else is asked for."""
    name = getattr(request, "param", "openssh")
    if name != "openssh":
        monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", name)
    return str(name)


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


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, isolation: Isolation) -> Iterator[Rkernel]:
    """Give `rkernel` with a session of ipykernel 6, which has no subshells."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "kernels" / "six").mkdir(parents=True)
    argv = [str(environment(*KERNEL_6)), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Six", "language": "python"}
    (folder / "kernels" / "six" / "kernel.json").write_text(json.dumps(spec))
    with running_rkernel(folder, "six") as rkernel:
        yield rkernel


@pytest.fixture(params=["ipykernel 7", "ipykernel 6"])
def either(request: pytest.FixtureRequest, shared: Rkernel, old: Rkernel) -> Rkernel:
    """Give a session of either ipykernel."""
    return shared if request.param == "ipykernel 7" else old
