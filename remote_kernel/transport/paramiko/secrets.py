"""Find passwords and passphrases where a login needs one: in the system's keyring, then with a person if there is one.

The keyring is reached through the `keyring` package, which is an extra: `pip install rkernel[keyring]`. Nothing is put
there unless a person says so; a kernel's start, which can ask nobody, looks there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType

from remote_kernel.transport.ssh_messages import Person

ATTEMPTS = 3  # as OpenSSH's NumberOfPasswordPrompts
SERVICE = "remote_kernel"
_ANSWER_SECONDS = 10.0  # a locked keyring may ask on a desktop that nobody sits at


def password_of(user: str, host: str, port: int) -> str:
    """Return the name of a password, as the keyring's own programs show it."""
    return f"password for {user}@{host}:{port}"


def passphrase_of(path: str) -> str:
    """Return the name of a key's passphrase."""
    return f"passphrase for {path}"


def why_no_keyring() -> str:
    """Return why there is no keyring to use, and what to do; empty where there is one."""
    keyring = _keyring()
    if keyring is None:
        return "the keyring package is not installed: pip install 'rkernel[keyring]'"
    if keyring.get_keyring().priority <= 0:
        return "this system has no keyring that can be used; 'python -m keyring diagnose' says more"
    return ""


def read(name: str) -> str:
    """Return a secret; empty where none is stored, or the keyring does not answer."""
    return _within(lambda keyring: keyring.get_password(SERVICE, name)) or ""


def write(name: str, secret: str) -> bool:
    """Store a secret; True if that went well."""
    return _within(lambda keyring: keyring.set_password(SERVICE, name, secret) or "stored", 60.0) is not None


def remove(name: str) -> bool:
    """Remove a secret; True if there was one."""
    return _within(lambda keyring: keyring.delete_password(SERVICE, name) or "removed", 60.0) is not None


def _keyring() -> ModuleType | None:
    try:
        import keyring
    except ImportError:
        return None
    return keyring


def _within(action: Callable[[ModuleType], str | None], seconds: float = _ANSWER_SECONDS) -> str | None:
    """Return what an action on the keyring returns; None when there is none, it fails, or takes too long."""
    keyring = _keyring()
    if keyring is None:
        return None
    found: list[str | None] = []

    def act() -> None:
        try:
            found.append(action(keyring))
        except Exception:  # each backend has errors of its own, and their texts may hold what is secret
            pass

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


class Secrets:
    """The secrets of one login, under the names that the keyring has for them.

    `typed` holds what a person typed and a server or key accepted; `questions` what a server asked of the person that
    no keyring can answer, such as a code that is good for once.
    """

    def __init__(self, person: Person | None = None) -> None:
        self.person = person
        self.typed: dict[str, str] = {}
        self.questions: list[str] = []

    def offers(self, name: str, prompt: str) -> Iterator[str]:
        """Yield what may be the secret, one after the other until the caller has had enough."""
        if stored := read(name):
            yield stored
        for _ in range(ATTEMPTS if self.person else 0):
            assert self.person
            given = self.person.ask(prompt, echo=False)
            if not given:
                return
            self.typed[name] = given
            yield given
            del self.typed[name]  # asked for another: that was not it
