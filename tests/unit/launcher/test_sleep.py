"""A machine that wakes looks at its connection at once. The clock is a fake: a real one cannot be made to sleep."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import ConnectionLost, RemoteKernelError
from remote_kernel.launcher import reconnect as module
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.reconnect import Contact
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


class Keeper:
    """Whose contact it is, and who only remembers what it was told to do."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.attempts: list[float] = []
        self.error: RemoteKernelError | None = None

    def begin(self, seconds: float) -> None:
        raise AssertionError("there is a kernel")

    def attach(self, seconds: float) -> None:
        self.attempts.append(self._clock.time())

    def arrived(self) -> None:
        raise AssertionError("nobody went anywhere")

    def returned(self, error: RemoteKernelError, *, arrived: bool, silent: bool) -> None:
        raise AssertionError("nobody went anywhere")

    def stop(self, error: RemoteKernelError) -> None:
        self.error = error


@pytest.fixture
def keeper(clock: FakeClock) -> Keeper:
    return Keeper(clock)


@pytest.fixture
def contact(clock: FakeClock, keeper: Keeper) -> Iterator[Contact]:
    with Reactor() as reactor:
        options = LaunchOptions(Endpoint.parse("nowhere"), linger_seconds=3600.0)
        yield Contact(reactor, Link(), Log(), options, keeper)


def kinds(contact: Contact) -> list[int]:
    found = []
    while frame := bytes(contact._link.next_frame()):
        found.append(HEADER.unpack_from(frame)[0])
    return found


def test_a_wake_asks_the_other_end_for_a_sign_of_life(contact: Contact, clock: FakeClock) -> None:
    contact._link.connected(clock.monotonic())
    contact.watch_clock()
    clock.awake += 5
    clock.asleep += 3600
    contact.watch_clock()
    assert kinds(contact) == [HELLO, PING]
    assert contact._link.tick(clock.monotonic() + PROBE_SECONDS - 0.1)
    assert not contact._link.tick(clock.monotonic() + PROBE_SECONDS + 0.1)


def test_a_clock_that_was_set_a_little_is_no_wake(contact: Contact, clock: FakeClock) -> None:
    contact._link.connected(clock.monotonic())
    contact.watch_clock()
    clock.awake += 5
    clock.asleep += 2
    contact.watch_clock()
    assert kinds(contact) == [HELLO]


def test_a_wake_tries_at_once_what_was_to_be_tried_later(contact: Contact, keeper: Keeper, clock: FakeClock) -> None:
    contact.was_made, contact._retry = True, contact._reactor.call_later(30, lambda: None)
    contact._attempts = 7
    contact.watch_clock()
    assert not keeper.attempts
    clock.asleep += 60
    contact.watch_clock()
    assert len(keeper.attempts) == 1
    assert contact._attempts == 1


def test_the_last_attempt_is_at_the_end_of_the_lease(contact: Contact, keeper: Keeper, clock: FakeClock) -> None:
    contact._lost_since, contact._attempts = clock.clock_gettime(0) - 3595.0, 7
    contact._try_again()
    assert contact._retry
    assert contact._retry.at <= time.monotonic() + 5.0
    clock.awake += 5.1
    contact._try_again()
    assert isinstance(keeper.error, ConnectionLost)


def test_a_clock_that_was_set_ends_no_lease(contact: Contact, keeper: Keeper, clock: FakeClock) -> None:
    contact.lost(ConnectionLost("the connection was lost"), silent=False)
    clock.awake += 10
    clock.was_set = 7200.0
    contact._try_again()
    assert keeper.error is None
    clock.asleep += 3600.0
    contact._try_again()
    assert isinstance(keeper.error, ConnectionLost)
