"""Say what went wrong in the words that OpenSSH uses: one table tells the causes of both transports apart."""

from __future__ import annotations

ENDED_BEFORE_THE_TARGET = (
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535"
)


class Failure(Exception):
    """The connection cannot be made. The text is for stderr, in OpenSSH's words; it holds no secret."""


def at_a_jump_host(failure: Failure) -> Failure:
    """Give the failure of a jump host as the ssh behind it tells it."""
    text = str(failure)
    return failure if ENDED_BEFORE_THE_TARGET in text else Failure(f"{text}\n{ENDED_BEFORE_THE_TARGET}")
