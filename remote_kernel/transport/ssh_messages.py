"""What a transport says: OpenSSH's words for what failed, whichever transport it is, and the person whom it may ask.

`ssh_errors` reads these words, and so do people: nobody needs to know which transport wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

NOT_HONOURED = "without the OpenSSH client this is not honoured: "
SHELL_REPLACED_STATUS = 97  # of a shell that read what was sent to our program: `bootstrap.FIRST_LINE` tells it so
NO_SESSION_STATUS = 254  # sshd's own, for a session that it refuses: /etc/nologin, a PAM session that does not open
ENDED_BEFORE_THE_TARGET = (
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535"
)
LOCKED_KEY = "the key has a passphrase and is not in the agent"
"""What follows a key's path. It is ours: ssh passes such a key over in silence."""
_LONGEST = 300


class SshFailure(Exception):
    """The connection cannot be made. The text is for stderr, in OpenSSH's words; it holds no secret."""


class Person(Protocol):
    """A person at a terminal; Ctrl-C raises KeyboardInterrupt, a terminal that is gone EOFError.

    A kernel's start has nobody to ask; `remote_kernel login` has.
    """

    def ask(self, prompt: str, *, echo: bool) -> str:
        """Show a prompt and return the answer; a secret is not shown while it is typed."""

    def confirm(self, facts: str, question: str) -> bool:
        """Show facts and a question; return True only for a whole `yes`."""

    def is_being_asked(self) -> bool:
        """True if the terminal waits for a secret now: its echo is off."""

    def show(self, text: str, *, end: str = "\n") -> None:
        """Show a text on a line of its own; another `end` leaves the cursor behind it."""


def at_jump_host(failure: SshFailure) -> SshFailure:
    """Return the failure of a jump host in the words of the ssh behind it."""
    text = str(failure)
    return failure if ENDED_BEFORE_THE_TARGET in text else SshFailure(f"{text}\n{ENDED_BEFORE_THE_TARGET}")


def account_refused(host: str, port: int | str, words: Iterable[str]) -> str:
    """Return the line for an account that was refused, with the server's words. It is ours: OpenSSH has none."""
    said = "; ".join(line.strip() for line in words if line.strip())
    return f"Account refused by {host} port {port}: {said[:_LONGEST]}\n"
