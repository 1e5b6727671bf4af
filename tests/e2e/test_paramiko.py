"""The kernel's life over the transport in Python: the launcher, the agent and the front end notice no difference."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from remote_kernel.transport import choice
from tests.support.ends import log_of
from tests.support.kernels import (
    options_for,
    run,
    running_kernel,
    wait_until,
)
from tests.support.relay import Relay
from tests.support.servers import Server, Servers

COUNT = "import time\nfor n in range(100):\n    print(n, flush=True)\n    time.sleep(0.05)"


def test_kernel_behind_a_jump_host_runs_is_interrupted_and_restarts(
    tmp_path: Path, servers: Servers, ssh_config: Path, remote_python: Path
) -> None:
    options = options_for("behind", ssh_config, remote_python, transport="paramiko")
    with running_kernel(tmp_path, options) as (manager, client):
        assert run(client, "x = 6 * 7; x").result == "42"
        request = client.execute("import time; print('up', flush=True); time.sleep(60)")
        assert wait_until(lambda: client.get_iopub_msg(timeout=10)["msg_type"] == "stream")
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=10)
        assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (request, "KeyboardInterrupt")
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        assert run(client, "x").error.startswith("NameError")


def test_frozen_connection_is_given_up_and_nothing_is_lost(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path
) -> None:
    relay, ssh_config = network
    ssh_config.write_text(f"ServerAliveInterval 1\nServerAliveCountMax 2\n{ssh_config.read_text()}")
    options = options_for("target", ssh_config, remote_python, transport="paramiko")
    with running_kernel(tmp_path, options) as (manager, client):
        request = client.execute(COUNT)
        while (message := client.get_iopub_msg(timeout=10))["msg_type"] != "stream":
            pass
        seen = message["content"]["text"]
        relay.freeze()
        assert wait_until(lambda: "trying to get back" in log_of(manager), 12), "nobody missed the server"
        relay.thaw()
        reply = client.get_shell_msg(timeout=40)
        assert (reply["parent_header"]["msg_id"], reply["content"]["status"]) == (request, "ok")
        printed = ""
        while (message := client.get_iopub_msg(timeout=10))["content"].get("execution_state") != "idle":
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
        assert (seen + printed).split() == [str(n) for n in range(100)]


def test_machine_without_ssh_takes_paramiko_by_itself(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "no-ssh-here"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    assert shutil.which("ssh") is None
    options = options_for("target", ssh_config, remote_python)
    assert choice.name(options) == "paramiko"
    with running_kernel(tmp_path, options) as (_, client):
        assert run(client, "1 + 1").result == "2"
