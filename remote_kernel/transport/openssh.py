"""Reach a host with the user's own ssh: its configuration, agent, keys, certificates and jump hosts."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from remote_kernel.endpoint import parse_jumps, print_jumps
from remote_kernel.errors import SshConfigError, SshNotFound, TransportError, UsageError
from remote_kernel.files import private_folder
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.aliases import as_the_config_has_it
from remote_kernel.transport.carrier import run_and_read
from remote_kernel.transport.locked_keys import locked_keys

CONNECT_SECONDS = 15
MASTER_SECONDS = 600  # a restart, a second kernel or a sync within ten minutes skips the handshake
TAKEN_STATUS = 97  # of a shell that read what was sent to our program: `bootstrap.FIRST_LINE` has told it to end so
MASTERS = "ssh"
"""The folder, in the private one, of the shared connections' sockets."""

_SHORTAGES = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_DEEPEST = 8  # jump hosts that have jump hosts
_CONTROL_PATH = "-oControlPath="
# The latter where the ssh to the jump host was gone before this one had said hello.
_PROXY_ENDED = re.compile(r"exchange_identification|banner exchange: Connection to UNKNOWN port 65535: Broken pipe")
# Settings that are each session's own, so that a shared connection serves those with others as well; whatever else
# ssh -G prints decides where, as whom or how a connection is made.
_OF_A_SESSION = frozenset(
    (
        *("clearallforwardings", "controlmaster", "controlpath", "controlpersist", "dynamicforward"),
        *("enableescapecommandline", "escapechar", "exitonforwardfailure", "forkafterauthentication", "localcommand"),
        *("localforward", "loglevel", "logverbose", "permitlocalcommand", "remotecommand", "remoteforward"),
        *("requesttty", "sendenv", "sessiontype", "setenv", "stdinnull", "syslogfacility"),
    )
)
# A client that does not know them refuses them.
_SINCE_8_7 = {"sessiontype": "default", "forkafterauthentication": "no", "stdinnull": "no"}
_NOT_AT_A_TERMINAL = ("-oRequestTTY=no", "-oEscapeChar=none")

Settings = list[tuple[str, str]]  # as `ssh -G` prints them: some keywords stand there several times


def ssh_program() -> str:
    """Name the ssh program: REMOTE_KERNEL_SSH, else `ssh`."""
    return os.environ.get("REMOTE_KERNEL_SSH", "") or "ssh"


def environment() -> dict[str, str]:
    """Return ssh's environment: ours, without the ways in which ssh would ask a person that is not there.

    Not with another language: ssh speaks English in any, and with SendEnv the kernel gets ours, as with plain ssh.
    """
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def where(options: LaunchOptions) -> list[str]:
    """Give the ssh arguments that say where to go, the host last."""
    endpoint = as_the_config_has_it(options)
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


def end_own_command(options: LaunchOptions) -> str:
    """Return the command line that ends a connection which the user's configuration shares, for a person to run."""
    from shlex import join

    return join([ssh_program(), "-O", "exit", *where(options)])


def effective_config(options: LaunchOptions) -> dict[str, str]:
    """Ask ssh what it will do for this host: `ssh -G`, 3 ms, no connection. Of several values the first counts.

    Raises SshNotFound, SshConfigError.
    """
    return _first_of_each(_all_settings(options))


def _first_of_each(settings: Settings) -> dict[str, str]:
    config: dict[str, str] = {}
    for name, value in settings:
        config.setdefault(name, value)
    return config


def hops(options: LaunchOptions) -> list[tuple[LaunchOptions, dict[str, str]]]:
    """Return what leads to each server on the way and what ssh will do there, the nearest first and the target last.

    Raises SshNotFound, SshConfigError.
    """
    return [(way, _first_of_each(settings)) for way, settings in _hops(options, _all_settings(options))]


def _hops(options: LaunchOptions, settings: Settings, depth: int = 0) -> list[tuple[LaunchOptions, Settings]]:
    jumps = _first_of_each(settings).get("proxyjump", "none")
    if jumps == "none" or depth >= _DEEPEST:
        return [(options, settings)]
    try:
        *before, last = parse_jumps(jumps)
    except UsageError:  # ssh knows what is wrong with it
        return [(options, settings)]
    way = LaunchOptions(last, tuple(before), ssh_config=options.ssh_config)
    return [*_hops(way, _all_settings(way), depth + 1), (options, settings)]


def _all_settings(options: LaunchOptions) -> Settings:
    # With a command: ForkAfterAuthentication is refused without one, and a RemoteCommand beside one.
    return _printed_settings([ssh_program(), "-T", "-G", "-oRemoteCommand=none", *where(options), "true"])


def _printed_settings(argv: list[str]) -> Settings:
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
        from shlex import join  # only here: the launcher imports this module before it starts ssh

        hint = "correct the file that it names" if "line " in lines[0] or "file " in lines[0] else f"try: {join(argv)}"
        raise SshConfigError(f"ssh refuses its configuration: {lines[0]}", hint)
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


def control_path(options: LaunchOptions, settings: Settings) -> str:
    """Return the socket of the connection that kernels share on this way: another one for each place it can lead to.

    Raises SshNotFound, SshConfigError.
    """
    found = [each for _, each in _hops(options, settings)]
    found.append(_of_a_proxy_command(_first_of_each(found[0])))
    way = [f"{name} {value}" for each in found for name, value in each if name not in _OF_A_SESSION]
    return os.path.join(private_folder(MASTERS), _checksum_of_name(options) + _checksum([ssh_program(), *way])[:12])


def _of_a_proxy_command(config: Mapping[str, str]) -> Settings:
    """Return the settings of the ssh that a ProxyCommand runs: `ssh -W %h:%p gate` leads where `gate` does."""
    command = config.get("proxycommand", "none")
    if "ssh" not in command:
        return []
    from shlex import split  # only here: the launcher imports this module before it starts ssh

    known = {"%h": config.get("hostname", ""), "%p": config.get("port", ""), "%r": config.get("user", "")}
    try:
        program, *words = split(re.sub("%.", lambda found: known.get(found[0], found[0]), command))
        return _printed_settings([program, "-G", *words]) if os.path.basename(program) == "ssh" else []
    except (ValueError, TransportError):  # whatever it is, ssh will say so
        return []


def _checksum(words: Sequence[str]) -> str:
    return hashlib.sha256(os.fsencode("\0".join(words))).hexdigest()


def _checksum_of_name(options: LaunchOptions) -> str:
    return _checksum(where(options))[:6]


def shares_already(config: Mapping[str, str]) -> bool:
    """Whether the user's config shares a connection of its own, which we then use and leave alone."""
    return config.get("controlpath", "none") != "none"


def master_options(options: LaunchOptions, settings: Settings, persist_seconds: float = MASTER_SECONDS) -> list[str]:
    """Give the options that share one connection among our kernels, unless the user's config shares one already."""
    if shares_already(_first_of_each(settings)):
        return []
    path = control_path(options, settings)
    return ["-oControlMaster=auto", f"{_CONTROL_PATH}{path}", f"-oControlPersist={persist_seconds:.0f}"]


class Master(NamedTuple):
    """A shared connection of ours: its socket, and what tells it from a successor that has the same."""

    socket: str
    inode: int
    changed_ns: int


def master_of(argv: Sequence[str]) -> Master | None:
    """Return the shared connection that a command goes over; None while there is none, and where it is not ours."""
    return _master_at(_control_path_in(argv))


def has_login(options: LaunchOptions, argv: Sequence[str]) -> bool:
    """True if there is a shared connection already that this command, an `ssh_argv`, goes over."""
    if _control_path_in(argv):
        return master_of(argv) is not None
    return _pid_from([ssh_program(), "-O", "check", *where(options)]) > 0


def _control_path_in(argv: Sequence[str]) -> str:
    """Return the socket of a shared connection of ours that a command names; empty where it names none."""
    paths = [word.removeprefix(_CONTROL_PATH) for word in argv if word.startswith(f"{_CONTROL_PATH}/")]
    return paths[0] if paths else ""


def _master_at(path: str) -> Master | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return Master(path, found.st_ino, found.st_ctime_ns)


def is_there(master: Master) -> bool:
    """True if that shared connection's socket is still there, and not a successor's."""
    return _master_at(master.socket) == master


def master_pid(options: LaunchOptions) -> int:
    """Give the process that holds the shared connection, ours or the one of the user's config; 0 when there is none.

    Raises SshNotFound, SshConfigError.
    """
    settings = _all_settings(options)
    if not shares_already(_first_of_each(settings)):
        return _pid_at(control_path(options, settings))
    return _pid_from([ssh_program(), "-O", "check", *where(options)])


def _pid_at(path: str) -> int:
    return _pid_from([*_control(path), "-O", "check", "any"])


def _control(path: str) -> list[str]:
    """Return the command that speaks to a shared connection, whatever the configuration says of its host by now."""
    return [ssh_program(), "-F/dev/null", f"{_CONTROL_PATH}{path}"]


def _pid_from(argv: list[str]) -> int:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, env=environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\(pid=(\d+)\)", done.stderr)
    return int(found[1]) if found and not done.returncode else 0


def end_master(master: Master | None) -> None:
    """End that shared connection and so every session on it: it is dead, unnoticed by ssh.

    Idempotent. Its successor, which another of our launchers may have made meanwhile, is left alone.
    """
    if master is None or not is_there(master):
        return
    argv = [*_control(master.socket), "-O", "exit", "any"]
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=2, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        if is_there(master):
            os.unlink(master.socket)
    except OSError:
        pass


def end_masters(options: LaunchOptions) -> list[int]:
    """End all connections of ours that this name has led to, also before its configuration changed; return their pids.

    Idempotent.
    """
    folder, name = private_folder(MASTERS), _checksum_of_name(options)
    found = [os.path.join(folder, entry) for entry in os.listdir(folder) if entry.startswith(name)]
    pids = [_pid_at(path) for path in found]
    for path in found:
        end_master(_master_at(path))
    return [pid for pid in pids if pid]


def ssh_argv(options: LaunchOptions, remote_command: str, *, avoid_master: bool = False) -> list[str]:
    """Give the command that runs `remote_command` there, its stdin and stdout being ours, and asks nobody anything.

    What the user's config sets for keepalive and the connection's timeout stays. `avoid_master` opens a connection
    of its own beside a master of the user's, which may be stale. Raises SshNotFound, SshConfigError.
    """
    settings = _all_settings(options)
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", *_plain_connection(_first_of_each(settings))]
    words += master_options(options, settings) or (["-oControlPath=none"] if avoid_master else [])
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
    settings = _all_settings(options)
    # LogLevel: ssh says "Shared connection to HOST closed." else, which is not true of our master.
    words = [*_plain_connection(_first_of_each(settings)), "-oLogLevel=ERROR"]
    if terminal:
        words = ["-oRequestTTY=force", *(word for word in words if word not in _NOT_AT_A_TERMINAL)]
    words += master_options(options, settings)
    return [ssh_program(), *words, *where(options), remote_command]


def login_argv(options: LaunchOptions, persist_seconds: float, *, asks: bool) -> list[str]:
    """Give the command that logs in, asking at the terminal if it may, and leaves a connection for kernels to share.

    Raises SshNotFound, SshConfigError.
    """
    settings = _all_settings(options)
    config = _first_of_each(settings)
    words = [*([] if asks else ["-oBatchMode=yes", "-oLogLevel=ERROR"]), *_plain_connection(config)]
    if shares_already(config):
        words.append("-oControlMaster=auto")
        if config.get("controlpersist", "no") in ("no", "0"):
            words.append(f"-oControlPersist={persist_seconds:.0f}")
    else:
        words += master_options(options, settings, persist_seconds)
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
        *("-oPermitLocalCommand=no", "-oEscapeChar=none", "-oTunnel=no"),
    ]
    words += [f"-o{name}={value}" for name, value in _SINCE_8_7.items() if config.get(name, value) != value]
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
    if not _PROXY_ENDED.search(stderr):
        return stderr
    config = effective_config(options)
    if config.get("proxyjump", "none") == config.get("proxycommand", "none") == "none":
        return stderr
    words = ["-oBatchMode=yes", "-oLogLevel=ERROR", "-oControlPath=none", "-oControlPersist=no"]
    argv = [ssh_program(), *words, *_plain_connection(config), *where(options), "true"]
    try:
        done = run_and_read(argv, environment(), CONNECT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return stderr
    return done.stderr or stderr if done.status == 255 else stderr
