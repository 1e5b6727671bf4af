"""Keys and variables stay out of every command line, log and file that others can read."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from remote_kernel.options import LaunchOptions
from tests.support.isolation import Isolation
from tests.support.kernels import options_for, run, running_kernel
from tests.support.servers import Server, Servers

SECRET = "s3cret-value-of-a-variable"


class Watcher:
    """Look at every command line of this machine, over and over, in a thread."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))
            time.sleep(0.005)


@pytest.fixture
def options(target: Server, ssh_config: Path, remote_python: Path) -> LaunchOptions:
    return options_for("target", ssh_config, remote_python, env=(("RK_TOKEN", SECRET),))


@pytest.fixture
def watched(tmp_path: Path, options: LaunchOptions) -> Iterator[tuple[set[str], dict[str, object]]]:
    """Run a kernel's whole life; give all command lines that there were, and the connection file."""
    with Watcher() as watcher, running_kernel(tmp_path, options) as (manager, client):
        assert run(client, f"import os; os.environ['RK_TOKEN'] == {SECRET!r}").result == "True"
        connection = json.loads(Path(manager.connection_file).read_text())
    return watcher.seen, connection


@pytest.mark.over_both
def test_no_command_line_shows_a_key(watched: tuple[set[str], dict[str, object]], servers: Servers) -> None:
    seen, connection = watched
    assert [line for line in seen if "ipykernel_launcher" in line], "the watcher saw no kernel"
    assert [line for line in seen if "ssh" in line and "exec /bin/sh" in line], "the watcher saw no ssh"
    key = str(connection["key"])
    private = "".join(servers.client_key.read_text().splitlines()[1:-1])
    for line in seen:
        assert key not in line
        assert private[:60] not in line


def test_values_of_variables_are_in_no_command_line_but_the_launchers(
    watched: tuple[set[str], dict[str, object]],
) -> None:
    # The kernelspec's argv is where they are kept, so the launcher has them; nothing that it starts has.
    seen, _ = watched
    showing = [line for line in seen if SECRET in line]
    assert all("--endpoint target" in line and "--env" in line for line in showing), showing


def test_log_shows_no_secret(tmp_path: Path, options: LaunchOptions, isolation: Isolation) -> None:
    with running_kernel(tmp_path, options) as (manager, client):
        run(client, "import os; os.write(2, b'a word of the kernel\\n')")
        key = json.loads(Path(manager.connection_file).read_text())["key"]
        (log,) = isolation.jupyter_runtime.glob(f"remote_kernel-{Path(manager.connection_file).stem}.log")
        text = log.read_text()
        assert "kernel ready" in text
        assert key not in text
        assert SECRET not in text
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_remote_files_are_the_users_alone(tmp_path: Path, options: LaunchOptions, target: Server) -> None:
    with running_kernel(tmp_path, options) as (_, client):
        run(client, "1")
        base = target.account.agent_folder
        (folder,) = base.iterdir()
        assert stat.S_IMODE(base.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "kernel.json").stat().st_mode) == 0o600


def test_no_tcp_port_is_opened_on_the_remote_host(tmp_path: Path, options: LaunchOptions, target: Server) -> None:
    with running_kernel(tmp_path, options) as (_, client):
        run(client, "1")
        listening = [
            connection.laddr
            for process in target.processes()
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    # ipykernel's debugger listens for itself on loopback; the five channels are Unix sockets.
    assert all(address.ip == "127.0.0.1" for address in listening)
    assert len(listening) <= 2, listening
