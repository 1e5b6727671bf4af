"""When an attempt counts as made: a program in the place of ssh breaks at a chosen moment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectionLost, RemoteKernelError
from remote_kernel.launcher.attempt import Attempt
from remote_kernel.launcher.log import Log
from remote_kernel.link.link import HELLO, PROTOCOL_VERSION, Link
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import LaunchOptions

FAKE = f"""#!{sys.executable}
import json, os, re, struct, sys, zlib
if "-G" in sys.argv:
    sys.exit(0)
size = int(re.search(r"read[(]([0-9]+)[)]", sys.argv[-1])[1])
marker = re.search(r"remote_kernel-[0-9a-f]{{16}}", sys.argv[-1])[0]
os.write(1, ("\\n" + marker + " reads\\n").encode())
assert sys.stdin.buffer.readline() == b"exit 97\\n" and sys.stdin.buffer.readline() == b"#\\n"
program = zlib.decompress(sys.stdin.buffer.read(size)).decode()
os.write(1, ("\\n" + marker + "\\n").encode())
if os.environ["GREETS"] == "yes":
    hello = json.dumps({{"version": {PROTOCOL_VERSION}, "highest": 15, "streams": {{}}}}).encode()
    os.write(1, struct.pack("!BIQI", {HELLO}, 0, 0, len(hello)) + hello)
"""


class AttemptEvents:
    """Note what an attempt reports, and end the loop with it."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.arrivals = 0
        self.end: tuple[RemoteKernelError, bool] | None = None

    def connected(self) -> None:
        self.arrivals += 1

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        self.end = (error, was_connected)
        self._reactor.stop()


@pytest.mark.parametrize(
    ("mode", "greets", "arrives"),
    [("attach", "no", False), ("attach", "yes", True), ("start", "no", True)],
)
def test_an_attach_has_arrived_with_the_agents_greeting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, greets: str, arrives: bool
) -> None:
    """Else a session that breaks behind its marker each time would be tried again without a pause."""
    fake = tmp_path / "ssh"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setenv("REMOTE_KERNEL_SSH", str(fake))
    monkeypatch.setenv("GREETS", greets)
    with Reactor() as reactor:
        events = AttemptEvents(reactor)
        options = LaunchOptions(Endpoint.parse("nowhere"))
        attempt = Attempt(reactor, Link(), Log(), options, events)
        attempt.start(mode, {}, 20.0)
        reactor.call_later(20.0, reactor.stop)
        reactor.run()
        attempt.close()
    assert events.end
    error, arrived = events.end
    assert (type(error), arrived, events.arrivals) == (ConnectionLost, arrives, int(arrives))
