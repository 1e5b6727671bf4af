"""A machine that wakes looks at its connection at once. The clock is a fake: a real one cannot be made to sleep."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from remote_kernel import launcher as module
from remote_kernel.connection_file import Connection
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectionLost
from remote_kernel.launcher import Launcher
from remote_kernel.link import HEADER, HELLO, PING, PROBE_SECONDS
from remote_kernel.log import Log
from remote_kernel.options import LaunchOptions
from remote_kernel.reactor import Reactor


class FakeClock:
    """`time` and `monotonic`, of which sleep stops only the second."""

    def __init__(self) -> None:
        self.awake, self.asleep = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.awake

    def time(self) -> float:
        return 1e9 + self.awake + self.asleep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(module, "time", fake)
    return fake


@pytest.fixture
def launcher(clock: FakeClock) -> Iterator[Launcher]:
    with Reactor() as reactor:
        options = LaunchOptions(Endpoint.parse("nowhere"))
        yield Launcher(reactor, options, Connection("tcp", "127.0.0.1", {}, {}), Log())


def kinds(launcher: Launcher) -> list[int]:
    found = []
    while frame := bytes(launcher._link.next_frame()):
        found.append(HEADER.unpack_from(frame)[0])
    return found


def test_a_wake_asks_the_other_end_for_a_sign_of_life(launcher: Launcher, clock: FakeClock) -> None:
    launcher._link.connected(clock.monotonic())
    launcher._watch_clock()
    clock.awake += 5
    clock.asleep += 3600
    launcher._watch_clock()
    assert kinds(launcher) == [HELLO, PING]
    assert launcher._link.tick(clock.monotonic() + PROBE_SECONDS - 0.1)
    assert not launcher._link.tick(clock.monotonic() + PROBE_SECONDS + 0.1)


def test_a_clock_that_was_set_a_little_is_no_wake(launcher: Launcher, clock: FakeClock) -> None:
    launcher._link.connected(clock.monotonic())
    launcher._watch_clock()
    clock.awake += 5
    clock.asleep += 2
    launcher._watch_clock()
    assert kinds(launcher) == [HELLO]


def test_a_wake_tries_at_once_what_was_to_be_tried_later(
    launcher: Launcher, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []
    monkeypatch.setattr(launcher, "_attach", lambda: attempts.append(clock.time()))
    launcher._arrived, launcher._retry = True, launcher._reactor.call_later(30, lambda: None)
    launcher._attempts = 7
    launcher._watch_clock()
    assert not attempts
    clock.asleep += 60
    launcher._watch_clock()
    assert len(attempts) == 1
    assert launcher._attempts == 0


def test_the_last_attempt_is_at_the_end_of_the_lease(launcher: Launcher, clock: FakeClock) -> None:
    launcher._options = launcher._options._replace(linger_seconds=3600.0)
    launcher._lost_at, launcher._attempts = clock.time() - 3595.0, 7
    launcher._try_again()
    assert launcher._retry
    assert launcher._retry.at <= time.monotonic() + 5.0
    clock.awake += 5.1
    launcher._try_again()
    assert isinstance(launcher._error, ConnectionLost)
