"""A machine that wakes looks at its connection at once. The clock is a fake: a real one cannot be made to sleep."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectionLost, RemoteKernelError
from remote_kernel.launcher import reconnect as module
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.reconnect import Reconnector
from remote_kernel.link.link import HEADER, HELLO, PING, PROBE_SECONDS, Link
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import LaunchOptions


class FakeClock:
    """`time`, `monotonic`, which sleep stops, and what `clock_gettime` gives, which nobody can set."""

    def __init__(self) -> None:
        self.awake, self.asleep, self.was_set = 1000.0, 0.0, 0.0

    def monotonic(self) -> float:
        return self.awake

    def time(self) -> float:
        return 1e9 + self.awake + self.asleep + self.was_set

    def clock_gettime(self, _: int) -> float:
        return self.awake + self.asleep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(module, "time", fake)
    return fake


class ReconnectEvents:
    """Whose reconnector it is, and who only remembers what it was told to do."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.attempts: list[float] = []
        self.error: RemoteKernelError | None = None

    def begin(self, seconds: float) -> None:
        raise AssertionError("there is a kernel")

    def attach(self, seconds: float) -> None:
        self.attempts.append(self._clock.time())

    def connected(self) -> None:
        raise AssertionError("nobody went anywhere")

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        raise AssertionError("nobody went anywhere")

    def stop(self, error: RemoteKernelError) -> None:
        self.error = error


@pytest.fixture
def events(clock: FakeClock) -> ReconnectEvents:
    return ReconnectEvents(clock)


@pytest.fixture
def reconnector(clock: FakeClock, events: ReconnectEvents) -> Iterator[Reconnector]:
    with Reactor() as reactor:
        options = LaunchOptions(Endpoint.parse("nowhere"), linger_seconds=3600.0)
        yield Reconnector(reactor, Link(), Log(), options, events)


def kinds(reconnector: Reconnector) -> list[int]:
    found = []
    while frame := bytes(reconnector._link.next_frame()):
        found.append(HEADER.unpack_from(frame)[0])
    return found


def test_a_wake_asks_the_other_end_for_a_sign_of_life(reconnector: Reconnector, clock: FakeClock) -> None:
    reconnector._link.connected(clock.monotonic())
    reconnector.watch_clock()
    clock.awake += 5
    clock.asleep += 3600
    reconnector.watch_clock()
    assert kinds(reconnector) == [HELLO, PING]
    assert reconnector._link.tick(clock.monotonic() + PROBE_SECONDS - 0.1)
    assert not reconnector._link.tick(clock.monotonic() + PROBE_SECONDS + 0.1)


def test_a_clock_that_was_set_a_little_is_no_wake(reconnector: Reconnector, clock: FakeClock) -> None:
    reconnector._link.connected(clock.monotonic())
    reconnector.watch_clock()
    clock.awake += 5
    clock.asleep += 2
    reconnector.watch_clock()
    assert kinds(reconnector) == [HELLO]


def test_a_wake_tries_at_once_what_was_to_be_tried_later(
    reconnector: Reconnector, events: ReconnectEvents, clock: FakeClock
) -> None:
    reconnector.was_connected, reconnector._retry = True, reconnector._reactor.call_later(30, lambda: None)
    reconnector._tries = 7
    reconnector.watch_clock()
    assert not events.attempts
    clock.asleep += 60
    reconnector.watch_clock()
    assert len(events.attempts) == 1
    assert reconnector._tries == 1


def test_the_last_attempt_is_at_the_end_of_the_lease(
    reconnector: Reconnector, events: ReconnectEvents, clock: FakeClock
) -> None:
    reconnector._lost_since, reconnector._tries = clock.clock_gettime(0) - 3595.0, 7
    reconnector._try_again()
    assert reconnector._retry
    assert reconnector._retry.at <= time.monotonic() + 5.0
    clock.awake += 5.1
    reconnector._try_again()
    assert isinstance(events.error, ConnectionLost)


def test_a_clock_that_was_set_ends_no_lease(
    reconnector: Reconnector, events: ReconnectEvents, clock: FakeClock
) -> None:
    reconnector.lost(ConnectionLost("the connection was lost"), silent=False)
    clock.awake += 10
    clock.was_set = 7200.0
    reconnector._try_again()
    assert events.error is None
    clock.asleep += 3600.0
    reconnector._try_again()
    assert isinstance(events.error, ConnectionLost)
