"""The kernel's life over the transport in Python: the launcher, the agent and the front end notice no difference."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from remote_kernel.transport.ssh_config import transport_name
from tests.support.ends import log_of
from tests.support.kernels import (
    manager_for,
    options_for,
    run,
    running_kernel,
    wait_until,
    write_kernelspec,
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
        assert wait_until(lambda: "trying to reconnect" in log_of(manager), 12), "nobody missed the server"
        relay.thaw()
        while (reply := client.get_shell_msg(timeout=40))["parent_header"]["msg_id"] != request:
            pass
        assert reply["content"]["status"] == "ok"
        printed = ""
        while (message := client.get_iopub_msg(timeout=10))["content"].get("execution_state") != "idle":
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
        assert (seen + printed).split() == [str(n) for n in range(100)]


def test_notebook_runs_through_a_cut_where_there_is_no_ssh(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "no-ssh-here"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    assert shutil.which("ssh") is None
    options = options_for("target", ssh_config, remote_python)
    assert transport_name(options) == "paramiko"
    write_kernelspec(tmp_path, "remote", options)
    cells = [
        "import time\nfor n in range(30):\n    print(n)\n    time.sleep(0.1)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
    ]
    manager = manager_for(tmp_path, "remote")
    notebook = NotebookClient(new_notebook(cells=[new_code_cell(cell) for cell in cells]), km=manager, timeout=60)
    cuts: list[int] = []
    cut = threading.Timer(1.0, lambda: cuts.append(target.kill_sessions()))
    notebook.on_cell_execute = lambda cell_index, **_: cut.start() if cell_index == 0 else None
    try:
        done = notebook.execute()
        log = log_of(manager)
    finally:
        cut.cancel()
        if notebook.kc:
            notebook.kc.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
    assert any(cuts)
    assert "".join(output["text"] for output in done.cells[0].outputs).split() == [str(n) for n in range(30)]
    assert "image/png" in done.cells[1].outputs[0]["data"]
    assert "again after" in log


def test_what_cannot_be_honoured_is_named_in_the_log(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    path = tmp_path / "config"
    path.write_text(f"Host target\n    GSSAPIAuthentication yes\n    Compression yes\n{ssh_config.read_text()}")
    with running_kernel(tmp_path, options_for("target", path, remote_python, transport="paramiko")) as (
        manager,
        client,
    ):
        assert run(client, "1 + 1").result == "2"
        warning = "warning: without the OpenSSH client this is not honoured: gssapiauthentication yes"
        assert log_of(manager).count(warning) == 1
