"""Ask ssh what its configuration says of a host, and name the way there as its command line does."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from remote_kernel.endpoint import Endpoint, parse_jumps, print_jumps
from remote_kernel.errors import SshConfigError, SshNotFound, TransportError, UsageError
from remote_kernel.options import LaunchOptions, check_transport

CONNECT_SECONDS = 15
_SHORTAGES = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_MOST_JUMPS = 8  # jump hosts that have jump hosts
_MOST_INCLUDES = 4
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)([^#]*)")
_USUAL_FILES = ("~/.ssh/config", "/etc/ssh/ssh_config")

Settings = list[tuple[str, str]]  # as `ssh -G` prints them: some keywords stand there several times


class HopAddress(NamedTuple):
    """One server on the way: `proxy_command` leads to it, empty for none, and `options` lead there."""

    name: str
    host: str
    port: int
    proxy_command: str
    connect_seconds: float
    options: LaunchOptions


def transport_name(options: LaunchOptions) -> str:
    """Return the transport in force: what is asked for, else openssh where its program is found, else paramiko.

    Raises UsageError when REMOTE_KERNEL_TRANSPORT names none that exists.
    """
    asked = check_transport(options.transport_name())
    return asked or _default_transport(os.environ.get("PATH", ""), os.environ.get("REMOTE_KERNEL_SSH", ""))


def uses_openssh(options: LaunchOptions) -> bool:
    """True if the transport in force is the ssh program. Raises what `transport_name` does."""
    return transport_name(options) == "openssh"


@cache
def _default_transport(path: str, program: str) -> str:
    # A program that was asked for by name and is missing is an error to be told, not a reason to take another way.
    found = program or any(os.access(os.path.join(folder, "ssh"), os.X_OK) for folder in path.split(os.pathsep))
    return "openssh" if found else "paramiko"


def ssh_program() -> str:
    """Return the ssh program: REMOTE_KERNEL_SSH, else `ssh`."""
    return os.environ.get("REMOTE_KERNEL_SSH", "") or "ssh"


def no_ssh_program(program: str) -> SshNotFound:
    """Return the error for an ssh program that is not there."""
    hint = "install the OpenSSH client or set REMOTE_KERNEL_SSH to its path"
    return SshNotFound(f"there is no ssh program '{program}' here", hint)


def environment() -> dict[str, str]:
    """Return ssh's environment: ours, without the ways in which ssh would ask a person that is not there.

    Not with another language: ssh speaks English in any, and with SendEnv the kernel gets ours, as with plain ssh.
    """
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def destination(options: LaunchOptions) -> list[str]:
    """Return the ssh arguments that name the destination, the host last."""
    endpoint = resolve_alias(options)
    words = ["-F", os.path.expanduser(options.ssh_config)] if options.ssh_config else []
    if options.jumps:
        words += ["-J", print_jumps(options.jumps)]
    if endpoint.user:
        words += ["-l", endpoint.user]
    if endpoint.port:
        words += ["-p", str(endpoint.port)]
    return [*words, endpoint.host]


def to_paste(options: LaunchOptions, remote_command: str = "true") -> str:
    """Return the command line that goes the same way, for a person to try: errors show it.

    With the transport in Python that is one of ours: there may be no ssh program.
    """
    from shlex import join, split  # only here: the launcher imports this module before it starts ssh

    if not uses_openssh(options):
        return options.command_line("connect", "--", *split(remote_command))
    return join([ssh_program(), *destination(options), remote_command])


def aliases(ssh_config: str = "") -> Iterator[str]:
    """Return the names of a config's Host lines, and of the files that it includes; patterns are left out."""
    for path in [ssh_config] if ssh_config else _USUAL_FILES:
        yield from _aliases(os.path.expanduser(path), 0)


def resolve_alias(options: LaunchOptions) -> Endpoint:
    """Return the endpoint that ssh is to be given: `gpu:1` is an alias if the config has such a one, and no port."""
    host, user, port = options.endpoint
    if port and f"{host}:{port}" in aliases(options.ssh_config):
        return Endpoint(f"{host}:{port}", user)
    return options.endpoint


def _aliases(path: str, depth: int) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        found = _LINE.match(line)
        keyword, words = (found[1].lower(), found[2].split()) if found else ("", [])
        if keyword == "host":
            yield from (word.strip('"') for word in words if not set(word) & set("*?!"))
        elif keyword == "include" and depth < _MOST_INCLUDES:
            import glob  # only here: the launcher imports this module before it starts ssh

            for word in words:
                pattern = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(word.strip('"')))
                for included in sorted(glob.glob(pattern)):
                    yield from _aliases(included, depth + 1)


def effective_config(options: LaunchOptions) -> dict[str, str]:
    """Ask ssh what it will do for this host: `ssh -G`, 3 ms, no connection. Of several values the first counts.

    Raises SshNotFound, SshConfigError.
    """
    return first_of_each(all_settings(options))


def first_of_each(settings: Settings) -> dict[str, str]:
    """Return the settings by name: of several values the first counts."""
    config: dict[str, str] = {}
    for name, value in settings:
        config.setdefault(name, value)
    return config


def hops(options: LaunchOptions) -> list[HopAddress]:
    """Return the servers on the way as ssh will reach them, the nearest first. Raises SshNotFound, SshConfigError."""
    return [_address(way, first_of_each(settings)) for way, settings in hop_settings(options, all_settings(options))]


def _address(options: LaunchOptions, config: Mapping[str, str]) -> HopAddress:
    command, seconds = config.get("proxycommand", "none"), config.get("connecttimeout", "none")
    return HopAddress(
        name=str(options.endpoint),
        host=config.get("hostname", options.endpoint.host),
        port=int(config.get("port", "22")),
        proxy_command="" if command == "none" else command,
        connect_seconds=float(seconds) if seconds not in ("none", "0") else CONNECT_SECONDS,
        options=options,
    )


def hop_settings(options: LaunchOptions, settings: Settings, depth: int = 0) -> list[tuple[LaunchOptions, Settings]]:
    """Return what leads to each server on the way, and ssh's settings there; `settings` are those of the target."""
    jumps = first_of_each(settings).get("proxyjump", "none")
    if jumps == "none" or depth >= _MOST_JUMPS:
        return [(options, settings)]
    try:
        *before, last = parse_jumps(jumps)
    except UsageError:  # ssh knows what is wrong with it
        return [(options, settings)]
    way = LaunchOptions(last, tuple(before), ssh_config=options.ssh_config)
    return [*hop_settings(way, all_settings(way), depth + 1), (options, settings)]


def all_settings(options: LaunchOptions) -> Settings:
    """Ask ssh for all its settings for this host. Raises SshNotFound, SshConfigError."""
    # With a command: ForkAfterAuthentication is refused without one, and a RemoteCommand beside one.
    return printed_settings([ssh_program(), "-T", "-G", "-oRemoteCommand=none", *destination(options), "true"])


def printed_settings(argv: list[str]) -> Settings:
    """Run an `ssh -G` and return what it prints. Raises SshNotFound, SshConfigError, TransportError."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=10,
            env=environment(),
        )
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise TransportError(
                f"cannot run '{argv[0]}' here: {os.strerror(error.errno).lower()}",
                "look at this machine's load, and at the limits that 'ulimit -a' shows",
            ) from error
        raise no_ssh_program(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise SshConfigError(
            "ssh takes longer than 10 s to read its configuration", "run 'ssh -G HOST' to see"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        from shlex import join  # only here: the launcher imports this module before it starts ssh

        hint = "correct the file that it names" if "line " in lines[0] or "file " in lines[0] else f"try: {join(argv)}"
        raise SshConfigError(f"ssh refuses its configuration: {lines[0]}", hint)
    return [(name, value) for name, _, value in (line.partition(" ") for line in done.stdout.splitlines())]
