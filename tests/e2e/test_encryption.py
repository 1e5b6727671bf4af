"""Front ends that ask for encrypted sockets (CURVE), as jupyter_client does with `transport_encryption`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from remote_kernel.cli.manager import main
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.kernelspec.writing import write_kernelspec as install
from remote_kernel.options import LaunchOptions
from tests.support.kernels import START_SECONDS, manager_for, options_for, run, settle
from tests.support.rkernel import Rkernel


@contextmanager
def front_end(folder: Path, slug: str) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Start a kernelspec as a front end does that insists on encryption, and close it so."""
    manager = manager_for(folder, slug)
    manager.start_kernel(transport_encryption="required")
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_SECONDS)
        settle(client)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()


@pytest.fixture(params=["remote_python", "remote_python_ipykernel6"])
def options(request: pytest.FixtureRequest, ssh_config: Path) -> LaunchOptions:
    """Give options for a kernel that can encrypt its sockets, and for one that cannot."""
    return options_for("target", ssh_config, request.getfixturevalue(request.param))


def test_kernel_behind_encrypted_sockets_is_used_as_any_other(
    tmp_path: Path, options: LaunchOptions, alone: Rkernel
) -> None:
    install(Draft("Secret", options), tmp_path)
    with front_end(tmp_path, "secret") as (manager, client):
        assert json.loads(Path(manager.connection_file).read_text())["curve_secretkey"]
        request = client.execute("answer = input('who? ')", allow_stdin=True)
        client.get_stdin_msg(timeout=10)
        client.input("me")
        assert client.get_shell_msg(timeout=10)["parent_header"]["msg_id"] == request
        assert run(client, "answer").result == "'me'"

        plain = {k: v for k, v in manager.get_connection_info(session=True).items() if not k.startswith("curve")}
        intruder = BlockingKernelClient()
        intruder.load_connection_info({**plain, "key": manager.session.key.decode()})
        intruder.start_channels()
        intruder.execute("answer = 'an intruder'")

        assert alone("attach", manager.connection_file, "-s", "work").status == 0
        assert alone.exec("answer").out == "'me'\n"
        alone("close", "work")
        intruder.stop_channels()

        client.execute("import time; print('begun', flush=True); time.sleep(60)")
        while client.get_iopub_msg(timeout=10)["content"].get("text") != "begun\n":
            pass
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=10)["content"]["ename"] == "KeyboardInterrupt"
        manager.restart_kernel()
        client.wait_for_ready(timeout=START_SECONDS)
        assert "NameError" in run(client, "answer").error


def test_kept_kernel_outlives_an_encrypted_front_end_and_is_resumed_by_another(
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    install(Draft("Kept", options_for("target", ssh_config, remote_python, keep=True)), tmp_path / "kernels")
    try:
        with front_end(tmp_path / "kernels", "kept") as (_, client):
            run(client, "x = 'still here'")
        capfd.readouterr()
        assert main(["ps", "--json"]) == 0
        (kernel,) = json.loads(capfd.readouterr().out)
        assert main(["resume", kernel["id"]]) == 0
        (slug,) = (spec.slug for spec in list_kernelspecs() if spec.options and spec.options.resume)
        with front_end(tmp_path / "kernels", slug) as (_, client):
            assert run(client, "x").result == "'still here'"
    finally:
        assert main(["stop", "--all"]) == 0
