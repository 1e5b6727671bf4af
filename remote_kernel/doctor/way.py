"""Look at the way to the remote host: names, ports, host keys, the login, and the connection that kernels share."""

from __future__ import annotations

import itertools
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from remote_kernel import errors
from remote_kernel.doctor.entry import look_behind
from remote_kernel.doctor.finding import Finding, failed, ok, unknown, warning
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, openssh
from remote_kernel.transport.carrier import PipeText
from remote_kernel.transport.paramiko.failure import Failure
from remote_kernel.transport.ssh_errors import explain

BANNER_SECONDS = 10.0
SESSIONS = 4  # that are tried beside the one that the doctor has had
_STEP_OF = {
    errors.SshNotFound: "ssh",
    errors.SshConfigError: "config",
    errors.UnknownHost: "name",
    errors.ConnectionRefused: "reach",
    errors.ConnectTimeout: "reach",
    errors.JumpHostFailed: "reach",
    errors.HostKeyUnknown: "host key",
    errors.HostKeyChanged: "host key",
    errors.AuthenticationFailed: "login",
    errors.AccountRefused: "login",
    errors.RemoteShellNoise: "shell",
    errors.PythonNotFound: "python",
    errors.ProtocolMismatch: "python",
}


class Hop(NamedTuple):
    """One server on the way; `command` is the ProxyCommand that leads to it, empty for none, and `way` leads there."""

    name: str
    host: str
    port: int
    command: str
    connect_seconds: float
    way: LaunchOptions


def step_of(error: errors.RemoteKernelError) -> str:
    """Name the step that an error of the transport belongs to."""
    for kind in type(error).__mro__:
        if kind in _STEP_OF:
            return _STEP_OF[kind]
    return "reach" if isinstance(error, errors.TransportError) else "login"


def hops(options: LaunchOptions) -> list[Hop]:
    """Give the servers on the way, the nearest first. Raises SshNotFound, SshConfigError."""
    if choice.name(options) == "openssh":
        return [_hop(*each) for each in openssh.hops(options)]
    from remote_kernel.transport.paramiko.way import hops_of

    try:
        found = hops_of(options)
    except Failure as failure:
        raise explain(options, str(failure), 255, b"") from None
    return [Hop(hop.name, hop.host, hop.port, hop.proxy_command, hop.connect_seconds, options) for hop in found]


def config_warnings(options: LaunchOptions) -> Iterator[Finding]:
    """Name what the ssh config asks for and the transport in force cannot do; called after `hops`."""
    if choice.name(options) == "openssh":
        return
    from remote_kernel.transport.paramiko.way import not_honoured

    for line in not_honoured(options):
        yield warning("config", f"{choice.NOT_HONOURED}{line}", "install the OpenSSH client if it matters")


def _hop(options: LaunchOptions, config: Mapping[str, str]) -> Hop:
    command, seconds = config.get("proxycommand", "none"), config.get("connecttimeout", "none")
    return Hop(
        name=str(options.endpoint),
        host=config.get("hostname", options.endpoint.host),
        port=int(config.get("port", "22")),
        command="" if command == "none" else command,
        connect_seconds=float(seconds) if seconds not in ("none", "0") else openssh.CONNECT_SECONDS,
        way=options,
    )


def addresses(way: Sequence[Hop]) -> Finding:
    """Look up the first server's name; the others' are looked up by the one before."""
    hop = way[0]
    if hop.command:
        return unknown("name", f"{hop.name} is reached by the ProxyCommand '{hop.command}'")
    try:
        found = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        error = errors.UnknownHost(f"the name {hop.host} has no address", "check the spelling, the network and the VPN")
        return failed("name", _at_a_jump_host(error, way))
    return ok("name", f"{hop.host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}")


def reach(options: LaunchOptions, way: Sequence[Hop], chatter: list[str]) -> list[str]:
    """See that an SSH server answers at every hop, and give what each says; `chatter` is for what ssh says meanwhile.

    Those behind a jump host are asked through it where nothing else will tell of them. Raises TransportError's kinds.
    """
    hop = way[0]
    try:
        said = [f"{hop.name} by its ProxyCommand" if hop.command else f"{hop.host} port {hop.port}: {_banner(hop)}"]
    except errors.TransportError as error:
        raise _at_a_jump_host(error, way) from error
    for before, after in itertools.pairwise(way):
        where = f"{after.host} port {after.port}"
        if choice.name(options) == "openssh" and not openssh.master_pid(options):
            version = look_behind(options, before.way, after.host, after.port, chatter)
            said.append(f"{where}, through {before.name}: {version}")
        else:
            said.append(f"{where}, through {before.name}")
    return said


def _at_a_jump_host(error: errors.TransportError, way: Sequence[Hop]) -> errors.TransportError:
    if len(way) == 1:
        return error
    return errors.JumpHostFailed(f"jump host {way[0].name} cannot be reached: {error.message}", error.hint)


def _banner(hop: Hop) -> str:
    """Give the server's name for itself. Raises TransportError's kinds."""
    where = f"{hop.name} (port {hop.port})"
    try:
        with socket.create_connection((hop.host, hop.port), hop.connect_seconds) as opened:
            deadline = time.monotonic() + min(BANNER_SECONDS, hop.connect_seconds)
            said = b""
            while b"\n" not in said[said.rfind(b"SSH-") :] or b"SSH-" not in said:
                left = deadline - time.monotonic()
                if left <= 0:  # something else may go on talking
                    raise TimeoutError
                opened.settimeout(left)
                data = opened.recv(1024)
                said += data
                if not data or len(said) > 16 << 10:
                    raise _no_ssh(where)
    except ConnectionRefusedError as error:
        message = f"nothing answers on the SSH port of {where}: connection refused"
        raise errors.ConnectionRefused(message, "check the port and that sshd runs there") from error
    except TimeoutError as error:
        raise errors.ConnectTimeout(f"{where} does not answer", "check the address, the network and the VPN") from error
    except ConnectionError as error:
        raise _no_ssh(where) from error
    except OSError as error:
        message = f"{where} does not answer: {(error.strerror or str(error)).lower()}"
        raise errors.ConnectTimeout(message, "check the address, the network and the VPN") from error
    return said[said.rfind(b"SSH-") :].partition(b"\n")[0].decode("ascii", "replace").strip()


def _no_ssh(where: str) -> errors.TransportError:
    hint = "check that an SSH server runs there and accepts connections from here"
    return errors.TransportError(f"{where} closed the connection before the login", hint)


def sessions(options: LaunchOptions) -> Finding:
    """See whether the connection that kernels share takes several of them at a time (sshd's MaxSessions)."""
    try:
        return _sessions(options)
    except errors.RemoteKernelError as error:  # ssh, or its configuration, has changed since the steps before
        return unknown("sessions", f"not looked at: {error.message}", error.hint)


def _sessions(options: LaunchOptions) -> Finding:
    if choice.name(options) != "openssh":
        return ok("sessions", "each kernel has a connection of its own")
    if not openssh.master_pid(options):
        return unknown(
            "sessions", "ssh keeps no connection that kernels could share", "see ControlMaster in its config"
        )
    began = time.monotonic()
    argv = choice.talkative(options, choice.carrier_argv(options, "cat"))
    held: list[tuple[subprocess.Popen[bytes], PipeText]] = []
    refused = 0
    try:
        for _ in range(SESSIONS):
            pipe = subprocess.PIPE
            session = subprocess.Popen(
                argv, stdin=pipe, stdout=pipe, stderr=pipe, env=choice.environment(options), bufsize=0
            )
            assert session.stderr
            held.append((session, PipeText(session, session.stderr)))
        for session, _ in held:  # each is open once its cat has answered, and stays so until all are
            assert session.stdin and session.stdout
            session.stdin.write(b"x")
            select.select([session.stdout], [], [], 10)
    except OSError:
        pass
    for session, said in held:
        assert session.stdin and session.stdout
        with suppress(OSError):
            session.stdin.close()
        session.stdout.close()
        try:
            session.wait(10)
        except subprocess.TimeoutExpired:
            session.kill()
            session.wait()
        refused += "Session open refused by peer" in said.text()
        said.close()
    if len(held) < SESSIONS:
        return unknown("sessions", "not looked at: this machine starts no more processes", "see 'ulimit -u' and '-n'")
    if refused:
        return warning(
            "sessions",
            f"the server takes only {1 + SESSIONS - refused} sessions over one connection (MaxSessions)",
            "further kernels log in by themselves; with a second factor they cannot",
        )
    return ok("sessions", f"{SESSIONS} at a time over one connection", time.monotonic() - began)
