"""The doctor's steps where no server of ours can bring about what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.doctor import hop_login, host, route, steps
from remote_kernel.doctor.finding import State
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectTimeout, SshConfigError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import carrier, choice, masters, openssh
from remote_kernel.transport.ssh_config import HopAddress

OPTIONS = LaunchOptions(Endpoint("gpu1"), transport="openssh")


@pytest.fixture
def chatty_port() -> Iterator[int]:
    """Give the port of something that says a line every now and then, and never what an SSH server says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"please wait\r\n")
                    time.sleep(0.05)

        talker = threading.Thread(target=talk)
        talker.start()
        yield int(listener.getsockname()[1])
        talker.join(10)


def test_a_server_that_talks_on_and_on_is_not_listened_to_for_ever(chatty_port: int) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        route._banner(HopAddress("gpu1", "127.0.0.1", chatty_port, "", 0.5, OPTIONS))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("version", ["", "6.0.0"])
def test_the_systems_own_python_is_never_to_be_installed_into(version: str) -> None:
    survey = {"python": "/usr/bin/python3", "python_version": "3.11.4", "kernelspec": None, "is_the_systems": True}
    found = {"survey": {**survey, "ipykernel_version": version, "new_environment": "~/.venv-2"}}
    hint = next(one.hint for one in host._kernel(OPTIONS, found, {}) if one.step == "ipykernel")
    path = "~/.venv-2"  # which does not exist there; if it does by the time, mkdir ends the command
    assert f"mkdir {path} && /usr/bin/python3 -m venv {path} && {path}/bin/python -m pip install ipykernel" in hint
    assert "/usr/bin/python3 -m pip" not in hint


@pytest.mark.parametrize("version", ["", "6.0.0"])
def test_the_command_to_paste_is_right_for_any_path(version: str) -> None:
    python = "/opt/it's my env/bin/python"
    survey = {"python": python, "python_version": "3.11.4", "kernelspec": None, "is_the_systems": False}
    found = {"survey": {**survey, "ipykernel_version": version}}
    hint = next(one.hint for one in host._kernel(OPTIONS, found, {}) if one.step == "ipykernel")
    remote = shlex.split(shlex.split(hint.partition("run: ")[2])[-1])
    assert remote == [python, "-m", "pip", "install", *(["--upgrade"] if version else []), "ipykernel"]
    assert remote[-1] == "ipykernel"


def test_a_key_that_is_not_there_was_not_tried(tmp_path: Path) -> None:
    (tmp_path / "my key").touch()
    debug_lines = [
        "debug1: Authenticating to gpu1:22 as 'me'",
        "debug1: Authentications that can continue: publickey,password",
        "debug1: Offering public key: /agent/key ED25519 SHA256:x agent",
        f"debug1: Trying private key: {tmp_path}/my key",
        f"debug1: Trying private key: {tmp_path}/id_dsa",
    ]
    tried = hop_login.what_was_tried(hop_login.read_logins(debug_lines))
    assert tried.endswith(f", tried: /agent/key, {tmp_path}/my key")
    none = hop_login.what_was_tried(hop_login.read_logins([*debug_lines[:2], debug_lines[-1]]))
    assert none.endswith(", no key was tried")


def test_an_ssh_config_that_breaks_meanwhile_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: LaunchOptions) -> int:
        raise SshConfigError("ssh refuses its configuration", "mend it")

    monkeypatch.setattr(masters, "master_pid", broken)
    found = route.sessions_finding(OPTIONS)
    assert (found.state, found.hint) == (State.UNKNOWN, "mend it")
    assert "ssh refuses its configuration" in found.text
    assert [one.state for one in steps._login_findings(OPTIONS, [], 0.0)] == [State.UNKNOWN, State.UNKNOWN]


def test_a_machine_that_starts_no_more_processes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = subprocess.Popen

    def short(*words: Any, **how: Any) -> Any:
        if len(started) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(popen(["cat"], **how))
        return started[-1]

    monkeypatch.setattr(masters, "master_pid", lambda _: 1)
    monkeypatch.setattr(choice, "carrier_argv", lambda *_: ["cat"])
    monkeypatch.setattr(choice, "verbose", lambda _, argv: argv)
    monkeypatch.setattr(carrier.subprocess, "Popen", short)
    assert route.sessions_finding(OPTIONS).state is State.UNKNOWN
    assert [one.returncode for one in started] == [0, 0]


def test_what_ssh_leaves_in_the_background_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared connection that it has made keeps its stderr open for minutes."""
    pids = tmp_path / "pids"
    script = f"sleep 30 >/dev/null </dev/null & echo $! >>{shlex.quote(str(pids))}; echo SSH-2.0-x; exec cat"
    monkeypatch.setattr(carrier, "_END_SECONDS", 0.1)
    monkeypatch.setattr(masters, "master_pid", lambda _: 1)
    monkeypatch.setattr(openssh, "reach_argv", lambda *_: [])
    monkeypatch.setattr(choice, "carrier_argv", lambda *_: [])
    monkeypatch.setattr(choice, "verbose", lambda *_: ["sh", "-c", script])
    began = time.monotonic()
    try:
        assert route.sessions_finding(OPTIONS).state is State.OK
        assert hop_login.version_behind(OPTIONS, OPTIONS, "gpu2", 22, []) == "SSH-2.0-x"
        assert time.monotonic() - began < 20
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
