"""Share one SSH connection among kernels: OpenSSH's ControlMaster, one for each place that a name leads to."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from remote_kernel.errors import TransportError
from remote_kernel.files import private_folder
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.ssh_config import (
    Settings,
    all_settings,
    destination,
    environment,
    first_of_each,
    hop_settings,
    printed_settings,
    ssh_program,
)

MASTER_SECONDS = 600  # a restart, a second kernel or a sync within ten minutes skips the handshake
MASTERS_FOLDER = "ssh"
"""The folder, in the private one, of the shared connections' sockets."""

_CONTROL_PATH = "-oControlPath="
# Settings that are each session's own, so that a shared connection serves those with others as well; whatever else
# ssh -G prints decides where, as whom or how a connection is made.
_SESSION_KEYWORDS = frozenset(
    (
        *("clearallforwardings", "controlmaster", "controlpath", "controlpersist", "dynamicforward"),
        *("enableescapecommandline", "escapechar", "exitonforwardfailure", "forkafterauthentication", "localcommand"),
        *("localforward", "loglevel", "logverbose", "permitlocalcommand", "remotecommand", "remoteforward"),
        *("requesttty", "sendenv", "sessiontype", "setenv", "stdinnull", "syslogfacility"),
    )
)


class Master(NamedTuple):
    """A shared connection of ours: its socket, and what tells it from a successor that has the same."""

    socket: str
    inode: int
    changed_ns: int


def config_shares(config: Mapping[str, str]) -> bool:
    """True if the user's config shares a connection of its own, which we then use and leave alone."""
    return config.get("controlpath", "none") != "none"


def master_options(options: LaunchOptions, settings: Settings, persist_seconds: float = MASTER_SECONDS) -> list[str]:
    """Return the options that share one connection among our kernels, unless the user's config shares one already."""
    if config_shares(first_of_each(settings)):
        return []
    path = control_path(options, settings)
    return ["-oControlMaster=auto", f"{_CONTROL_PATH}{path}", f"-oControlPersist={persist_seconds:.0f}"]


def control_path(options: LaunchOptions, settings: Settings) -> str:
    """Return the socket of the connection that kernels share on this way: another one for each place it can lead to.

    Raises SshNotFound, SshConfigError.
    """
    found = [each for _, each in hop_settings(options, settings)]
    found.append(_proxy_command_settings(first_of_each(found[0])))
    way = [f"{name} {value}" for each in found for name, value in each if name not in _SESSION_KEYWORDS]
    return os.path.join(private_folder(MASTERS_FOLDER), _name_checksum(options) + _checksum([ssh_program(), *way])[:12])


def _proxy_command_settings(config: Mapping[str, str]) -> Settings:
    """Return the settings of the ssh that a ProxyCommand runs: `ssh -W %h:%p gate` leads where `gate` does."""
    command = config.get("proxycommand", "none")
    if "ssh" not in command:
        return []
    from shlex import split  # only here: the launcher imports this module before it starts ssh

    known = {"%h": config.get("hostname", ""), "%p": config.get("port", ""), "%r": config.get("user", "")}
    try:
        program, *words = split(re.sub("%.", lambda found: known.get(found[0], found[0]), command))
        return printed_settings([program, "-G", *words]) if os.path.basename(program) == "ssh" else []
    except (ValueError, TransportError):  # whatever it is, ssh will say so
        return []


def _checksum(words: Sequence[str]) -> str:
    return hashlib.sha256(os.fsencode("\0".join(words))).hexdigest()


def _name_checksum(options: LaunchOptions) -> str:
    return _checksum(destination(options))[:6]


def master_of(argv: Sequence[str]) -> Master | None:
    """Return the shared connection that a command goes over; None while there is none, and where it is not ours."""
    return master_at(_control_path_in(argv))


def is_logged_in(options: LaunchOptions, argv: Sequence[str]) -> bool:
    """True if there is a shared connection already that this command, an `ssh_argv`, goes over."""
    if _control_path_in(argv):
        return master_of(argv) is not None
    return _pid_from([ssh_program(), "-O", "check", *destination(options)]) > 0


def _control_path_in(argv: Sequence[str]) -> str:
    """Return the socket of a shared connection of ours that a command names; empty where it names none."""
    paths = [word.removeprefix(_CONTROL_PATH) for word in argv if word.startswith(f"{_CONTROL_PATH}/")]
    return paths[0] if paths else ""


def master_at(path: str) -> Master | None:
    """Return the shared connection whose socket this is; None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return Master(path, found.st_ino, found.st_ctime_ns)


def exists(master: Master) -> bool:
    """True if that shared connection's socket is still there, and not a successor's."""
    return master_at(master.socket) == master


def master_pid(options: LaunchOptions) -> int:
    """Return the process that holds the shared connection, ours or the one of the user's config; 0 when there is none.

    Raises SshNotFound, SshConfigError.
    """
    settings = all_settings(options)
    if not config_shares(first_of_each(settings)):
        return pid_at(control_path(options, settings))
    return _pid_from([ssh_program(), "-O", "check", *destination(options)])


def pid_at(path: str) -> int:
    """Return the process that holds the shared connection with this socket; 0 when there is none."""
    return _pid_from([*_control_argv(path), "-O", "check", "any"])


def _control_argv(path: str) -> list[str]:
    """Return the command that speaks to a shared connection, whatever the configuration says of its host by now."""
    return [ssh_program(), "-F/dev/null", f"{_CONTROL_PATH}{path}"]


def _pid_from(argv: list[str]) -> int:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, env=environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\(pid=(\d+)\)", done.stderr)
    return int(found[1]) if found and not done.returncode else 0


def end_master(master: Master | None) -> None:
    """End that shared connection and so every session on it: it is dead, unnoticed by ssh.

    Idempotent. Its successor, which another of our launchers may have made meanwhile, is left alone.
    """
    if master is None or not exists(master):
        return
    argv = [*_control_argv(master.socket), "-O", "exit", "any"]
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=2, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        if exists(master):
            os.unlink(master.socket)
    except OSError:
        pass


def end_masters(options: LaunchOptions) -> list[int]:
    """End all connections of ours that this name has led to, also before its configuration changed; return their pids.

    Idempotent.
    """
    folder, name = private_folder(MASTERS_FOLDER), _name_checksum(options)
    found = [os.path.join(folder, entry) for entry in os.listdir(folder) if entry.startswith(name)]
    pids = [pid_at(path) for path in found]
    for path in found:
        end_master(master_at(path))
    return [pid for pid in pids if pid]


def end_command(options: LaunchOptions) -> str:
    """Return the command line that ends a connection which the user's configuration shares, for a person to run."""
    from shlex import join

    return join([ssh_program(), "-O", "exit", *destination(options)])
