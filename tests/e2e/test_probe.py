"""What `add` learns of a host before it writes a kernelspec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remote_kernel.errors import KernelNotInstalled, PythonNotFound, RemoteKernelspecNotFound
from remote_kernel.kernelspec.discovery import install_ipykernel, probe
from tests.support.kernels import options_for
from tests.support.servers import Server


def test_probe_names_the_interpreter_and_its_ipykernel(target: Server, ssh_config: Path, remote_python: Path) -> None:
    found = probe(options_for("target", ssh_config, remote_python))

    assert found.python == str(remote_python)
    assert found.user == target.user
    assert found.python_version.startswith("3.")
    assert int(found.ipykernel_version.split(".")[0]) >= 7


def test_probe_says_that_ipykernel_is_missing(target: Server, ssh_config: Path, bare_python: Path) -> None:
    assert probe(options_for("target", ssh_config, bare_python)).ipykernel_version == ""


def test_probe_tells_the_systems_interpreter(target: Server, ssh_config: Path, bare_python: Path) -> None:
    assert probe(options_for("target", ssh_config, "/usr/bin/python3")).is_the_systems
    assert not probe(options_for("target", ssh_config, bare_python)).is_the_systems


def test_probe_says_that_the_interpreter_is_missing(target: Server, ssh_config: Path) -> None:
    with pytest.raises(PythonNotFound, match="no interpreter '/opt/nothing/python'"):
        probe(options_for("target", ssh_config, "/opt/nothing/python"))


def test_probe_finds_a_remote_kernelspec(target: Server, ssh_config: Path, remote_python: Path) -> None:
    folder = Path(target.home) / ".local/share/jupyter/kernels/Echo"
    folder.mkdir(parents=True)
    spec = {"argv": ["echo", "{connection_file}"], "display_name": "Echo", "interrupt_mode": "message"}
    (folder / "kernel.json").write_text(json.dumps({**spec, "language": "echo"}))
    try:
        found = probe(options_for("target", ssh_config, remote_python, kernel="echo")).kernelspec
        assert found
        assert (found.name, found.language, found.interrupt_mode) == ("echo", "echo", "message")
        with pytest.raises(RemoteKernelspecNotFound, match="echo"):
            probe(options_for("target", ssh_config, remote_python, kernel="nothing"))
    finally:
        (folder / "kernel.json").unlink()
        folder.rmdir()


def test_install_leaves_the_system_python_alone(target: Server, ssh_config: Path) -> None:
    with pytest.raises(KernelNotInstalled, match="never changed"):
        install_ipykernel(options_for("target", ssh_config, "/usr/bin/python3"))
