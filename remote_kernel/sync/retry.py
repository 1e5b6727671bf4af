"""Go on after a lost connection: try again while there is hope, and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from remote_kernel.errors import ConnectionLost, RemoteKernelError, is_temporary

PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE = 10.0
_LONG_SECONDS = 30.0

Result = TypeVar("Result")


def persistently(
    action: Callable[[], Result],
    tell: Callable[[RemoteKernelError], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Result:
    """Give what the action gives, called again for so long after it first lost a connection that had been up.

    One that had been up for a while counts as a first one again. A host that was never reached is an error at once;
    `tell` hears of every other one.
    """
    deadline = 0.0
    pause = FIRST_PAUSE_SECONDS
    while True:
        begun = time.monotonic()
        try:
            return action()
        except RemoteKernelError as error:
            now = time.monotonic()
            if isinstance(error, ConnectionLost) and (not deadline or now - begun > _LONG_SECONDS):
                deadline, pause = now + patience_seconds, FIRST_PAUSE_SECONDS
            if not is_temporary(error) or now >= deadline:
                raise
            tell(error)
        time.sleep(pause)  # there is no event for a network that is back
        pause = min(pause * 2, _LONGEST_PAUSE)
