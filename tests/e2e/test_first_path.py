"""The main job: a kernel that a front end picks runs on the remote host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernels import options_for, run, running_kernel


@pytest.mark.over_both
@pytest.mark.parametrize("host", ["target", "behind"])
def test_kernel_runs_on_the_remote_host(
    tmp_path: Path, target: object, ssh_config: Path, remote_python: Path, host: str
) -> None:
    with running_kernel(tmp_path, options_for(host, ssh_config, remote_python)) as (_, client):
        assert run(client, "1 + 1").result == "2"
        assert run(client, "import getpass; print(getpass.getuser())").streams["stdout"]
