"""Log in once without the OpenSSH client, to see that it works and to let a person keep their secrets in the keyring.

No connection can be kept for kernels: each of them makes its own, with what the keyring, the agent and the key files
have.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from remote_kernel.options import LaunchOptions
from remote_kernel.transport.paramiko import vault
from remote_kernel.transport.paramiko.config import Hop
from remote_kernel.transport.paramiko.connection import connect
from remote_kernel.transport.paramiko.secrets import Secrets
from remote_kernel.transport.paramiko.way import hops_of
from remote_kernel.transport.person import Person


def log_in(options: LaunchOptions, person: Person | None) -> str:
    """Log in to every hop on the way, and say what that means for kernels. Raises Failure."""
    secrets = Secrets(person)
    with ExitStack() as undo:
        connect(hops_of(options), undo, secrets)
    kept = [_offer_to_keep(name, secret, person) for name, secret in secrets.typed.items() if person]
    if secrets.questions:
        asked = ", ".join(f"'{question}'" for question in secrets.questions)
        return f"this login works, but no kernel can answer {asked}: that takes the OpenSSH client, which is asked once"
    if not all(kept):
        return (
            "this login works, but a kernel has nobody to ask for what was typed: "
            "keep it in the keyring, or load the key into ssh-agent"
        )
    return "kernels can log in by themselves"


def stored(options: LaunchOptions) -> list[str]:
    """Name the secrets for this way that are in the keyring. Raises Failure for a configuration that is wrong."""
    return [name for name in _names(hops_of(options)) if vault.read(name)]


def forget(options: LaunchOptions) -> list[str]:
    """Take this way's secrets out of the keyring and name them. Raises Failure for a configuration that is wrong."""
    return [name for name in stored(options) if vault.remove(name)]


def _names(hops: list[Hop]) -> list[str]:
    names = [vault.password_of(hop.user, hop.host, hop.port) for hop in hops]
    names += [vault.passphrase_of(path) for hop in hops for path in hop.keys if os.path.exists(path)]
    return list(dict.fromkeys(names))


def _offer_to_keep(name: str, secret: str, person: Person) -> bool:
    """Store a secret if there is a keyring and the person wants it; tell whether it is stored."""
    if reason := vault.missing():
        person.hears(f"the {name} cannot be kept: {reason}")
        return False
    question = f"Keep the {name} in the system's keyring, where kernels find it? (yes/no) "
    if not person.confirms("", question):
        return False
    if not vault.write(name, secret):
        person.hears("the keyring did not take it")
        return False
    return True
