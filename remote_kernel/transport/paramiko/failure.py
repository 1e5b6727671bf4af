"""Say what goes on, and what went wrong, in the words that OpenSSH uses: who reads them need not know which spoke."""

from __future__ import annotations

import logging
import sys

CHATTER = logging.getLogger("remote_kernel.ssh")
"""What the connection does, in the words of OpenSSH's LogLevel DEBUG1."""
CHATTER.propagate = False
CHATTER.addHandler(logging.NullHandler())
ENDED_BEFORE_THE_TARGET = (
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535"
)


class Failure(Exception):
    """The connection cannot be made. The text is for stderr, in OpenSSH's words; it holds no secret."""


def at_a_jump_host(failure: Failure) -> Failure:
    """Give the failure of a jump host as the ssh behind it tells it."""
    text = str(failure)
    return failure if ENDED_BEFORE_THE_TARGET in text else Failure(f"{text}\n{ENDED_BEFORE_THE_TARGET}")


def be_talkative() -> None:
    """Let the chatter go to stderr."""
    CHATTER.addHandler(logging.StreamHandler(sys.stderr))
    CHATTER.setLevel(logging.DEBUG)
