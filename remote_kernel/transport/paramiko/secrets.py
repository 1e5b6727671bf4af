"""Give passwords and passphrases where a login needs one: from the keyring, then from a person if there is one."""

from __future__ import annotations

from collections.abc import Iterator

from remote_kernel.transport.paramiko import vault
from remote_kernel.transport.person import Person

ATTEMPTS = 3  # as OpenSSH's NumberOfPasswordPrompts


class Secrets:
    """The secrets of one login, under the names that the vault has for them.

    `typed` holds what a person typed and a server or key accepted; `questions` what a server asked of the person that
    no keyring can answer, such as a code that is good for once.
    """

    def __init__(self, person: Person | None = None) -> None:
        self.person = person
        self.typed: dict[str, str] = {}
        self.questions: list[str] = []

    def offers(self, name: str, prompt: str) -> Iterator[str]:
        """Give what may be the secret, one after the other until the caller has had enough."""
        if stored := vault.read(name):
            yield stored
        for _ in range(ATTEMPTS if self.person else 0):
            assert self.person
            given = self.person.answers(prompt, echo=False)
            if not given:
                return
            self.typed[name] = given
            yield given
            del self.typed[name]  # asked for another: that was not it
