"""Read the user's ssh configuration with paramiko's parser, into what one hop needs to know.

OpenSSH's own order: the file of `-F`, else ~/.ssh/config and then the system's; the first value found wins, and
what the command line says wins over all.
"""

from __future__ import annotations

import fnmatch
import getpass
import io
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import paramiko

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import UsageError
from remote_kernel.transport.paramiko.parser import UNSUPPORTED, ConfigReader, MatchingConfig, with_environment
from remote_kernel.transport.ssh_messages import SshFailure

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5.0, 3
_MOST_JUMPS = 16  # as OpenSSH's READCONF_MAX_DEPTH
_USUAL_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_USUAL_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"

_METHODS = ("publickey", "keyboard-interactive", "password")
_OFF = ("no", "none", "")


@dataclass(frozen=True)
class Hop:
    """One server on the way, the target or a jump host: where it is, who we are there, whom we believe it to be."""

    name: str
    """What the command line or the configuration calls it."""
    host: str
    port: int
    user: str
    alias: str
    """The name to look up in known_hosts in place of the host and port; empty for none."""
    keys: tuple[str, ...]
    certificates: tuple[str, ...]
    only_these_keys: bool
    agent: str
    """The socket of the agent to ask for keys; empty for none."""
    methods: tuple[str, ...]
    """How to log in, in this order."""
    known_hosts: tuple[str, ...]
    strict: str
    proxy_command: str
    connect_seconds: float
    keepalive_seconds: float
    keepalive_count: int
    environment: tuple[tuple[str, str], ...] = ()
    """The variables to send with a session: the server takes those that it is set up to take."""


class Config:
    """The configuration; `warnings` collects what it asks for and paramiko cannot do."""

    def __init__(self, path: str = "") -> None:
        """Read the file, or OpenSSH's usual ones for an empty path. Raises SshFailure."""
        reader = ConfigReader()
        if path:
            reader.read(os.path.expanduser(path), must_exist=True)
        else:
            reader.read(os.path.expanduser("~/.ssh/config"))
            reader.lines.append("Host *")
            reader.read("/etc/ssh/ssh_config")
        self.warnings = reader.warnings
        self._path, self._text = path or "~/.ssh/config", "\n".join(reader.lines) + "\n"
        self._parsed("")

    def hops(self, endpoint: Endpoint, jumps: tuple[Endpoint, ...] | None = None) -> list[Hop]:
        """Return the hops to an endpoint, the nearest first and the endpoint last. Raises SshFailure.

        `jumps` are those of the command line; without any, the configuration's ProxyJump decides.
        """
        return self._hops(endpoint, jumps, 0)

    def _hops(self, endpoint: Endpoint, jumps: tuple[Endpoint, ...] | None, depth: int) -> list[Hop]:
        if depth > _MOST_JUMPS:
            raise SshFailure(f"Bad configuration option: ProxyJump of {endpoint.host} leads back to itself")
        values = self._lookup(endpoint)
        hop = self._hop(endpoint, values, proxied=not jumps)
        if not jumps:
            text = str(values.get("proxyjump", "none"))
            # As in OpenSSH, of ProxyJump and ProxyCommand the one that is set first counts; paramiko keeps no order.
            if text.lower() == "none" or hop.proxy_command:
                return [hop]
            try:
                jumps = parse_jumps(text)
            except UsageError as error:
                raise SshFailure(f"Bad configuration option: ProxyJump {text}") from error
        return [*self._hops(jumps[-1], jumps[:-1], depth + 1), hop]

    def _parsed(self, user: str) -> MatchingConfig:
        """Parse for a user whom the command line names, and whom `Match user` is then about."""
        try:
            parser = MatchingConfig()
            parser.parse(io.StringIO((f"User {user}\n" if user else "") + self._text))
            return parser
        except (paramiko.SSHException, ValueError) as error:
            raise SshFailure(f"{self._path}: Bad configuration option: {error}") from error

    def _lookup(self, endpoint: Endpoint) -> dict[str, str | list[str]] | Mapping[str, str]:
        try:
            values = self._parsed(endpoint.user or "").lookup(endpoint.host)
        except (paramiko.SSHException, ValueError, OSError) as error:
            raise SshFailure(f"Bad configuration option: Match for {endpoint.host}: {error}") from error
        if values.get("revokedhostkeys", "none") != "none":
            raise SshFailure("Bad configuration option: RevokedHostKeys cannot be honoured without the OpenSSH client")
        for name in UNSUPPORTED:
            value = str(values.get(name, "no"))
            if value.lower() not in _OFF and (line := f"{name} {value}") not in self.warnings:
                self.warnings.append(line)
        return dict(values)

    def _hop(self, endpoint: Endpoint, values: Mapping[str, object], *, proxied: bool) -> Hop:
        def text(name: str, default: str = "") -> str:
            return str(values.get(name, default))

        def several(name: str) -> tuple[str, ...]:
            found = values.get(name, [])
            listed = found if isinstance(found, list) else [found]
            return tuple(_path(str(path).strip('"')) for path in listed if str(path) != "none")

        def number(name: str, default: float) -> float:
            value = text(name, "none")
            if value == "none":
                return default
            try:
                return float(value)
            except ValueError as error:
                raise SshFailure(f"Bad configuration option: {name} {value}") from error

        files = f"{text('userknownhostsfile', _USUAL_KNOWN_HOSTS)} {text('globalknownhostsfile', _SYSTEM_KNOWN_HOSTS)}"
        interval = number("serveraliveinterval", 0)
        return Hop(
            name=endpoint.host,
            host=text("hostname", endpoint.host),
            port=endpoint.port or int(number("port", 22)),
            user=endpoint.user or text("user") or getpass.getuser(),
            alias=text("hostkeyalias"),
            keys=several("identityfile") or tuple(map(os.path.expanduser, _USUAL_KEYS)),
            certificates=several("certificatefile"),
            agent=_agent(text("identityagent", "SSH_AUTH_SOCK")),
            methods=_methods(text),
            only_these_keys=text("identitiesonly", "no").lower() == "yes",
            known_hosts=tuple(_path(path) for path in shlex.split(files) if path != "none"),
            strict=text("stricthostkeychecking", "ask").lower(),
            proxy_command=text("proxycommand") if proxied and text("proxycommand", "none") != "none" else "",
            connect_seconds=number("connecttimeout", 0) or CONNECT_SECONDS,
            keepalive_seconds=interval or KEEPALIVE_SECONDS,
            keepalive_count=int(number("serveralivecountmax", 3)) if interval else KEEPALIVE_COUNT,
            environment=_environment(values, text("setenv")),
        )


def _environment(values: Mapping[str, object], set_env: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that SendEnv and SetEnv have a session send; `-PATTERN` takes back what a SendEnv gave."""
    patterns: list[str] = []
    for name, value in values.items():
        for pattern in str(value).split() if name.startswith("sendenv") else ():
            if pattern.startswith("-"):
                patterns = [each for each in patterns if not fnmatch.fnmatchcase(each, pattern[1:])]
            else:
                patterns.append(pattern)
    sent = {name: text for name, text in os.environ.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    try:
        pairs = [word.partition("=") for word in shlex.split(set_env)]
    except ValueError as error:
        raise SshFailure(f"Bad configuration option: SetEnv {set_env}") from error
    return tuple({**sent, **{name: value for name, _, value in pairs}}.items())


def _path(text: str) -> str:
    return os.path.expanduser(with_environment(text))


def _agent(text: str) -> str:
    """Return the agent's socket: that of the environment, of one of its variables, or a path."""
    if text == "SSH_AUTH_SOCK" or text.startswith("$"):
        name = text.strip("${}")
        return os.environ.get(name, "")
    return "" if text.lower() == "none" else _path(text)


def _methods(text: Callable[[str, str], str]) -> tuple[str, ...]:
    """Return the ways to log in that are wanted and not switched off."""
    wanted = text("preferredauthentications", ",".join(_METHODS)).split(",")
    interactive = text("kbdinteractiveauthentication", text("challengeresponseauthentication", "yes"))
    switches = (text("pubkeyauthentication", "yes"), interactive, text("passwordauthentication", "yes"))
    switched_on = {name for name, value in zip(_METHODS, switches, strict=True) if value.lower() != "no"}
    return tuple(name for name in wanted if name in switched_on)
