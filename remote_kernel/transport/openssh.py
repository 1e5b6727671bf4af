"""Reach a host with the user's own ssh: its configuration, agent, keys, certificates and jump hosts."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from remote_kernel.endpoint import print_jumps
from remote_kernel.errors import SshConfigError, SshNotFound, TransportError
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.locked_keys import locked_keys
from remote_kernel.transport.private import private_folder

CONNECT_SECONDS = 15
MASTER_SECONDS = 600  # a restart, a second kernel or a sync within ten minutes skips the handshake
TAKEN_STATUS = 97  # of a shell that read what was sent to our program: `bootstrap.FIRST_LINE` has told it to end so
_SHORTAGES = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


_NOT_AT_A_TERMINAL = ("-oRequestTTY=no", "-oEscapeChar=none")


def ssh_program() -> str:
    """Name the ssh program: REMOTE_KERNEL_SSH, else `ssh`."""
    return os.environ.get("REMOTE_KERNEL_SSH", "") or "ssh"


def environment() -> dict[str, str]:
    """Give ssh's environment: ours, without the ways in which ssh would ask a person that is not there."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}


def where(options: LaunchOptions) -> list[str]:
    """Give the ssh arguments that say where to go, the host last."""
    endpoint = options.endpoint
    words = ["-F", os.path.expanduser(options.ssh_config)] if options.ssh_config else []
    if options.jumps:
        words += ["-J", print_jumps(options.jumps)]
    if endpoint.user:
        words += ["-l", endpoint.user]
    if endpoint.port:
        words += ["-p", str(endpoint.port)]
    return [*words, endpoint.host]


def to_paste(options: LaunchOptions, remote_command: str = "true") -> str:
    """Give the command line that goes the same way, for a person to try: errors show it.

    With the transport in Python that is one of ours: there may be no ssh program.
    """
    from shlex import join, split  # only here: the launcher imports this module before it starts ssh

    from remote_kernel.transport import choice

    if choice.name(options) != "openssh":
        return options.command_line("connect", "--", *split(remote_command))
    return join([ssh_program(), *where(options), remote_command])


def effective_config(options: LaunchOptions) -> dict[str, str]:
    """Ask ssh what it will do for this host: `ssh -G`, 3 ms, no connection. Of several values the first counts.

    Raises SshNotFound, SshConfigError.
    """
    config: dict[str, str] = {}
    for name, value in _all_settings(options):
        config.setdefault(name, value)
    return config


def _all_settings(options: LaunchOptions) -> list[tuple[str, str]]:
    argv = [ssh_program(), "-T", "-G", *where(options)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, env=environment()
        )
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise TransportError(
                f"cannot run '{argv[0]}' here: {os.strerror(error.errno).lower()}", "see what uses up this machine"
            ) from error
        raise SshNotFound(
            f"there is no ssh program '{argv[0]}' here",
            "install the OpenSSH client or set REMOTE_KERNEL_SSH to its path",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SshConfigError(
            "ssh takes longer than 10 s to read its configuration", "run 'ssh -G HOST' to see"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SshConfigError(f"ssh refuses its configuration: {lines[0]}", "mend the file that it names")
    return [(name, value) for name, _, value in (line.partition(" ") for line in done.stdout.splitlines())]


def cipher_options(config: Mapping[str, str]) -> list[str]:
    """Prefer AES-GCM to ChaCha20 where the processor has AES, unless the user's config chooses its ciphers.

    Measured on loopback: 1.5 to 2.5 times the throughput, and as much less of the time that ssh takes from the rest.
    """
    ciphers = config.get("ciphers", "").split(",")
    aes = [name for name in ciphers if "-gcm@" in name]
    if not aes or not ciphers[0].startswith("chacha20") or os.uname().machine not in ("x86_64", "arm64"):
        return []
    return [f"-oCiphers={','.join(aes + [name for name in ciphers if name not in aes])}"]


def control_path(options: LaunchOptions) -> str:
    """Give the socket of the private master for this way to this host."""
    way = "\0".join([ssh_program(), *where(options)])
    return os.path.join(private_folder(), hashlib.sha256(way.encode()).hexdigest()[:16])


def shares_already(config: Mapping[str, str]) -> bool:
    """Whether the user's config shares a connection of its own, which we then use and leave alone."""
    return config.get("controlpath", "none") != "none"


def master_options(
    options: LaunchOptions, config: Mapping[str, str], persist_seconds: float = MASTER_SECONDS
) -> list[str]:
    """Give the options that share one connection among our kernels, unless the user's config shares one already."""
    if shares_already(config):
        return []
    return ["-oControlMaster=auto", f"-oControlPath={control_path(options)}", f"-oControlPersist={persist_seconds:.0f}"]


def master_mark(options: LaunchOptions) -> tuple[int, int] | None:
    """Give what tells our private master's socket from its successor; None when there is no master."""
    try:
        found = os.lstat(control_path(options))
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def master_pid(options: LaunchOptions) -> int:
    """Give the process that holds the shared connection, ours or the one of the user's config; 0 when there is none.

    Raises SshNotFound, SshConfigError.
    """
    own = [] if shares_already(effective_config(options)) else [f"-oControlPath={control_path(options)}"]
    argv = [ssh_program(), *own, "-O", "check", *where(options)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, env=environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\(pid=(\d+)\)", done.stderr)
    return int(found[1]) if found and not done.returncode else 0


def end_master(options: LaunchOptions, mark: tuple[int, int] | None) -> None:
    """End the private master with that mark and so every session on it: its connection is dead, unnoticed by ssh.

    Idempotent. Its successor, which another of our launchers may have made meanwhile, is left alone.
    """
    path = control_path(options)
    if mark is None or master_mark(options) != mark:
        return
    argv = [ssh_program(), f"-oControlPath={path}", "-O", "exit", *where(options)]
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=2, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        if master_mark(options) == mark:
            os.unlink(path)
    except OSError:
        pass


def ssh_argv(options: LaunchOptions, remote_command: str, *, avoid_master: bool = False) -> list[str]:
    """Give the command that runs `remote_command` there, its stdin and stdout being ours, and asks nobody anything.

    What the user's config sets for keepalive and the connection's timeout stays. `avoid_master` opens a connection
    of its own beside a master of the user's, which may be stale. Raises SshNotFound, SshConfigError.
    """
    config = effective_config(options)
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", *_plain_connection(config)]
    words += master_options(options, config) or (["-oControlPath=none"] if avoid_master else [])
    return [ssh_program(), *words, *where(options), remote_command]


def reach_argv(options: LaunchOptions, host: str, port: int) -> list[str]:
    """Give the command that carries bytes from that server to a port that it can reach.

    Over a connection that the user's config shares, as ssh would on its way through; else over one of its own. Raises
    SshNotFound, SshConfigError.
    """
    config = effective_config(options)
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", *_plain_connection(config)]
    words += [] if shares_already(config) else ["-oControlPath=none"]
    return [ssh_program(), *words, "-W", f"[{host}]:{port}", *where(options)]


def session_argv(options: LaunchOptions, remote_command: str, *, terminal: bool) -> list[str]:
    """Give the command that runs `remote_command` there for a person, at a terminal of its own if `terminal`.

    It takes the connection that kernels share, which `login_argv` has opened. Raises SshNotFound, SshConfigError.
    """
    config = effective_config(options)
    # LogLevel: ssh says "Shared connection to HOST closed." else, which is not true of our master.
    words = [*_plain_connection(config), "-oLogLevel=ERROR"]
    if terminal:
        words = ["-oRequestTTY=force", *(word for word in words if word not in _NOT_AT_A_TERMINAL)]
    words += master_options(options, config)
    return [ssh_program(), *words, *where(options), remote_command]


def login_argv(options: LaunchOptions, persist_seconds: float, *, asks: bool) -> list[str]:
    """Give the command that logs in, asking at the terminal if it may, and leaves a connection for kernels to share.

    Raises SshNotFound, SshConfigError.
    """
    config = effective_config(options)
    words = [*([] if asks else ["-oBatchMode=yes", "-oLogLevel=ERROR"]), *_plain_connection(config)]
    if shares_already(config):
        words.append("-oControlMaster=auto")
        if config.get("controlpersist", "no") in ("no", "0"):
            words.append(f"-oControlPersist={persist_seconds:.0f}")
    else:
        words += master_options(options, config, persist_seconds)
    return [ssh_program(), *words, *where(options), "true"]


def forward_argv(options: LaunchOptions, ports: Sequence[tuple[int, int]]) -> list[str]:
    """Give the command that lets ports of loopback here lead to ports of loopback there, over its own connection.

    It says on stderr when each is open. Raises SshNotFound, SshConfigError.
    """
    plain = _plain_connection(effective_config(options))
    words = ["-N", *(word for word in plain if word != "-oClearAllForwardings=yes"), "-oLogLevel=DEBUG1"]
    words += ["-oControlPath=none", "-oExitOnForwardFailure=yes"]
    for local, remote in ports:
        words += ["-L", f"127.0.0.1:{local}:127.0.0.1:{remote}"]
    return [ssh_program(), *words, *where(options)]


def _plain_connection(config: Mapping[str, str]) -> list[str]:
    """Give the options for a connection that carries one command's bytes, and misses a server that is gone."""
    words = [
        *("-oRequestTTY=no", "-oRemoteCommand=none", "-oClearAllForwardings=yes", "-oForwardX11=no"),
        *("-oPermitLocalCommand=no", "-oEscapeChar=none"),
    ]
    if config.get("connecttimeout", "none") in ("none", "0"):
        words.append(f"-oConnectTimeout={CONNECT_SECONDS}")
    if config.get("serveraliveinterval", "0") == "0":
        words += ["-oServerAliveInterval=5", "-oServerAliveCountMax=3"]
    return words + cipher_options(config)


def in_full(options: LaunchOptions, stderr: str) -> str:
    """Give what ssh printed when it failed, with what it left out: a jump host's words, keys that nobody unlocked."""
    stderr = _with_the_jump_hosts_words(options, stderr)
    if "Permission denied" not in stderr:
        return stderr
    keys = locked_keys(value for name, value in _all_settings(options) if name == "identityfile")
    return "".join(f"{path}: the key has a passphrase and is not in the agent\n" for path in keys) + stderr


def _with_the_jump_hosts_words(options: LaunchOptions, stderr: str) -> str:
    """Give what ssh printed when it failed; if a jump host had a part in that, with the words of the ssh to it.

    With ControlPersist ssh sends the stderr of its jump host's ssh to /dev/null (sshconnect.c, OpenSSH 9.2), and so
    the only words that say whether the jump host, or what lies behind it, was the one that refused. This tries once
    more without a shared connection.
    """
    if "exchange_identification" not in stderr:
        return stderr
    config = effective_config(options)
    if config.get("proxyjump", "none") == config.get("proxycommand", "none") == "none":
        return stderr
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", "-oControlPath=none", "-oControlPersist=no"]
    argv = [ssh_program(), *words, f"-oConnectTimeout={CONNECT_SECONDS}", *where(options), "true"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_SECONDS, env=environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return stderr
    return done.stderr.decode("utf-8", "replace") or stderr if done.returncode == 255 else stderr
