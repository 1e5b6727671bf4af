"""The push of a folder that cannot even be started."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import PushFailed
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.on_start import OnStartPush
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import LaunchOptions


def test_push_for_which_there_is_no_process_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with Reactor() as reactor:
        push = OnStartPush(
            reactor, Log(), LaunchOptions(Endpoint.parse("nowhere"), on_start=str(tmp_path)), lambda _: None
        )
        with pytest.raises(PushFailed, match=r"cannot push .*: resource temporarily unavailable"):
            push.start(1.0)
        assert not push.runs
        push.close()
