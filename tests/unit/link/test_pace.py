"""How much is under way on a path of a given speed and length, by a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from remote_kernel.link.pace import FIRST_BYTES, LEAST_BYTES, MOST_BYTES, STEADY_BYTES, TARGET_SECONDS, Pace


class Path:
    """A path of a given speed and length, and a sender that always has more for it."""

    def __init__(self, bytes_per_second: float, round_trip: float) -> None:
        self.pace = Pace()
        self.bytes_per_second, self.round_trip = bytes_per_second, round_trip
        self._now = self._free_at = 0.0
        self._answers: list[tuple[float, int]] = []
        self.jitter: Callable[[], float] = lambda: 0.0  # seconds that an answer takes longer

    def run(self, seconds: float, settles_in: float | None = None) -> tuple[float, float]:
        """Send for so long; return the throughput, and the longest wait after it has settled, in half of the time."""
        start, sent, worst = self._now, 0, 0.0
        settled = start + (seconds / 2 if settles_in is None else settles_in)
        while self._now < start + seconds:
            while self._answers and self._answers[0][0] <= self._now:
                when, offset = self._answers.pop(0)
                self.pace.answered(offset, when)
            while self.pace.allows() and self._now < start + seconds:
                frame = min(self.pace.frame_bytes, 64 << 10)
                self.pace.sent(frame)
                sent += frame
                self._free_at = max(self._free_at, self._now) + frame / self.bytes_per_second
                if self._now >= settled:
                    worst = max(worst, self._free_at - self._now)
                offset = self.pace.mark(self._now)
                if offset:
                    when = self._free_at + self.round_trip + self.jitter()
                    self._answers.append((max([when, *(last for last, _ in self._answers[-1:])]), offset))
            self._now = self._answers[0][0] if self._answers else self._now + 0.001
        return sent / seconds, worst


@pytest.mark.parametrize("bytes_per_second", [3e5, 1e6, 1e7])
def test_queue_of_a_slow_path_stays_short(bytes_per_second: float) -> None:
    throughput, worst = Path(bytes_per_second, 0.03).run(20.0)
    assert worst < max(6 * TARGET_SECONDS, 2 * LEAST_BYTES / bytes_per_second)
    assert throughput > 0.8 * bytes_per_second


@pytest.mark.parametrize("round_trip", [0.03, 0.5])
def test_nothing_waits_for_five_seconds_at_ten_kilobytes_per_second(round_trip: float) -> None:
    path = Path(1e4, round_trip)
    throughput, worst = path.run(120.0, settles_in=0.0)
    assert worst < 4.5, "from the first byte on, when nothing is known of the path"
    assert throughput > 0.9 * 1e4
    assert path.run(60.0)[1] < 2.5


def test_fast_and_long_path_is_filled() -> None:
    throughput, _ = Path(80e6, 0.05).run(5.0)
    assert throughput > 0.8 * 80e6
    throughput, _ = Path(1e9, 0.05).run(0.25)
    assert throughput > 20e6, "within five round trips"


def test_path_with_a_varying_delay_is_not_taken_for_a_slow_one() -> None:
    path, chance = Path(20e6, 0.03), random.Random(1)
    path.jitter = lambda: chance.choice([0.0, 0.0, 0.3])
    throughput, _ = path.run(30.0)
    assert throughput > 1e6
    assert path.pace.limit >= STEADY_BYTES


def test_limit_grows_only_when_it_is_used() -> None:
    pace = Pace()
    for n in range(1, 20):
        pace.sent(FIRST_BYTES // 2)
        pace.answered(pace.mark(float(n)), n + 0.01)
    assert pace.limit == FIRST_BYTES


def test_limit_stays_within_its_bounds() -> None:
    path = Path(1e9, 0.001)
    path.run(0.5)
    assert path.pace.limit <= MOST_BYTES
    path.bytes_per_second, path.round_trip = 1e6, 0.03
    path.run(60.0)
    assert LEAST_BYTES <= path.pace.limit <= 4 * STEADY_BYTES


def test_longer_path_is_believed_after_a_while() -> None:
    path = Path(20e6, 0.01)
    path.run(5.0)
    path.round_trip = 0.25
    path.run(150.0)
    throughput, _ = path.run(20.0)
    assert throughput > 0.7 * 20e6


def test_answers_to_nothing_say_nothing() -> None:
    pace = Pace()
    pace.sent(FIRST_BYTES)
    offset = pace.mark(1.0)
    pace.answered(offset + 1, 1.5)
    pace.answered(0, 1.5)
    assert not pace.allows()
    pace.answered(offset, 1.1)
    assert pace.allows()
