"""Keep the queue short that a slow network makes of much output, so that what is urgent passes it.

What has been given to ssh cannot be overtaken, and ssh, sshd and TCP take megabytes: on a link of 1 MB/s a heartbeat
would wait for seconds behind a cell's output. So only so many bytes are under way that they wait TARGET_SECONDS
longer than an empty path takes: marks among the bytes, which the other end answers at once, tell how long that is.
"""

from __future__ import annotations

from collections import deque

TARGET_SECONDS = 0.1
LEAST_BYTES = 16 << 10  # 1.6 s at 10 KB/s
STEADY_BYTES = 64 << 10  # the least for a path that carries so many in a second: its delay varies, it is not slow
FIRST_BYTES = 32 << 10  # quadrupled with each round trip that nothing waits on, faster than TCP's own slow start
MOST_BYTES = 8 << 20
LONGEST_SECONDS = 2.0  # that what is under way may ever need
MOST_MARKS = 16  # under way: the other end takes 64 for an attack
MEMORY_SECONDS = 60.0  # after which the fastest answer is forgotten: the path may have become a longer one


class Pace:
    """How much may be under way on one pipe. Offsets count the streams' bytes on it; times are in seconds."""

    def __init__(self) -> None:
        self.limit = FIRST_BYTES
        self._sent = self._arrived = 0
        self._marks: deque[tuple[int, int, float]] = deque()  # offset, bytes under way with it, when
        self._last_mark = 0
        self._judged = 0  # what was sent when the limit was last looked at: later marks tell of the new one
        self._fastest = self._fastest_before = float("inf")
        self._since = 0.0

    @property
    def frame_bytes(self) -> int:
        """Return how much to send in one piece, which cannot be overtaken."""
        return max(LEAST_BYTES // 4, self.limit // 4)

    def allows(self) -> bool:
        """True if more may be sent of what is not urgent."""
        return self._sent - self._arrived < self.limit

    def sent(self, count: int) -> None:
        """Count bytes given to the pipe."""
        self._sent += count

    def mark(self, now: float) -> int:
        """Return the offset to mark now, or 0 when too few bytes have followed the last mark."""
        least = max(self.limit // 8, min(self.limit // 2, STEADY_BYTES))
        if self._sent - self._last_mark < least or len(self._marks) == MOST_MARKS:
            return 0
        self._last_mark = self._sent
        self._marks.append((self._sent, self._sent - self._arrived, now))
        return self._sent

    def answered(self, offset: int, now: float) -> None:
        """Adapt the limit to the answer to the mark at `offset`; any other answer says nothing."""
        if not self._marks or offset != self._marks[0][0]:
            return
        _, under_way, marked_at = self._marks.popleft()
        self._arrived = offset
        took = now - marked_at
        if now - self._since > MEMORY_SECONDS:
            self._since, self._fastest_before, self._fastest = now, self._fastest, took
        self._fastest = min(self._fastest, took)
        if offset <= self._judged or under_way <= self.limit // 2:
            return
        self._judged = self._sent
        waited = took - min(self._fastest, self._fastest_before)
        rate = under_way / took if took else MOST_BYTES  # bytes in a second
        if waited > TARGET_SECONDS:
            least = max(LEAST_BYTES, min(STEADY_BYTES, int(rate)))
            self.limit = max(least, int(self.limit * max(0.5, TARGET_SECONDS / waited)))
        else:  # bounded, because the fastest answer of a busy minute has waited too
            most = min(MOST_BYTES, int(rate * LONGEST_SECONDS))
            self.limit = max(self.limit, min(most, self.limit * (4 if waited < TARGET_SECONDS / 4 else 2)))
