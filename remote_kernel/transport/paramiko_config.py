"""Read the user's ssh configuration with paramiko's parser, into what one hop needs to know.

OpenSSH's own order: the file of `-F`, else ~/.ssh/config and then the system's; the first value found wins, and
what the command line says wins over all. paramiko's parser knows Host and Match but not Include, which is put in
place before it looks.
"""

from __future__ import annotations

import getpass
import glob
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import paramiko

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import UsageError
from remote_kernel.transport.paramiko_failure import Failure

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5.0, 3
_DEEPEST = 16  # as OpenSSH's READCONF_MAX_DEPTH
_USUAL_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_USUAL_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"

# What a user may rely on and paramiko cannot do: named in a warning unless it is switched off.
_NOT_HONOURED = (
    *("addkeystoagent", "addressfamily", "bindaddress", "bindinterface", "canonicalizehostname", "ciphers"),
    *("gssapiauthentication", "hostbasedauthentication", "hostkeyalgorithms", "identityagent", "kexalgorithms"),
    *("knownhostscommand", "macs", "pkcs11provider", "pubkeyacceptedalgorithms", "securitykeyprovider"),
    *("verifyhostkeydns", "requiredrsasize", "preferredauthentications", "pubkeyauthentication"),
)
_OFF = ("no", "none", "")


@dataclass(frozen=True)
class Hop:
    """One server on the way, the target or a jump host: where it is, who we are there, whom we believe it to be."""

    host: str
    port: int
    user: str
    alias: str
    """The name to look up in known_hosts in place of the host and port; empty for none."""
    keys: tuple[str, ...]
    certificates: tuple[str, ...]
    only_these_keys: bool
    known_hosts: tuple[str, ...]
    strict: str
    proxy_command: str
    connect_seconds: float
    keepalive_seconds: float
    keepalive_count: int


class Config:
    """The configuration; `warnings` collects what it asks for and paramiko cannot do."""

    def __init__(self, path: str = "") -> None:
        """Read the file, or OpenSSH's usual ones for an empty path. Raises Failure."""
        self.warnings: list[str] = []
        if path:
            lines = self._read(os.path.expanduser(path), 0, must_exist=True)
        else:
            lines = self._read(os.path.expanduser("~/.ssh/config"), 0)
            lines += ["Host *", *self._read("/etc/ssh/ssh_config", 0)]
        self._path, self._text = path or "~/.ssh/config", "\n".join(lines) + "\n"
        self._parsed("")

    def way(self, endpoint: Endpoint, jumps: tuple[Endpoint, ...] | None = None) -> list[Hop]:
        """Give the hops to an endpoint, the nearest first and the endpoint last. Raises Failure.

        `jumps` are those of the command line; without any, the configuration's ProxyJump decides.
        """
        return self._way(endpoint, jumps, 0)

    def _way(self, endpoint: Endpoint, jumps: tuple[Endpoint, ...] | None, depth: int) -> list[Hop]:
        if depth > _DEEPEST:
            raise Failure(f"Bad configuration option: ProxyJump of {endpoint.host} leads back to itself")
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
                raise Failure(f"Bad configuration option: ProxyJump {text}") from error
        return [*self._way(jumps[-1], jumps[:-1], depth + 1), hop]

    def _parsed(self, user: str) -> paramiko.SSHConfig:
        """Parse for a user whom the command line names, and whom `Match user` is then about."""
        try:
            return paramiko.SSHConfig.from_text((f"User {user}\n" if user else "") + self._text)
        except (paramiko.SSHException, ValueError) as error:
            raise Failure(f"{self._path}: Bad configuration option: {error}") from error

    def _lookup(self, endpoint: Endpoint) -> dict[str, str | list[str]] | Mapping[str, str]:
        try:
            values = self._parsed(endpoint.user or "").lookup(endpoint.host)
        except Exception as error:  # Match exec runs a program through an optional library
            raise Failure(f"Bad configuration option: Match for {endpoint.host}: {error}") from error
        if values.get("revokedhostkeys", "none") != "none":
            raise Failure("Bad configuration option: RevokedHostKeys cannot be honoured without the OpenSSH client")
        for name in _NOT_HONOURED:
            value = str(values.get(name, "no"))
            if name == "pubkeyauthentication" and value != "no":
                continue
            if value.lower() not in _OFF and (line := f"{name} {value}") not in self.warnings:
                self.warnings.append(line)
        return dict(values)

    def _hop(self, endpoint: Endpoint, values: Mapping[str, object], *, proxied: bool) -> Hop:
        def text(name: str, default: str = "") -> str:
            return str(values.get(name, default))

        def several(name: str) -> tuple[str, ...]:
            found = values.get(name, [])
            listed = found if isinstance(found, list) else [found]
            return tuple(os.path.expanduser(str(path).strip('"')) for path in listed if str(path) != "none")

        def number(name: str, default: float) -> float:
            value = text(name, "none")
            if value == "none":
                return default
            try:
                return float(value)
            except ValueError as error:
                raise Failure(f"Bad configuration option: {name} {value}") from error

        files = f"{text('userknownhostsfile', _USUAL_KNOWN_HOSTS)} {text('globalknownhostsfile', _SYSTEM_KNOWN_HOSTS)}"
        interval = number("serveraliveinterval", 0)
        return Hop(
            host=text("hostname", endpoint.host),
            port=endpoint.port or int(number("port", 22)),
            user=endpoint.user or text("user") or getpass.getuser(),
            alias=text("hostkeyalias"),
            keys=several("identityfile") or tuple(map(os.path.expanduser, _USUAL_KEYS)),
            certificates=several("certificatefile"),
            only_these_keys=text("identitiesonly", "no").lower() == "yes",
            known_hosts=tuple(os.path.expanduser(path) for path in shlex.split(files) if path != "none"),
            strict=text("stricthostkeychecking", "ask").lower(),
            proxy_command=text("proxycommand") if proxied and text("proxycommand", "none") != "none" else "",
            connect_seconds=number("connecttimeout", 0) or CONNECT_SECONDS,
            keepalive_seconds=interval or KEEPALIVE_SECONDS,
            keepalive_count=int(number("serveralivecountmax", 3)) if interval else KEEPALIVE_COUNT,
        )

    def _read(self, path: str, depth: int, *, must_exist: bool = False) -> list[str]:
        """Give a file's lines with the files that it includes put in place."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            if must_exist:
                raise Failure(f"Can't open user config file {path}: {error.strerror}") from error
            return []
        if depth > _DEEPEST:
            raise Failure(f"{path}: Bad configuration option: Include goes too deep")
        lines: list[str] = []
        block = "Host *"
        for line in text.splitlines():
            words = line.replace("=", " ", 1).split(None, 1)
            keyword = words[0].lower() if words else ""
            if keyword in ("host", "match"):
                block = line
            if keyword != "include" or len(words) < 2:
                lines.append(line)
                continue
            if depth or block != "Host *":
                self.warnings.append(f"include {words[1]} inside '{block.strip()}' holds for every host that it names")
            base = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.expanduser("~/.ssh")
            for pattern in shlex.split(words[1]):
                for found in sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern)))):
                    lines += self._read(found, depth + 1)
            lines.append(block)  # what follows belongs where it stood
        return lines
