"""`add`, `edit` and `delete` against a real host: what they install is what a front end starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from remote_kernel.cli.manager import main
from remote_kernel.errors import KernelNotInstalled
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.options import find_program
from tests.support.kernels import wait_until


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a kernels folder of the test's own."""
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.mark.parametrize("host", ["target", "behind"])
def test_add_starts_a_kernel_installs_it_and_tells_what_went_wrong_in_passing(
    host: str, target: object, ssh_config: Path, remote_python: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--ssh-config", str(ssh_config), "--python", str(remote_python), "--init", "modul load cuda"]
    status = main(["add", host, "--name", "Mine", *words])
    said = capfd.readouterr()
    assert status == 0, said.err
    assert f"({remote_python}), ipykernel " in said.err
    assert "it answered after" in said.err
    assert re.search("note: it printed: .*modul", said.err)
    assert [spec.slug for spec in list_kernelspecs()] == ["mine"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_add_that_is_ended_in_its_trial_leaves_nothing(
    number: signal.Signals, target: object, ssh_config: Path, remote_python: Path, tmp_path: Path, kernels: Path
) -> None:
    # A terminal that is closed. The kernel there is looked for by the fixture that looks for all that is left.
    program = find_program()
    assert program
    (tmp_path / "tmp").mkdir()
    words = ["add", "target", "--ssh-config", str(ssh_config), "--python", str(remote_python)]
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen([program, *words], stderr=subprocess.PIPE, text=True, env=env) as adding:
        assert adding.stderr
        assert any("starting a kernel" in line for line in adding.stderr)
        assert wait_until(lambda: any((tmp_path / "tmp").glob("remote_kernel-check-*/stderr")))
        adding.send_signal(number)
        assert adding.wait(60) == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not kernels.exists()


def test_add_installs_nothing_where_ipykernel_is_missing(
    target: object, ssh_config: Path, bare_python: Path, kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "target", "--ssh-config", str(ssh_config), "--python", str(bare_python)]) == 42
    assert "-m pip install ipykernel" in capfd.readouterr().err
    assert not kernels.exists()


def test_edit_to_an_interpreter_that_is_missing_changes_nothing(
    target: object, ssh_config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["add", "target", "--ssh-config", str(ssh_config), "--name", "Mine", "--no-check"]) == 0
    (before,) = list_kernelspecs()
    assert main(["edit", "mine", "--python", "/opt/nothing/python"]) == 41
    assert list_kernelspecs() == [before]
    assert main(["delete", "mine"]) == 0
    assert list_kernelspecs() == []


def test_install_puts_ipykernel_where_it_is_missing(
    target: object, ssh_config: Path, bare_python: Path, remote_folder: Path, kernels: Path
) -> None:
    ssh = ["ssh", "-F", str(ssh_config), "target", f"{bare_python} -m venv {remote_folder}/env"]
    subprocess.run(ssh, check=True, timeout=60, capture_output=True)
    python = f"{remote_folder}/env/bin/python"
    words = ["add", "target", "--ssh-config", str(ssh_config), "--python", python, "--name", "Fresh"]

    assert main(words) == KernelNotInstalled.exit_status
    assert not (kernels / "fresh").exists()
    assert main([*words, "--install"]) == 0
    assert (kernels / "fresh" / "kernel.json").exists()
