"""Strangers' suites find the same in a remote kernel as in a local one, but for what differences.toml explains."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign.suites import SUITES, Suite, explained, python, unpack, verdicts
from tests.support.kernels import options_for, write_kernelspec


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Collect a line for each suite, and print them all at the end."""
    lines = [f"{'passed/failed':<22}{'local':>12}{'remote':>12}{'explained':>12}{'not':>6}"]
    yield lines
    print("", *lines, sep="\n")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Return a folder for JUPYTER_PATH in which python3 is a local kernel."""
    kernel = tmp_path / "local/kernels/python3"
    kernel.mkdir(parents=True)
    argv = [str(python()), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    metadata = {"debugger": True, "supported_encryption": ["curve"]}
    spec = {"argv": argv, "display_name": "Python 3 (local)", "language": "python", "metadata": metadata}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    return tmp_path / "local"


@pytest.fixture
def remote(tmp_path: Path, ssh_config: Path) -> Path:
    """Return one in which it is a remote kernel, of the same interpreter."""
    kernel = write_kernelspec(tmp_path / "remote/kernels", "python3", options_for("target", ssh_config, python()))
    spec = json.loads((kernel / "kernel.json").read_text())
    # jupyter_server's suite sets PYTHONPATH to all that its own interpreter has; the launcher runs under another.
    program = tmp_path / "remote_kernel"
    program.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {spec["argv"][0]} "$@"\n')
    program.chmod(0o755)
    spec["argv"][0] = str(program)
    spec["metadata"]["supported_encryption"] = ["curve"]
    (kernel / "kernel.json").write_text(json.dumps(spec))
    return tmp_path / "remote"


@pytest.mark.nightly
@pytest.mark.openssh_only
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_suite_finds_the_same_in_both(
    suite: Suite, local: Path, remote: Path, tmp_path: Path, table: list[str]
) -> None:
    folder = tmp_path / "sdist"
    found = {}
    for kernels in (local, remote):
        folder.mkdir()
        top = unpack(suite, folder)
        found[kernels.name] = verdicts(suite, top, kernels)
        shutil.copytree(folder, tmp_path / f"{kernels.name}-results", ignore=shutil.ignore_patterns(top.name))
        shutil.rmtree(folder)
    here, there = found["local"], found["remote"]
    assert "passed" in here.values()
    differences = {
        test: (here.get(test, "not run"), there.get(test, "not run"))
        for test in {*here, *there}
        if here.get(test) != there.get(test)
    }
    reasons = explained(suite, differences)
    unexplained = {test: verdict for test, verdict in sorted(differences.items()) if test not in reasons}
    counts = [Counter(verdict.values()) for verdict in (here, there)]
    columns = "".join(f"{count['passed']}/{count['failed']}".rjust(12) for count in counts)
    table.append(f"{suite.project:<22}{columns}{len(reasons):>12}{len(unexplained):>6}")
    assert not unexplained
