"""Find out why a server closes the connection once it knows who logs in.

PAM refuses an account after its key was accepted, and its words (no job on this node, expired, maintenance) come as a
banner, which ssh shows at LogLevel INFO and above only; so it is asked once more, talkative. Both transports then have
the one line that `refusal` writes, which is no word of OpenSSH's own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from remote_kernel.options import LaunchOptions
from remote_kernel.transport import openssh
from remote_kernel.transport.carrier import run_and_read

_CLOSED = re.compile(r"^Connection (?:closed|reset) by (?!UNKNOWN)(\S+) port (\d+)", re.MULTILINE)
_KNOWN = re.compile(r"^debug1: (?:Server accepts key|Next authentication method: (?!publickey)).*\n", re.MULTILINE)
_NO_SESSION = re.compile(r"(?<=\n)channel \d+: open failed: (?!.*\nstdio forwarding).*")
_LONGEST = 300


def refusal(host: str, port: int | str, words: Iterable[str]) -> str:
    """Return the line that says that the account was refused, with the server's words."""
    said = "; ".join(line.strip() for line in words if line.strip())
    return f"Account refused by {host} port {port}: {said[:_LONGEST]}\n"


def with_refusal(options: LaunchOptions, stderr: str) -> str:
    """Return what ssh printed when it failed; where a server may have refused the account, with the words for that."""
    if stderr.strip() and not _CLOSED.search(stderr):
        return stderr
    words = ["-v", "-oBatchMode=yes", "-oControlPath=none", "-oControlPersist=no"]
    argv = [openssh.ssh_program(), *words, f"-oConnectTimeout={openssh.CONNECT_SECONDS}", *openssh.where(options)]
    try:
        done = run_and_read([*argv, "true"], openssh.environment(), openssh.CONNECT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return stderr
    said = done.stderr.replace("\r\n", "\n")
    if done.status == 255 and (no_session := _NO_SESSION.search(said)):
        return f"{no_session[0]}\n{stderr}"
    known, closed = list(_KNOWN.finditer(said)), _CLOSED.search(said)
    if done.status != 255 or not known or not closed or "debug1: Authenticated" in said[known[-1].end() :]:
        return stderr
    between = said[known[-1].end() : closed.start()].splitlines()
    line = refusal(closed[1], closed[2], (line for line in between if not line.startswith("debug1: ")))
    return line + stderr
