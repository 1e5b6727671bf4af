"""An endpoint and its jump hosts: the name of a remote host, parsed once, printed back the same."""

from __future__ import annotations

import re
from typing import NamedTuple

from remote_kernel.errors import UsageError

# A NamedTuple, not a dataclass: the launcher imports this before it starts ssh, and importing
# dataclasses costs 5 to 10 ms there.

# Without what OpenSSH refuses on its command line since 9.6 (CVE-2023-51385), because a ProxyCommand or `Match exec`
# hands names to a shell, and without what separates jump hosts. A `$` may end a name, as a machine's account has it.
_HOST = re.compile(r"""(?!-)[^\s'"`$\\;&<>|(){},@\[\]]+\Z""")
_USER = re.compile(r"""(?![-:@])(?:[^\s'"`$\\;&<>|(){},/]|\\(?!\Z))*[^\s'"`\\;&<>|(){},/]\Z""")


class Endpoint(NamedTuple):
    """One SSH server: a host name, address or alias of the ssh config; user and port where given.

    `user` and `port` are None where the ssh configuration decides. `str()` gives back the text
    that `parse` accepts; an IPv6 address is bracketed.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `[user@]host[:port]`; an IPv6 address may stand bare or in brackets.

        Raises UsageError for anything else, in particular for a host that starts with a dash,
        which ssh would take for an option.
        """
        rest = text.removeprefix("ssh://").rstrip("/") if text.startswith("ssh://") else text
        user: str | None = None
        if "@" in rest:
            user, _, rest = rest.rpartition("@")
            if not _USER.match(user) or not user.isprintable():
                raise _not_an_endpoint(text)
        port_text = ""
        if rest.startswith("["):
            host, bracket, tail = rest[1:].partition("]")
            if not bracket or (tail and not tail.startswith(":")) or ":" not in host:
                raise _not_an_endpoint(text)
            port_text = tail[1:]
            if tail and not port_text:
                raise _not_an_endpoint(text)
        elif rest.count(":") == 1:
            host, _, port_text = rest.partition(":")
            if not port_text:
                raise _not_an_endpoint(text)
        else:
            host = rest
        if not _HOST.match(host) or not host.isprintable() or (":" in host and not _is_ipv6(host)):
            raise _not_an_endpoint(text)
        if text.startswith("ssh://") and "/" in host:
            raise _not_an_endpoint(text)
        if not port_text:
            return cls(host, user, None)
        if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
            raise UsageError(f"'{text}' has no valid port", "give a number from 1 to 65535 after the colon")
        return cls(host, user, int(port_text))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{host}{port}"


def parse_jumps(text: str) -> tuple[Endpoint, ...]:
    """Read a comma-separated list of jump hosts, nearest first; empty text is no jump host."""
    if not text.strip():
        return ()
    return tuple(Endpoint.parse(part.strip()) for part in text.split(","))


def print_jumps(jumps: tuple[Endpoint, ...]) -> str:
    """Return the text that parse_jumps reads back as the same jump hosts."""
    return ",".join(map(str, jumps))


def _is_ipv6(host: str) -> bool:
    # `host:22:33` is a slip, not an address. The socket module is imported only where there is a colon.
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True


def _not_an_endpoint(text: str) -> UsageError:
    return UsageError(
        f"'{text}' is not an endpoint", "write [user@]host[:port], an IPv6 address in brackets, or an ssh config alias"
    )
