"""Find out from what ssh printed why it failed, and return the error that says so.

`explain` goes through _CAUSES, a table of captured messages: a new one belongs there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import join
from typing import NamedTuple

from remote_kernel.endpoint import print_jumps
from remote_kernel.errors import (
    AccountRefused,
    AuthenticationFailed,
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    HostKeyChanged,
    HostKeyUnknown,
    JumpHostFailed,
    LocalFilesError,
    PythonNotFound,
    RemoteKernelError,
    RemoteShellNoise,
    SshConfigError,
    SshNotFound,
    TransportError,
    UnknownHost,
)
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice
from remote_kernel.transport.ssh_config import to_paste
from remote_kernel.transport.ssh_messages import LOCKED_KEY, NO_SESSION_STATUS, SHELL_REPLACED_STATUS, SshFailure

_THROUGH_JUMP = re.compile(
    r"(?<!banner exchange: Connection to )UNKNOWN port 65535|stdio forwarding failed|UNKNOWN:65535"
)
# What ssh prints last when the ssh to its jump host has ended, and said why on the lines before.
_PROXY_ENDED = re.compile(
    r"(?:kex|ssh)_exchange_identification: "
    r"(?:Connection closed by remote host|read: Connection reset by peer|write: Broken pipe)"
    r"|banner exchange: Connection to UNKNOWN port 65535: Broken pipe"  # it was gone before ssh had said hello
)
# What sshd, PAM or the account's shell says in place of the command.
_NO_COMMAND = re.compile(r"Password change required|account is (?:currently )?(?:not available|locked)")
_ASK = "do what it says, or ask who runs the server"
_TOO_MANY = "end sessions of yours there ('who' and 'ps' show them), or ask who runs the server for more (maxlogins)"
_OF_THE_NETWORK = (UnknownHost, ConnectionRefused, ConnectTimeout, TransportError)


class _Cause(NamedTuple):
    """What ssh prints, the error it means, what is wrong and what to do.

    In the message {0} is the hop, {1} the first group, {print} the host key's fingerprint and {said} what others than
    ssh said before, {user} the user name that was refused, where there is such; in the hint {login} is the command that
    logs in with a person, and asks about host keys on the way, and {copy} the one that gives a server a public key.
    """

    pattern: str
    kind: type[TransportError]
    message: str
    hint: str


_CAUSES = (
    _Cause(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        HostKeyChanged,
        "the host key of {0} has changed{print}",
        "someone may be listening in; if the server was reinstalled, run {login} in a terminal",
    ),
    _Cause(
        r"No \S+ host key is known for \S+ and you have requested strict checking",
        HostKeyUnknown,
        "the host key of {0} is not known here{print}",
        "your ssh config says StrictHostKeyChecking yes: compare its fingerprint with the server's and put its line "
        "into known_hosts, or set 'ask' and run {login} in a terminal",
    ),
    _Cause(
        r"(?:No \S+ host key is known for|Host key verification failed)",
        HostKeyUnknown,
        "the host key of {0} is not known here{print}",
        "compare its fingerprint with the server's and accept it once: run {login} in a terminal",
    ),
    _Cause(
        r"Account refused by \S+ port \d+: ([^\n]*Too many logins[^\n]*)",
        AccountRefused,
        "{0} does not let this account in: {1}",
        _TOO_MANY,
    ),
    _Cause(
        r"Account refused by \S+ port \d+: ([^\n]+)",
        AccountRefused,
        "{0} does not let this account in: {1}",
        _ASK,
    ),
    _Cause(
        r"Account refused by ",
        AccountRefused,
        "{0} closes the connection after the login, and does not say why",
        "the account may be locked, expired or not meant for this host: ask who runs the server",
    ),
    _Cause(
        rf"([^\n]+): {LOCKED_KEY}\n(?:.*\n)*?.*Permission denied \(([^)]*)\)",
        AuthenticationFailed,
        "{0} does not let you in: permission denied ({2}){user}, and the key {1} has a passphrase",
        "run {login} in a terminal, or load the key into ssh-agent",
    ),
    _Cause(
        r"Permission denied \(([^)]*publickey[^)]*(?:password|keyboard-interactive)[^)]*)\)",
        AuthenticationFailed,
        "{0} does not let you in: permission denied ({1}){user}",
        "run {login} in a terminal; to log in with your key from then on, run {copy} once",
    ),
    _Cause(
        r"Permission denied \(([^)]*(?:password|keyboard-interactive)[^)]*)\)",
        AuthenticationFailed,
        "{0} does not let you in: permission denied ({1}){user}",
        "run {login} in a terminal",
    ),
    _Cause(
        r"Permission denied \(([^)]*)\)",
        AuthenticationFailed,
        "{0} does not let you in: permission denied ({1}){user}",
        "if the server does not have your public key yet, run {copy}, or ask who runs it to add the key; otherwise "
        "load the key into ssh-agent, or name it with IdentityFile",
    ),
    _Cause(
        r"Too many authentication failures",
        AuthenticationFailed,
        "{0} does not let you in: too many keys were offered",
        "name one with IdentityFile and set IdentitiesOnly yes in the ssh config",
    ),
    _Cause(
        r"Could not resolve hostname (\S+):",
        UnknownHost,
        "the name {1} has no address",
        "check the spelling, the network and the VPN",
    ),
    _Cause(
        r"Connection refused",
        ConnectionRefused,
        "nothing answers on the SSH port of {0}: connection refused",
        "check the port and that sshd runs there",
    ),
    _Cause(
        r"(?:[Tt]imed out|timeout|No route to host|Network is unreachable|Host is down)",
        ConnectTimeout,
        "{0} does not answer",
        "check the address, the network and the VPN",
    ),
    _Cause(
        r"([^\n]*(?:Bad configuration option|terminating, \d+ bad configuration|Can't open user config file)[^\n]*)",
        SshConfigError,
        "ssh refuses its configuration: {1}",
        "correct the file that it names",
    ),
    _Cause(
        r"Unable to negotiate with [^\n]*?: ([^\n]+)",
        TransportError,
        "{0} and this machine do not agree on how to encrypt: {1}",
        "name what it offers in the ssh config, with Ciphers, MACs, KexAlgorithms or HostKeyAlgorithms",
    ),
    _Cause(
        r"(?:kex_exchange_identification|banner exchange: |Connection (?:closed|reset) by|Connection closed)",
        TransportError,
        "{0} closed the connection before the login{said}",
        "check that an SSH server runs there and accepts connections from here",
    ),
    _Cause(
        # Last: a full shared connection is refused so, too, and then what ssh says of its next try counts.
        r"Session refused by |Session open refused by peer|channel \d+: open failed: |connect to new control master",
        AccountRefused,
        "{0} lets you in and opens no session",
        "ask who runs the server: its sshd_config may say MaxSessions 0 for this account",
    ),
)


def explain(options: LaunchOptions, stderr: str, status: int | None, noise: bytes) -> RemoteKernelError:
    """Return the error for an ssh that ended before our program answered.

    `stderr` is what it printed, `status` its exit status (255 for its own failures, None when it was killed),
    `noise` what came on stdout instead of our answer.
    """
    if status == 127 and re.search(r"remote_kernel: no python", stderr):
        return PythonNotFound(
            f"there is no Python on {options.endpoint}",
            "install Python 3.8 or later there, or give its path with --python",
        )
    if status == 127 and re.search(
        r"(?:^|\n)[^\n]*sh: (?:\d+: |line \d+: )?(?:exec: )?\S*ssh\S*: (?:command )?not found", stderr
    ):
        return SshNotFound(
            "there is no such ssh program here", "install the OpenSSH client or set REMOTE_KERNEL_SSH to its path"
        )
    if status == SHELL_REPLACED_STATUS:
        return shell_replaced(options)
    if status not in (255, None):
        return _remote_failure(options, stderr, status, noise)
    full = re.search(r"unix_listener: cannot \w+ to path (\S+): (No space left on device|Disk quota exceeded)", stderr)
    if full:  # for the connection that kernels share
        return LocalFilesError(
            f"cannot make a socket in {os.path.dirname(full[1])}: {full[2].lower()}",
            "make room there, or set XDG_RUNTIME_DIR to another folder",
        )
    found = _find_cause(options, stderr)
    if found is not None:
        return found
    last = _last_line(stderr)
    if last:
        return TransportError(f"cannot reach {options.endpoint}: {last}", f"try: {to_paste(options)}")
    return ConnectionLost(f"the connection to {options.endpoint} broke before the kernel started", "try again")


@contextmanager
def explained(options: LaunchOptions) -> Iterator[None]:
    """Raise what `explain` returns for an SshFailure in the block."""
    try:
        yield
    except SshFailure as failure:
        raise explain(options, str(failure), 255, b"") from None


def shell_replaced(options: LaunchOptions) -> RemoteShellNoise:
    """Return the error for another program, such as a second shell, that has read what was sent to ours."""
    return RemoteShellNoise(
        f"an rc file of {options.endpoint} puts another program in the place of the login shell",
        "see what ~/.bashrc (else ~/.zshenv, ~/.tcshrc or ~/.config/fish/config.fish) runs by 'exec' there, and let it "
        "do so only in an interactive shell, behind: case $- in *i*) ... ;; esac",
    )


def flooded(options: LaunchOptions, noise: bytes) -> RemoteShellNoise:
    """Return the error for a login shell that prints without an end."""
    lines = noise.decode("utf-8", "replace").split()
    return RemoteShellNoise(
        f"something prints without end when {options.endpoint} starts a login shell: '{(lines or [''])[-1][-60:]}'",
        "let its rc files (such as ~/.bashrc) start nothing that prints",
    )


def _find_cause(options: LaunchOptions, stderr: str) -> TransportError | None:
    for cause in _CAUSES:
        found = re.search(cause.pattern, stderr)
        if not found:
            continue
        before_the_target = cause.kind is not TransportError and bool(_PROXY_ENDED.search(stderr))
        through = before_the_target or bool(_THROUGH_JUMP.search(stderr))
        if through and cause.kind in _OF_THE_NETWORK:
            return _jump_failed(options, stderr)
        texts = (_refusing_hop(options, stderr, through), *found.groups())
        said, user = _words_before(cause.pattern, stderr), _refused_user(stderr, texts[0])
        message = cause.message.format(*texts, print=_fingerprint(stderr), said=said, user=user)
        copy = _key_copy_command(options, stderr, through)
        return cause.kind(message, cause.hint.format(login=_login_command(options), copy=f"'{copy}'"))
    return None


def _refusing_hop(options: LaunchOptions, stderr: str, through: bool) -> str:
    """Return the name of the hop that refused: the target, or the jump host as ssh names it."""
    if not through:
        return str(options.endpoint)
    return f"jump host {_hop_name(stderr) or _jump_names(options)}"


def _jump_names(options: LaunchOptions) -> str:
    """Return the jump hosts of the options, else those of the ssh config."""
    if options.jumps:
        return print_jumps(options.jumps)
    try:
        found = ",".join(hop.name for hop in choice.hops(options)[:-1])
    except (TransportError, SshFailure):  # the error that is being explained says more
        found = ""
    return found or "of the ssh config"


def _refused_user(stderr: str, who: str) -> str:
    """Return the user name as it belongs into a message; empty if the server's name in it has it already."""
    denied = re.search(r"^(\S+)@\S+: Permission denied", stderr, re.MULTILINE)
    return "" if not denied or f"{denied[1]}@" in who else f" for user '{denied[1]}'"


def _key_copy_command(options: LaunchOptions, stderr: str, through: bool) -> str:
    """Return the command that gives the hop that refused a public key."""
    hop = _way_to_hop(options, stderr) if through else options
    if hop is None:
        return f"ssh-copy-id {_hop_name(stderr) or 'JUMP_HOST'}"
    words = ["ssh-copy-id", *(["-F", hop.ssh_config] if hop.ssh_config else [])]
    words += ["-o", f"ProxyJump={print_jumps(hop.jumps)}"] if hop.jumps else []
    words += ["-p", str(hop.endpoint.port)] if hop.endpoint.port else []
    user = f"{hop.endpoint.user}@" if hop.endpoint.user else ""
    return join([*words, f"{user}{hop.endpoint.host}"])


def _hop_name(stderr: str) -> str:
    """Return the hop as ssh names it, USER@HOST or [HOST]:PORT; empty where it does not."""
    denied = re.search(r"^(\S+@\S+): Permission denied", stderr, re.MULTILINE)
    unknown = re.search(r"[Hh]ost key (?:is known )?for (\S+) ", stderr)
    named = denied or unknown
    return named[1] if named else ""


def _way_to_hop(options: LaunchOptions, stderr: str) -> LaunchOptions | None:
    """Return the way to the jump host that ssh means, None if that is in the ssh config alone."""
    named = re.sub(r".*@|\[|\](?::\d+)?$", "", _hop_name(stderr))
    hops = [number for number, jump in enumerate(options.jumps) if named == jump.host or len(options.jumps) == 1]
    return options._replace(endpoint=options.jumps[hops[0]], jumps=options.jumps[: hops[0]]) if hops else None


def _login_command(options: LaunchOptions) -> str:
    """Return the command that logs in, in quotes that it does not have itself."""
    command = options.login_command()
    return f'"{command}"' if "'" in command else f"'{command}'"


def _fingerprint(stderr: str) -> str:
    """Return the new host key's fingerprint as it belongs into a message; ssh tells an unknown one only to a person."""
    found = re.search(r"\bSHA256:[A-Za-z0-9+/]{43}", stderr)
    return f" ({found[0]})" if found else ""


def _jump_failed(options: LaunchOptions, stderr: str) -> JumpHostFailed:
    jumps = _jump_names(options)
    refused = re.search(r"open failed: (?:connect failed: )?([^\n\r]+)", stderr)
    if refused:
        return JumpHostFailed(
            f"jump host {jumps} cannot reach {options.endpoint}: {refused[1].strip().lower()}",
            "check the endpoint as the jump host sees it, and that it allows forwarding (AllowTcpForwarding)",
        )
    hop = _way_to_hop(options, stderr)  # no further: the jump host itself is not reached
    hint = f"try: {to_paste(hop) if hop else 'ssh JUMP_HOST true'}"
    return JumpHostFailed(f"jump host {jumps} cannot be reached: {_first_line(stderr)}", hint)


def _remote_failure(options: LaunchOptions, stderr: str, status: int | None, noise: bytes) -> RemoteKernelError:
    said = _last_line(stderr) or _last_line(noise.decode("utf-8", "replace"))
    if re.match(r"zlib\.error: |OSError: \[Errno 9\]", said):
        what = f"'{options.python}', or something in the rc files of {options.endpoint}," if options.python else ""
        return RemoteShellNoise(
            f"{what or f'something in the rc files of {options.endpoint}'} reads or closes what is sent to our program",
            "let it leave its standard input alone",
        )
    words = [*_lines(noise.decode("utf-8", "replace")), *_lines(stderr)]
    if status == NO_SESSION_STATUS or (_NO_COMMAND.search(said) and status):
        return _no_session(options, "; ".join(words[-3:])[:300])
    if status == 126 or "Unknown option: -I" in stderr:
        return PythonNotFound(
            f"'{options.remote_python()}' on {options.endpoint} does not run: {said}",
            "give --python a Python 3.8 or later",
        )
    if noise.strip() or status == 0:
        shown = noise.decode("utf-8", "replace").strip()[-200:]
        hint = "let its rc files print, read and replace nothing when it is not interactive"
        if options.python:
            hint += f", and see that '{options.python}' is a Python"
        return RemoteShellNoise(f"the login shell of {options.endpoint} answered something else: {shown!r}", hint)
    return RemoteShellNoise(
        f"the remote command on {options.endpoint} ended with status {status}{': ' + said if said else ''}",
        f"try: {to_paste(options, 'python3 --version')}",
    )


def _no_session(options: LaunchOptions, words: str) -> AccountRefused:
    """Return the error for a server that accepts a login and opens no session; it says why once for a connection."""
    message = f"{options.endpoint} does not let this account in: {words or 'it opens no session'}"
    if "too many logins" in words.lower():
        return AccountRefused(message, _TOO_MANY)
    return AccountRefused(message, _ASK if words else f"see what it says: {to_paste(options)}")


def _last_line(text: str) -> str:
    return next(reversed(_lines(text)), "")


def _first_line(text: str) -> str:
    return next(iter(_lines(text)), "no reason given")


def _words_before(pattern: str, stderr: str) -> str:
    """Return what was said ahead of ssh's own words, by a ProxyCommand for example, as it belongs into a message."""
    first = _first_line(stderr)
    return "" if re.search(pattern, first) else f": {first}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("warning: ")]
