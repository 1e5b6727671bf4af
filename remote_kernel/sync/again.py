"""Go on after a lost connection: try again while there is hope, and say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from remote_kernel.errors import (
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    JumpHostFailed,
    RemoteKernelError,
    TransportError,
    UnknownHost,
)

PATIENCE_SECONDS = 120.0
_LONGEST_PAUSE = 10.0
_MAY_PASS = {UnknownHost, ConnectionRefused, ConnectTimeout, JumpHostFailed, ConnectionLost, TransportError}

Result = TypeVar("Result")


def persistently(
    action: Callable[[], Result],
    tell: Callable[[RemoteKernelError], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Result:
    """Give what the action gives, called again for so long after it last lost a connection that had been up.

    A host that was never reached is an error at once; `tell` hears of every other one.
    """
    deadline = 0.0
    pause = 0.5
    while True:
        try:
            return action()
        except RemoteKernelError as error:
            now = time.monotonic()
            if isinstance(error, ConnectionLost):
                deadline, pause = now + patience_seconds, 0.5
            if type(error) not in _MAY_PASS or now >= deadline:
                raise
            tell(error)
        time.sleep(pause)  # there is no event for a network that is back
        pause = min(pause * 2, _LONGEST_PAUSE)
