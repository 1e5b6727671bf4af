"""Keep what a person has typed in the system's keyring, and look it up for a kernel's start, which can ask nobody.

The keyring is reached through the `keyring` package, which is an extra: `pip install rkernel[keyring]`. Nothing is put
there unless a person says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType

SERVICE = "remote_kernel"
_PATIENCE_SECONDS = 10.0  # a locked keyring may ask on a desktop that nobody sits at


def password_of(user: str, host: str, port: int) -> str:
    """Name a password, as the keyring's own programs show it."""
    return f"password for {user}@{host}:{port}"


def passphrase_of(path: str) -> str:
    """Name a key's passphrase."""
    return f"passphrase for {path}"


def missing() -> str:
    """Say why there is no keyring to use, and what to do; empty where there is one."""
    keyring = _keyring()
    if keyring is None:
        return "the keyring package is not installed: pip install 'rkernel[keyring]'"
    if keyring.get_keyring().priority <= 0:
        return "this system has no keyring that can be used; 'python -m keyring diagnose' says more"
    return ""


def read(name: str) -> str:
    """Give a secret; empty where none is stored, or the keyring does not answer."""
    return _patiently(lambda keyring: keyring.get_password(SERVICE, name)) or ""


def write(name: str, secret: str) -> bool:
    """Store a secret, and tell whether that went well."""
    return _patiently(lambda keyring: keyring.set_password(SERVICE, name, secret) or "stored", 60.0) is not None


def remove(name: str) -> bool:
    """Remove a secret, and tell whether there was one."""
    return _patiently(lambda keyring: keyring.delete_password(SERVICE, name) or "removed", 60.0) is not None


def _keyring() -> ModuleType | None:
    try:
        import keyring
    except ImportError:
        return None
    return keyring


def _patiently(action: Callable[[ModuleType], str | None], seconds: float = _PATIENCE_SECONDS) -> str | None:
    """Give what an action on the keyring gives; None when there is none, it fails, or takes too long."""
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
