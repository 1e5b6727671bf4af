"""Whom to ask for what only a person knows. A kernel's start has nobody; `remote_kernel login` has a terminal."""

from __future__ import annotations

from typing import Protocol


class Person(Protocol):
    """Answers questions at a terminal; Ctrl-C raises KeyboardInterrupt, a terminal that is gone EOFError."""

    def answers(self, prompt: str, *, echo: bool) -> str:
        """Show a prompt and give the answer; a secret is not shown while it is typed."""

    def confirms(self, facts: str, question: str) -> bool:
        """Show facts and a question; true only for a whole `yes`."""

    def is_asked(self) -> bool:
        """True if somebody is asking for a secret at the terminal now: its echo is off."""

    def hears(self, text: str, *, end: str = "\n") -> None:
        """Show something, in a line of its own; another `end` leaves the cursor behind it."""
