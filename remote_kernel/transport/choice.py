"""Reach the remote host by the user's ssh, or by paramiko where there is none or the user says so.

What carries the bytes is a command line whose stdin and stdout they are, with ssh's exit status and ssh's words on
stderr. Nobody above this module knows which one it is, and nothing else imports `transport.paramiko`, which takes 0.2 s
to load.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from remote_kernel.options import Forward, LaunchOptions
from remote_kernel.transport import openssh, ssh_config
from remote_kernel.transport.ssh_config import HopAddress, destination, uses_openssh
from remote_kernel.transport.ssh_messages import Person

PROGRAM = "remote_kernel.transport.paramiko.program"


def carrier_argv(options: LaunchOptions, remote_command: str, *, avoid_master: bool = False) -> list[str]:
    """Return the command that runs `remote_command` there. Raises SshNotFound, SshConfigError, UsageError."""
    if uses_openssh(options):
        return openssh.ssh_argv(options, remote_command, avoid_master=avoid_master)
    # Its stderr is for people: not for what a library has to say of the one below it.
    return [sys.executable, "-Wignore", "-m", PROGRAM, *destination(options), remote_command]


def subsystem_argv(options: LaunchOptions, subsystem: str) -> list[str]:
    """Return the command that speaks with a subsystem of the server, such as sftp. Raises what `carrier_argv` does."""
    program, *words = carrier_argv(options, subsystem)
    if uses_openssh(options):
        return [program, "-s", *words]
    return [program, *words[:-1], "-s", subsystem]


def verbose(options: LaunchOptions, argv: list[str]) -> list[str]:
    """Return a carrier's command with which it tells on stderr what it does."""
    # Not -v: with that a master in the background would hold on to stderr.
    if uses_openssh(options):
        return [argv[0], "-oLogLevel=DEBUG1", *argv[1:]]
    program = argv.index(PROGRAM) + 1
    return [*argv[:program], "-v", *argv[program:]]


def session_argv(options: LaunchOptions, remote_command: str, *, terminal: bool) -> list[str]:
    """Return the command that runs `remote_command` there for a person. Raises what `carrier_argv` does."""
    if uses_openssh(options):
        return openssh.session_argv(options, remote_command, terminal=terminal)
    asks = ["-t"] if terminal else []
    return [sys.executable, "-m", PROGRAM, *asks, *destination(options), remote_command]


def environment(options: LaunchOptions) -> dict[str, str]:
    """Return the carrier's environment."""
    if uses_openssh(options):
        return ssh_config.environment()
    # Python would look for modules in the notebook's folder first (and does before 3.11).
    return {**ssh_config.environment(), "PYTHONSAFEPATH": "1"}


def complete_stderr(options: LaunchOptions, stderr: str) -> str:
    """Return what the carrier printed when it failed, with what it left out."""
    return openssh.complete_stderr(options, stderr) if uses_openssh(options) else stderr


def hops(options: LaunchOptions) -> list[HopAddress]:
    """Return the servers on the way, the nearest first. Raises SshNotFound, SshConfigError, SshFailure."""
    if uses_openssh(options):
        return ssh_config.hops(options)
    from remote_kernel.transport.paramiko import client

    return client.hop_addresses(options)


def not_honoured(options: LaunchOptions) -> list[str]:
    """Return what the ssh config asks for on this way and the transport cannot do. Raises SshFailure."""
    if uses_openssh(options):
        return []
    from remote_kernel.transport.paramiko import client

    return client.not_honoured(options)


def log_in_without_openssh(options: LaunchOptions, person: Person | None) -> str:
    """Log in once by paramiko, and return a sentence on what that means for kernels. Raises SshFailure."""
    from remote_kernel.transport.paramiko import client

    return client.log_in_once(options, person)


def secrets_in_keyring(options: LaunchOptions, *, remove: bool = False) -> list[str]:
    """Return the names of this way's secrets in the keyring, where paramiko finds them; `remove` takes them out of it.

    Raises SshFailure for a configuration that is wrong.
    """
    from remote_kernel.transport.paramiko import client

    return client.remove_secrets(options) if remove else client.stored_secrets(options)


def forward_without_openssh(options: LaunchOptions, forwards: Sequence[Forward], opened: Callable[[], None]) -> None:
    """Forward ports by sshtunnel until the connection breaks. Raises what `client.forward_ports` does."""
    from remote_kernel.transport.paramiko import client

    client.forward_ports(options, forwards, opened)
