"""Reach a host with the user's own ssh: its configuration, agent, keys, certificates and jump hosts.

Each function that ends in `_argv` returns a command; `complete_stderr` finds out what ssh left unsaid when one failed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from remote_kernel.options import LaunchOptions
from remote_kernel.transport.carrier import PipedProcess
from remote_kernel.transport.masters import config_shares, master_options
from remote_kernel.transport.ssh_config import (
    CONNECT_SECONDS,
    all_settings,
    destination,
    effective_config,
    environment,
    first_of_each,
    ssh_program,
)
from remote_kernel.transport.ssh_messages import LOCKED_KEY, account_refused

# The latter where the ssh to the jump host was gone before this one had said hello.
_PROXY_ENDED = re.compile(r"exchange_identification|banner exchange: Connection to UNKNOWN port 65535: Broken pipe")
# A client that does not know them refuses them.
_SINCE_8_7 = {"sessiontype": "default", "forkafterauthentication": "no", "stdinnull": "no"}
# The latter where the ssh to the jump host was gone before this one had said hello.
_PROXY_ENDED = re.compile(r"exchange_identification|banner exchange: Connection to UNKNOWN port 65535: Broken pipe")
_NOT_AT_A_TERMINAL = ("-oRequestTTY=no", "-oEscapeChar=none")
_CLOSED = re.compile(r"^Connection (?:closed|reset) by (?!UNKNOWN)(\S+) port (\d+)", re.MULTILINE)
_USER_IS_KNOWN = re.compile(
    r"^debug1: (?:Server accepts key|Next authentication method: (?!publickey)).*\n", re.MULTILINE
)
_SESSION_REFUSED = re.compile(r"(?<=\n)channel \d+: open failed: (?!.*\nstdio forwarding).*")
_MAGIC = b"openssh-key-v1\0"
_ARMOUR = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----(.+?)-----END", re.DOTALL)


def ssh_argv(options: LaunchOptions, remote_command: str, *, avoid_master: bool = False) -> list[str]:
    """Return the command that runs `remote_command` there, its stdin and stdout being ours, and asks nobody anything.

    What the user's config sets for keepalive and the connection's timeout stays. `avoid_master` opens a connection
    of its own beside a master of the user's, which may be stale. Raises SshNotFound, SshConfigError.
    """
    settings = all_settings(options)
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", *_connection_options(first_of_each(settings))]
    words += master_options(options, settings) or (["-oControlPath=none"] if avoid_master else [])
    return [ssh_program(), *words, *destination(options), remote_command]


def reach_argv(options: LaunchOptions, host: str, port: int) -> list[str]:
    """Return the command that carries bytes from that server to a port that it can reach.

    Over a connection that the user's config shares, as ssh would on its way through; else over one of its own. Raises
    SshNotFound, SshConfigError.
    """
    config = effective_config(options)
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", *_connection_options(config)]
    words += [] if config_shares(config) else ["-oControlPath=none"]
    return [ssh_program(), *words, "-W", f"[{host}]:{port}", *destination(options)]


def session_argv(options: LaunchOptions, remote_command: str, *, terminal: bool) -> list[str]:
    """Return the command that runs `remote_command` there for a person, at a terminal of its own if `terminal`.

    It takes the connection that kernels share, which `login_argv` has opened. Raises SshNotFound, SshConfigError.
    """
    settings = all_settings(options)
    # LogLevel: ssh says "Shared connection to HOST closed." else, which is not true of our master.
    words = [*_connection_options(first_of_each(settings)), "-oLogLevel=ERROR"]
    if terminal:
        words = ["-oRequestTTY=force", *(word for word in words if word not in _NOT_AT_A_TERMINAL)]
    words += master_options(options, settings)
    return [ssh_program(), *words, *destination(options), remote_command]


def login_argv(options: LaunchOptions, persist_seconds: float, *, asks: bool) -> list[str]:
    """Return the command that logs in, asking at the terminal if it may, and leaves a connection for kernels to share.

    Raises SshNotFound, SshConfigError.
    """
    settings = all_settings(options)
    config = first_of_each(settings)
    words = [*([] if asks else ["-oBatchMode=yes", "-oLogLevel=ERROR"]), *_connection_options(config)]
    if config_shares(config):
        words.append("-oControlMaster=auto")
        if config.get("controlpersist", "no") in ("no", "0"):
            words.append(f"-oControlPersist={persist_seconds:.0f}")
    else:
        words += master_options(options, settings, persist_seconds)
    return [ssh_program(), *words, *destination(options), "true"]


def forward_argv(options: LaunchOptions, ports: Sequence[tuple[int, int]]) -> list[str]:
    """Return the command that lets ports of loopback here lead to ports of loopback there, over its own connection.

    It says on stderr when each is open. Raises SshNotFound, SshConfigError.
    """
    plain = _connection_options(effective_config(options))
    words = ["-N", *(word for word in plain if word != "-oClearAllForwardings=yes"), "-oLogLevel=DEBUG1"]
    words += ["-oControlPath=none", "-oExitOnForwardFailure=yes"]
    for local, remote in ports:
        words += ["-L", f"127.0.0.1:{local}:127.0.0.1:{remote}"]
    return [ssh_program(), *words, *destination(options)]


def _connection_options(config: Mapping[str, str]) -> list[str]:
    """Return the options for a connection that carries one command's bytes, and misses a server that is gone."""
    words = [
        *("-oRequestTTY=no", "-oRemoteCommand=none", "-oClearAllForwardings=yes", "-oForwardX11=no"),
        *("-oPermitLocalCommand=no", "-oEscapeChar=none", "-oTunnel=no"),
    ]
    words += [f"-o{name}={value}" for name, value in _SINCE_8_7.items() if config.get(name, value) != value]
    if config.get("connecttimeout", "none") in ("none", "0"):
        words.append(f"-oConnectTimeout={CONNECT_SECONDS}")
    if config.get("serveraliveinterval", "0") == "0":
        words += ["-oServerAliveInterval=5", "-oServerAliveCountMax=3"]
    return words + cipher_options(config)


def cipher_options(config: Mapping[str, str]) -> list[str]:
    """Prefer AES-GCM to ChaCha20 where the processor has AES, unless the user's config chooses its ciphers.

    Measured on loopback: 1.5 to 2.5 times the throughput, and as much less of the time that ssh takes from the rest.
    """
    ciphers = config.get("ciphers", "").split(",")
    aes = [name for name in ciphers if "-gcm@" in name]
    if not aes or not ciphers[0].startswith("chacha20") or os.uname().machine not in ("x86_64", "arm64"):
        return []
    return [f"-oCiphers={','.join(aes + [name for name in ciphers if name not in aes])}"]


def complete_stderr(options: LaunchOptions, stderr: str) -> str:
    """Return what ssh printed when it failed, with what it left out.

    That is a jump host's words, keys that nobody unlocked, and the words for an account that the server refuses.
    """
    stderr = _with_jump_host_words(options, stderr)
    if "Permission denied" in stderr:
        keys = locked_keys(value for name, value in all_settings(options) if name == "identityfile")
        stderr = "".join(f"{path}: {LOCKED_KEY}\n" for path in keys) + stderr
    return _with_refusal(options, stderr)


def _with_jump_host_words(options: LaunchOptions, stderr: str) -> str:
    """Return what ssh printed when it failed; if a jump host had a part in that, with the words of the ssh to it.

    With ControlPersist ssh sends the stderr of its jump host's ssh to /dev/null (sshconnect.c, OpenSSH 9.2), and so
    the only words that say whether the jump host, or what lies behind it, was the one that refused. This tries once
    more without a shared connection.
    """
    if not _PROXY_ENDED.search(stderr):
        return stderr
    config = effective_config(options)
    if config.get("proxyjump", "none") == config.get("proxycommand", "none") == "none":
        return stderr
    return _stderr_once_more(options, "-oLogLevel=ERROR", *_connection_options(config)) or stderr


def _stderr_once_more(options: LaunchOptions, *words: str) -> str:
    """Return what ssh prints when it fails once more, without a shared connection; empty where it does not fail."""
    own = ["-oBatchMode=yes", "-oControlPath=none", "-oControlPersist=no"]
    argv = [ssh_program(), *own, *words, *destination(options), "true"]
    try:
        with PipedProcess(argv, environment()) as process:
            process.stdout.close()  # a login shell may print there for ever
            status, stderr = process.end(CONNECT_SECONDS)
    except OSError:
        return ""
    return stderr if status == 255 else ""


def _with_refusal(options: LaunchOptions, stderr: str) -> str:
    """Return what ssh printed when it failed; where a server may have refused the account, with the words for that.

    PAM refuses an account after its key was accepted, and its words (no job on this node, expired, maintenance) come
    as a banner, which ssh shows at LogLevel INFO and above only; so it is asked once more, verbosely.
    """
    if stderr.strip() and not _CLOSED.search(stderr):
        return stderr
    said = _stderr_once_more(options, "-v", f"-oConnectTimeout={CONNECT_SECONDS}").replace("\r\n", "\n")
    if no_session := _SESSION_REFUSED.search(said):
        return f"{no_session[0]}\n{stderr}"
    known, closed = list(_USER_IS_KNOWN.finditer(said)), _CLOSED.search(said)
    if not known or not closed or "debug1: Authenticated" in said[known[-1].end() :]:
        return stderr
    between = said[known[-1].end() : closed.start()].splitlines()
    line = account_refused(closed[1], closed[2], (line for line in between if not line.startswith("debug1: ")))
    return line + stderr


def locked_keys(paths: Iterable[str]) -> list[str]:
    """Return those of the key files that are encrypted and whose keys the agent does not have.

    ssh passes them over in silence where it may not ask for a passphrase.
    """
    found = {path: blob for path in paths if (blob := _public_blob_if_locked(path)) is not None}
    in_agent = _agent_blobs() if found else frozenset()
    return [path for path, blob in found.items() if blob not in in_agent]


def _public_blob_if_locked(path: str) -> bytes | None:
    """Return the public key (empty where only the private file could tell) of an encrypted key, else None."""
    try:
        with open(os.path.expanduser(path), encoding="ascii", errors="replace") as file:
            text = file.read(64 << 10)
    except OSError:
        return None
    if "Proc-Type: 4,ENCRYPTED" in text or "BEGIN ENCRYPTED PRIVATE KEY" in text:
        try:
            with open(os.path.expanduser(f"{path}.pub"), encoding="ascii", errors="replace") as file:
                return _blob_of_line(file.read())
        except OSError:
            return b""
    armour = _ARMOUR.search(text)
    try:
        data = base64.b64decode(armour[1]) if armour else b""
        cipher, rest = _string(data.removeprefix(_MAGIC))
        if not data.startswith(_MAGIC) or cipher == b"none":
            return None
        _, rest = _string(rest)  # how the passphrase becomes a key, and with what
        _, rest = _string(rest)
        return _string(rest[4:])[0]
    except (binascii.Error, struct.error):
        return None


def _string(data: bytes) -> tuple[bytes, bytes]:
    """Split off one length-prefixed string (RFC 4251, section 5)."""
    (length,) = struct.unpack_from("!I", data)
    return data[4 : 4 + length], data[4 + length :]


def _agent_blobs() -> frozenset[bytes]:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return frozenset()
    try:
        done = subprocess.run(
            ["ssh-add", "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(map(_blob_of_line, done.stdout.splitlines()))


def _blob_of_line(line: str) -> bytes:
    try:
        return base64.b64decode(line.split()[1])
    except (IndexError, binascii.Error):
        return b""
