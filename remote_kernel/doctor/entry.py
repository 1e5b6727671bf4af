"""Tell from what ssh says of its work how each server on the way was entered: its host key, and the login.

Both transports say it in the words of OpenSSH's LogLevel DEBUG1.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import NamedTuple

from remote_kernel.doctor.finding import Finding, ok, unknown
from remote_kernel.errors import ConnectTimeout, RemoteKernelError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, openssh
from remote_kernel.transport.carrier import PipeText
from remote_kernel.transport.paramiko.failure import Failure, at_a_jump_host
from remote_kernel.transport.ssh_errors import explain

_BANNER_BYTES = 16 << 10
_KNOWN_WORDS = "is known and matches"
_KNOWN, _TAKEN = ", as on record", ", which your configuration lets pass"


class Door(NamedTuple):
    """One server's door.

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


def doors(chatter: Sequence[str]) -> list[Door]:
    """Give those that were come to, the nearest first."""
    said = "\n".join(chatter)
    begins = [found.start() for found in re.finditer(r"^debug1: Authenticating to ", said, re.MULTILINE)]
    return [_door(said[begin:end]) for begin, end in pairwise([*begins, len(said)])]


def _door(said: str) -> Door:
    server = re.match(r"debug1: Authenticating to (\S+)", said)
    key = re.search(r"Server host key: (\S+ \S+)", said)
    offered = re.search(r"Authentications that can continue: (\S+)", said)
    tried = re.findall(r"Offering public key: (\S+)", said)
    # ssh says so of each of its default names, whether or not there is such a file.
    tried += filter(os.path.exists, re.findall(r"Trying private key: (.+)", said))
    accepted = re.findall(r"Server accepts key: (\S+)", said)
    method = re.search(r'^Authenticated to .*using "([^"]+)"', said, re.MULTILINE)
    return Door(
        server=server[1] if server else "",
        key=f"{key[1]}{_KNOWN if _KNOWN_WORDS in said else _TAKEN}" if key else "",
        offered=offered[1] if offered else "",
        tried=tuple(dict.fromkeys(tried)),
        method=method[1] if method else "",
        credential=accepted[-1] if accepted else "",
    )


def host_keys(found: Sequence[Door]) -> Finding:
    """Say which host keys were shown: all of them are on record, or the way would have ended there."""
    shown = "; ".join(f"{door.server} shows {door.key or 'the one on record'}" for door in found)
    return ok("host key", shown, 0.0)  # in the login's time


def logins(found: Sequence[Door], seconds: float) -> Finding:
    """Say how each server let us in."""
    return ok("login", "; ".join(map(_let_in, found)), seconds)


def _let_in(door: Door) -> str:
    with_what = f" with {door.credential}" if door.credential else ""
    offers = f"; it offers {door.offered}" if door.offered else ""
    return f"{door.server} lets in by {door.method or 'what ssh does not say'}{with_what}{offers}"


def shared(options: LaunchOptions, pid: int) -> list[Finding]:
    """Say that a connection was up already, which kernels share: its keys and its login were looked at then."""
    text, end = f"the shared connection was up already (process {pid})", f"remote_kernel logout {options.endpoint}"
    with suppress(RemoteKernelError):  # the configuration may break at any time
        if openssh.shares_already(openssh.effective_config(options)):
            text = f"your ssh config's own shared connection (process {pid}) leads where it was made to"
            end = openssh.end_own_command(options)
    hint = f"'{end}' ends it, to see the way anew"
    return [
        ok("host key", f"verified when the shared connection was made (process {pid})", 0.0),
        ok("login", text)._replace(hint=hint),
    ]


def refused(found: Sequence[Door]) -> str:
    """Give what the server that refused had offered and what was tried there; empty where ssh does not say."""
    if not found:
        return ""
    door = found[-1]
    offers = f"; {door.server} offers {door.offered}" if door.offered else ""
    return f"{offers}, tried: {', '.join(door.tried)}" if door.tried else f"{offers}, no key was tried"


def look_behind(options: LaunchOptions, jump: LaunchOptions, host: str, port: int, chatter: list[str]) -> str:
    """Log in to a jump host and give what the next server, as it sees it, says first: its version.

    `options` are those of the whole way. Raises what `explain` gives. Only with ssh: it tells nothing of its jump hosts
    else.
    """
    argv = choice.talkative(jump, openssh.reach_argv(jump, host, port))
    pipe = subprocess.PIPE
    with ExitStack() as undo:
        process = undo.enter_context(
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=choice.environment(jump), bufsize=0
            )
        )
        undo.callback(process.kill)
        assert process.stdout and process.stderr
        errors = PipeText(process, process.stderr)
        undo.callback(errors.close)
        limit = threading.Timer(2 * openssh.CONNECT_SECONDS, process.kill)
        limit.start()
        undo.callback(limit.cancel)
        banner = process.stdout.readline(_BANNER_BYTES).decode("ascii", "replace").strip()
        process.stdout.close()  # which ends ssh if it has more to say
        if process.wait() == -signal.SIGKILL and not errors.is_flood:
            hint = "check the endpoint as the jump host sees it"
            raise ConnectTimeout(f"{host} does not answer through {jump.endpoint}", hint)
        said = errors.text()
    chatter += said.splitlines()
    if banner.startswith("SSH-"):
        return banner
    told = "\n".join(line for line in said.splitlines() if not line.startswith("debug1: "))
    raise explain(options, str(at_a_jump_host(Failure(choice.in_full(jump, told)))), 255, b"")


def unsaid(text: str) -> list[Finding]:
    """Say that nothing is known of the keys and the login."""
    return [unknown("host key", text), unknown("login", text)]
