"""Choose how bytes get to the remote host: the user's ssh, or paramiko where there is none or the user says so.

Whatever is chosen is a command line whose stdin and stdout are the bytes, with ssh's exit status and ssh's words on
stderr. Nobody above this module knows which one it is.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from remote_kernel.options import LaunchOptions, check_transport
from remote_kernel.transport import openssh

PROGRAM = "remote_kernel.transport.paramiko.program"
NOT_HONOURED = "without the OpenSSH client this is not honoured: "


def name(options: LaunchOptions) -> str:
    """Give the transport in force: what is asked for, else openssh where its program is found, else paramiko.

    Raises UsageError when REMOTE_KERNEL_TRANSPORT names none that exists.
    """
    asked = check_transport(options.transport_name())
    return asked or _default(os.environ.get("PATH", ""), os.environ.get("REMOTE_KERNEL_SSH", ""))


@cache
def _default(path: str, program: str) -> str:
    # A program that was asked for by name and is missing is an error to be told, not a reason to take another way.
    found = program or any(os.access(os.path.join(folder, "ssh"), os.X_OK) for folder in path.split(os.pathsep))
    return "openssh" if found else "paramiko"


def carrier_argv(options: LaunchOptions, remote_command: str, *, avoid_master: bool = False) -> list[str]:
    """Give the command that runs `remote_command` there. Raises SshNotFound, SshConfigError, UsageError."""
    if name(options) == "openssh":
        return openssh.ssh_argv(options, remote_command, avoid_master=avoid_master)
    # Its stderr is for people: not for what a library has to say of the one below it.
    return [sys.executable, "-Wignore", "-m", PROGRAM, *openssh.where(options), remote_command]


def subsystem_argv(options: LaunchOptions, subsystem: str) -> list[str]:
    """Give the command that speaks with a subsystem of the server, such as sftp. Raises what `carrier_argv` does."""
    program, *words = carrier_argv(options, subsystem)
    if name(options) == "openssh":
        return [program, "-s", *words]
    return [program, *words[:-1], "-s", subsystem]


def talkative(options: LaunchOptions, argv: list[str]) -> list[str]:
    """Give a carrier's command with which it tells on stderr what it does."""
    # Not -v: with that a master in the background would hold on to stderr.
    if name(options) == "openssh":
        return [argv[0], "-oLogLevel=DEBUG1", *argv[1:]]
    program = argv.index(PROGRAM) + 1
    return [*argv[:program], "-v", *argv[program:]]


def session_argv(options: LaunchOptions, remote_command: str, *, terminal: bool) -> list[str]:
    """Give the command that runs `remote_command` there for a person. Raises what `carrier_argv` does."""
    if name(options) == "openssh":
        return openssh.session_argv(options, remote_command, terminal=terminal)
    asks = ["-t"] if terminal else []
    return [sys.executable, "-m", PROGRAM, *asks, *openssh.where(options), remote_command]


def environment(options: LaunchOptions) -> dict[str, str]:
    """Give the carrier's environment."""
    if name(options) == "openssh":
        return openssh.environment()
    # Python would look for modules in the notebook's folder first (and does before 3.11).
    return {**openssh.environment(), "PYTHONSAFEPATH": "1"}


def jumps_of_the_config(options: LaunchOptions) -> str:
    """Return the jump hosts that the ssh config has for this host, separated by commas; empty for none."""
    from remote_kernel.errors import TransportError
    from remote_kernel.transport.paramiko.failure import Failure

    try:
        if name(options) == "openssh":
            found = openssh.effective_config(options).get("proxyjump", "none")
            return "" if found == "none" else found
        from remote_kernel.transport.paramiko.way import hops_of

        return ",".join(hop.name for hop in hops_of(options)[:-1])
    except (TransportError, Failure):  # the error that is being explained says more
        return ""


def in_full(options: LaunchOptions, stderr: str) -> str:
    """Give what the carrier printed when it failed, with what it left out."""
    if name(options) != "openssh":
        return stderr
    from remote_kernel.transport.account import with_refusal  # only here: few sessions fail

    return with_refusal(options, openssh.in_full(options, stderr))
