"""The kernel's life over the transport in Python: the launcher, the agent and the front end notice no difference."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from remote_kernel import errors
from remote_kernel.transport import choice
from tests.support.ends import log_of
from tests.support.kernels import (
    launch,
    options_for,
    run,
    running_kernel,
    wait_until,
    write_connection_file,
)
from tests.support.relay import Relay
from tests.support.servers import Server, Servers

COUNT = "import time\nfor n in range(100):\n    print(n, flush=True)\n    time.sleep(0.05)"


@pytest.mark.parametrize("host", ["target", "behind"])
def test_kernel_runs_is_interrupted_and_restarts(
    tmp_path: Path, servers: Servers, ssh_config: Path, remote_python: Path, host: str
) -> None:
    options = options_for(host, ssh_config, remote_python, transport="paramiko")
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


def test_output_is_complete_after_a_drop(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python, transport="paramiko")
    with running_kernel(tmp_path, options) as (manager, client):
        request = client.execute(COUNT)
        printed = ""
        cut = False
        while True:
            message = client.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
                if "10" in printed and not cut:
                    cut = bool(target.kill_sessions())
            elif message["content"].get("execution_state") == "idle":
                break
        assert cut
        assert printed.split() == [str(n) for n in range(100)]
        assert "again after" in log_of(manager)


def test_output_is_complete_after_a_freeze(
    tmp_path: Path, target: Server, network: tuple[Relay, Path], remote_python: Path
) -> None:
    relay, ssh_config = network
    options = options_for("target", ssh_config, remote_python, transport="paramiko")
    with running_kernel(tmp_path, options) as (_, client):
        client.execute(COUNT)
        relay.freeze()
        wait_until(lambda: False, 3)
        relay.thaw()
        assert run(client, "'after'").result == "'after'"


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


def test_unknown_host_key_is_no_kernel(tmp_path: Path, target: Server, ssh_config: Path) -> None:
    path = tmp_path / "config"
    path.write_text(f"UserKnownHostsFile {tmp_path / 'none'}\n{ssh_config.read_text()}")
    options = options_for("target", path, "python3", transport="paramiko")
    logins = target.log_text().count("Accepted")
    done = launch(options, write_connection_file(tmp_path / "kernel-1.json"), env=dict(os.environ))
    assert done.returncode == errors.HostKeyUnknown.exit_status
    assert "host key of target is not known here" in done.stderr.splitlines()[-1]
    assert target.log_text().count("Accepted") == logins
