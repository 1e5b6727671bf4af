"""What the ssh to a jump host says is told, however early it was gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_kernel.transport import openssh
from tests.support.kernels import options_for


@pytest.mark.parametrize(
    "last",
    [
        "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n",
        "banner exchange: Connection to UNKNOWN port 65535: Broken pipe\n",
    ],
)
def test_words_of_the_ssh_to_a_jump_host_are_told(tmp_path: Path, last: str) -> None:
    config = tmp_path / "config"
    config.write_text("Host behind\n    ProxyCommand sh -c 'echo no way today >&2; exit 1'\n")
    assert "no way today" in openssh.complete_stderr(options_for("behind", config, ""), last)
