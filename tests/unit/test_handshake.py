"""What is read of a session before our program there answers: a program in the place of ssh says it piece by piece."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_kernel import bootstrap, handshake
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectTimeout, RemoteKernelError, RemoteShellNoise
from remote_kernel.handshake import Handshake
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.launcher import attempt
from remote_kernel.launcher.attempt import Attempt
from remote_kernel.launcher.log import Log
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import LaunchOptions

OPTIONS = LaunchOptions(Endpoint.parse("slow"))
MARKER = "remote_kernel-0123456789abcdef"


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_an_answer_in_pieces_is_read_whole(size: int) -> None:
    """Behind what an rc file prints, any line may be cut by the end of a packet."""
    sent = b"Welcome!\n" + bootstrap.ready(MARKER) + f'\n{MARKER} {{"a": 1}}\nrest'.encode()
    hands = Handshake(OPTIONS, MARKER)
    rest = b""
    for start in range(0, len(sent), size):
        piece = sent[start : start + size]
        rest += piece if hands.answer is not None else hands.feed(piece)
    assert (hands.is_ready, hands.answer, rest) == (True, '{"a": 1}', b"rest")
    assert hands.noise.split() == [b"Welcome!"]


# In the place of ssh: a session that is silent. It has logged in where it makes the socket of a shared connection.
SILENT = f"""#!{sys.executable}
import os, sys
if "-G" in sys.argv:
    sys.exit(0)
with open(os.environ["SESSIONS"], "a") as file:
    file.write("x")
if os.environ["LOGS_IN"] == "yes":
    path = next(word.partition("=")[2] for word in sys.argv if word.startswith("-oControlPath="))
    open(path, "a").close()
if "is here" in sys.argv[-1]:
    print("remote_kernel is here", flush=True)
sys.stdin.buffer.readline()
sys.stdin.buffer.read()
"""


class AttemptEvents:
    """End the loop with the attempt."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.error: RemoteKernelError | None = None

    def connected(self) -> None:
        raise AssertionError

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        self.error = error
        self._reactor.stop()


def travel(seconds: float) -> None:
    with Reactor() as reactor:
        events = AttemptEvents(reactor)
        journey = Attempt(reactor, Link(), Log(), OPTIONS, events)
        journey.start("attach", {}, seconds)
        reactor.run()
        journey.close()
        assert events.error
        raise events.error


@pytest.mark.parametrize("program", [travel, lambda seconds: probe(OPTIONS, seconds)], ids=["attempt", "probe"])
@pytest.mark.parametrize(("logs_in", "count"), [("no", 1), ("yes", 2)])
def test_a_silent_session_is_looked_into_once_it_has_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[float], object], logs_in: str, count: int
) -> None:
    """Before, a second session would be a second login: another touch of a key, another attempt that is refused."""
    fake, sessions = tmp_path / "ssh", tmp_path / "sessions"
    fake.write_text(SILENT)
    fake.chmod(0o755)
    for name, value in {"REMOTE_KERNEL_SSH": fake, "SESSIONS": sessions, "LOGS_IN": logs_in}.items():
        monkeypatch.setenv(name, str(value))
    for module in (handshake, attempt):
        monkeypatch.setattr(module, "QUIET_SECONDS", 0.3)
    with pytest.raises(RemoteShellNoise if logs_in == "yes" else ConnectTimeout):
        program(20.0 if logs_in == "yes" else 2.0)
    assert len(sessions.read_text()) == count
