"""What the rest of the package does by paramiko, other than to run `program`: find the way, log in, forward ports."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import paramiko
import sshtunnel

from remote_kernel.errors import ConnectionLost, PortInUse
from remote_kernel.options import Forward, LaunchOptions
from remote_kernel.transport.paramiko.config import Config, Hop
from remote_kernel.transport.paramiko.connection import connect, forwarder
from remote_kernel.transport.paramiko.secrets import (
    Secrets,
    passphrase_of,
    password_of,
    read,
    remove,
    why_no_keyring,
    write,
)
from remote_kernel.transport.ssh_config import HopAddress, resolve_alias
from remote_kernel.transport.ssh_messages import Person


def hops_of(options: LaunchOptions) -> list[Hop]:
    """Return the hops on the way, the target last. Raises SshFailure."""
    return Config(options.ssh_config).hops(resolve_alias(options), options.jumps or None)


def hop_addresses(options: LaunchOptions) -> list[HopAddress]:
    """Return the servers on the way, the target last. Raises SshSshFailure."""
    return [
        HopAddress(hop.name, hop.host, hop.port, hop.proxy_command, hop.connect_seconds, options)
        for hop in hops_of(options)
    ]


def not_honoured(options: LaunchOptions) -> list[str]:
    """Return what the configuration asks for on this way, and paramiko cannot do. Raises SshFailure."""
    config = Config(options.ssh_config)
    config.hops(resolve_alias(options), options.jumps or None)
    return config.warnings


def log_in_once(options: LaunchOptions, person: Person | None) -> str:
    """Log in to every hop on the way, and return a sentence on what that means for kernels. Raises SshFailure.

    It shows that a login works, and lets a person keep their secrets in the keyring. No connection can be kept for
    kernels: each makes its own, with what the keyring, the agent and the key files have.
    """
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


def stored_secrets(options: LaunchOptions) -> list[str]:
    """Return the names of this way's secrets that are in the keyring. Raises SshFailure for a wrong configuration."""
    return [name for name in _secret_names(hops_of(options)) if read(name)]


def remove_secrets(options: LaunchOptions) -> list[str]:
    """Remove this way's secrets from the keyring; return their names. Raises SshFailure for a wrong configuration."""
    return [name for name in stored_secrets(options) if remove(name)]


def _secret_names(hops: list[Hop]) -> list[str]:
    names = [password_of(hop.user, hop.host, hop.port) for hop in hops]
    names += [passphrase_of(path) for hop in hops for path in hop.keys if os.path.exists(path)]
    return list(dict.fromkeys(names))


def _offer_to_keep(name: str, secret: str, person: Person) -> bool:
    """Store a secret if there is a keyring and the person wants it; True if it is stored."""
    if reason := why_no_keyring():
        person.show(f"the {name} cannot be kept: {reason}")
        return False
    question = f"Keep the {name} in the system's keyring, where kernels find it? (yes/no) "
    if not person.confirm("", question):
        return False
    if not write(name, secret):
        person.show("the keyring did not take it")
        return False
    return True


def forward_ports(options: LaunchOptions, forwards: Sequence[Forward], opened: Callable[[], None]) -> None:
    """Forward until the connection breaks; `opened` is called once all ports are open.

    Any number of connections may go through each; one that the remote host cannot pass on is closed. Raises PortInUse,
    ConnectionLost, SshFailure.
    """
    hops = hops_of(options)
    with ExitStack() as undo, suppress(paramiko.SSHException, EOFError):  # it broke
        transport, hop = connect(hops, undo), hops[-1]
        for forward in forwards:
            local = forwarder(transport, hop, ("127.0.0.1", forward.remote), ("127.0.0.1", forward.local))
            try:
                local.start()
            except sshtunnel.BaseSSHTunnelForwarderError as error:  # it does not say why
                message = f"port {forward.local} of this machine is in use"
                raise PortInUse(message, "choose another, for example 16006:6006") from error
            undo.callback(local.stop, force=True)
        opened()
        _wait_until_gone(transport, hop)
    raise ConnectionLost(f"the connection to {options.endpoint} broke", "try again")


def _wait_until_gone(transport: paramiko.Transport, hop: Hop) -> None:
    """Wait until the server is gone, or gives no sign of life."""
    while transport.is_active():
        asking = threading.Thread(target=_ask_for_a_sign, args=(transport,), daemon=True)
        asking.start()
        asking.join(hop.keepalive_seconds * hop.keepalive_count)
        if asking.is_alive():
            return
        for _ in range(10):
            time.sleep(hop.keepalive_seconds / 10)
            if not transport.is_active():
                return


def _ask_for_a_sign(transport: paramiko.Transport) -> None:
    try:
        transport.global_request("keepalive@openssh.com", wait=True)
    except (paramiko.SSHException, OSError, EOFError):
        pass  # it is not active any more
