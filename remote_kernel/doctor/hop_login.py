"""Read from what ssh says of its work how each server on the way let us in: its host key, and the login.

Both transports say it in the words of OpenSSH's LogLevel DEBUG1.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import NamedTuple

from remote_kernel.doctor.finding import Finding, ok, unknown
from remote_kernel.errors import ConnectTimeout, RemoteKernelError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, masters, openssh
from remote_kernel.transport.carrier import PipedProcess
from remote_kernel.transport.ssh_config import CONNECT_SECONDS, effective_config
from remote_kernel.transport.ssh_errors import explain
from remote_kernel.transport.ssh_messages import SshFailure, at_jump_host

_BANNER_BYTES = 16 << 10
_KNOWN_WORDS = "is known and matches"
_KNOWN, _TAKEN = ", as on record", ", which your configuration lets pass"


class HopLogin(NamedTuple):
    """How one server on the way took our login.

    `server` is HOST:PORT, `key` its host key and whether that is on record, `offered` the ways to log in, `tried` the
    keys, `method` what it let in by and `credential` the key that did it. What ssh did not say is empty; so is `method`
    where nobody was let in.
    """

    server: str
    key: str
    offered: str
    tried: tuple[str, ...]
    method: str
    credential: str


def read_logins(debug_lines: Sequence[str]) -> list[HopLogin]:
    """Return the logins that were tried, the nearest server first."""
    said = "\n".join(debug_lines)
    begins = [found.start() for found in re.finditer(r"^debug1: Authenticating to ", said, re.MULTILINE)]
    return [_read_login(said[begin:end]) for begin, end in pairwise([*begins, len(said)])]


def _read_login(said: str) -> HopLogin:
    server = re.match(r"debug1: Authenticating to (\S+)", said)
    key = re.search(r"Server host key: (\S+ \S+)", said)
    offered = re.search(r"Authentications that can continue: (\S+)", said)
    tried = re.findall(r"Offering public key: (\S+)", said)
    # ssh says so of each of its default names, whether or not there is such a file.
    tried += filter(os.path.exists, re.findall(r"Trying private key: (.+)", said))
    accepted = re.findall(r"Server accepts key: (\S+)", said)
    method = re.search(r'^Authenticated to .*using "([^"]+)"', said, re.MULTILINE)
    return HopLogin(
        server=server[1] if server else "",
        key=f"{key[1]}{_KNOWN if _KNOWN_WORDS in said else _TAKEN}" if key else "",
        offered=offered[1] if offered else "",
        tried=tuple(dict.fromkeys(tried)),
        method=method[1] if method else "",
        credential=accepted[-1] if accepted else "",
    )


def host_key_finding(found: Sequence[HopLogin]) -> Finding:
    """Return the finding on the host keys that were shown: all are on record, or the way would have ended there."""
    shown = "; ".join(f"{login.server} shows {login.key or 'the one on record'}" for login in found)
    return ok("host key", shown, 0.0)  # in the login's time


def login_finding(found: Sequence[HopLogin], seconds: float) -> Finding:
    """Return the finding on how each server let us in."""
    return ok("login", "; ".join(map(_how_it_let_in, found)), seconds)


def _how_it_let_in(login: HopLogin) -> str:
    with_what = f" with {login.credential}" if login.credential else ""
    offers = f"; it offers {login.offered}" if login.offered else ""
    return f"{login.server} lets in by {login.method or 'what ssh does not say'}{with_what}{offers}"


def shared_findings(options: LaunchOptions, pid: int) -> list[Finding]:
    """Return the findings for a shared connection that was up already: it was verified when it was made."""
    text, end = f"the shared connection was up already (process {pid})", f"remote_kernel logout {options.endpoint}"
    with suppress(RemoteKernelError):  # the configuration may break at any time
        if masters.config_shares(effective_config(options)):
            text = f"your ssh config's own shared connection (process {pid}) leads where it was made to"
            end = masters.end_command(options)
    hint = f"'{end}' ends it, to see the way anew"
    return [
        ok("host key", f"verified when the shared connection was made (process {pid})", 0.0),
        ok("login", text)._replace(hint=hint),
    ]


def what_was_tried(found: Sequence[HopLogin]) -> str:
    """Return what the server that refused had offered and what was tried there; empty where ssh does not say."""
    if not found:
        return ""
    login = found[-1]
    offers = f"; {login.server} offers {login.offered}" if login.offered else ""
    return f"{offers}, tried: {', '.join(login.tried)}" if login.tried else f"{offers}, no key was tried"


def version_behind(options: LaunchOptions, jump: LaunchOptions, host: str, port: int, debug_lines: list[str]) -> str:
    """Log in to a jump host and return what the next server, as it sees it, says first: its version.

    `options` are those of the whole way. Raises what `explain` returns. Only with ssh, which tells nothing of its
    jump hosts else.
    """
    argv = choice.verbose(jump, openssh.reach_argv(jump, host, port))
    with PipedProcess(argv, choice.environment(jump)) as process, ExitStack() as undo:
        process.stdin.close()
        limit = threading.Timer(2 * CONNECT_SECONDS, process.kill)
        limit.start()
        undo.callback(limit.cancel)
        banner = process.stdout.readline(_BANNER_BYTES).decode("ascii", "replace").strip()
        process.stdout.close()  # which ends ssh if it has more to say
        status, said = process.end(2 * CONNECT_SECONDS)
        if status is None and not process.is_flood:
            hint = "check the endpoint as the jump host sees it"
            raise ConnectTimeout(f"{host} does not answer through {jump.endpoint}", hint)
    debug_lines += said.splitlines()
    if banner.startswith("SSH-"):
        return banner
    told = "\n".join(line for line in said.splitlines() if not line.startswith("debug1: "))
    raise explain(options, str(at_jump_host(SshFailure(choice.complete_stderr(jump, told)))), 255, b"")


def unknown_findings(text: str) -> list[Finding]:
    """Return the findings for keys and a login of which nothing is known."""
    return [unknown("host key", text), unknown("login", text)]
