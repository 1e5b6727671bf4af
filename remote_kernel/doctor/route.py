"""Look at the way to the remote host: names, ports, what answers there, and the connection that kernels share."""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from remote_kernel import errors
from remote_kernel.doctor.finding import Finding, failed, ok, unknown, warning
from remote_kernel.doctor.hop_login import version_behind
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, masters
from remote_kernel.transport.carrier import PipedProcess
from remote_kernel.transport.ssh_config import HopAddress, uses_openssh
from remote_kernel.transport.ssh_errors import explained
from remote_kernel.transport.ssh_messages import NOT_HONOURED

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


def step_of(error: errors.RemoteKernelError) -> str:
    """Return the step that an error of the transport belongs to."""
    for kind in type(error).__mro__:
        if kind in _STEP_OF:
            return _STEP_OF[kind]
    return "reach" if isinstance(error, errors.TransportError) else "login"


def find_hops(options: LaunchOptions) -> list[HopAddress]:
    """Return the servers on the way, the nearest first. Raises TransportError's kinds."""
    with explained(options):
        return choice.hops(options)


def config_findings(options: LaunchOptions) -> Iterator[Finding]:
    """Yield a warning for what the ssh config asks for and the transport cannot do; called after `find_hops`."""
    for line in choice.not_honoured(options):
        yield warning("config", f"{NOT_HONOURED}{line}", "install the OpenSSH client if it matters")


def name_finding(hops: Sequence[HopAddress]) -> Finding:
    """Look up the first server's name; the others' are looked up by the one before."""
    hop = hops[0]
    if hop.proxy_command:
        return unknown("name", f"{hop.name} is reached by the ProxyCommand '{hop.proxy_command}'")
    try:
        found = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        error = errors.UnknownHost(f"the name {hop.host} has no address", "check the spelling, the network and the VPN")
        return failed("name", _at_a_jump_host(error, hops))
    return ok("name", f"{hop.host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}")


def greet_servers(options: LaunchOptions, hops: Sequence[HopAddress], debug_lines: list[str]) -> list[str]:
    """Check that an SSH server answers at every hop, and return what each says.

    `debug_lines` is for what ssh says meanwhile. Those behind a jump host are asked through it where nothing else will
    tell of them. Raises TransportError's kinds.
    """
    hop = hops[0]
    try:
        said = [
            f"{hop.name} by its ProxyCommand" if hop.proxy_command else f"{hop.host} port {hop.port}: {_banner(hop)}"
        ]
    except errors.TransportError as error:
        raise _at_a_jump_host(error, hops) from error
    for before, after in itertools.pairwise(hops):
        where = f"{after.host} port {after.port}"
        if uses_openssh(options) and not masters.master_pid(options):
            version = version_behind(options, before.options, after.host, after.port, debug_lines)
            said.append(f"{where}, through {before.name}: {version}")
        else:
            said.append(f"{where}, through {before.name}")
    return said


def _at_a_jump_host(error: errors.TransportError, hops: Sequence[HopAddress]) -> errors.TransportError:
    if len(hops) == 1:
        return error
    return errors.JumpHostFailed(f"jump host {hops[0].name} cannot be reached: {error.message}", error.hint)


def _banner(hop: HopAddress) -> str:
    """Return the server's name for itself. Raises TransportError's kinds."""
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


def sessions_finding(options: LaunchOptions) -> Finding:
    """Check whether the connection that kernels share takes several of them at a time (sshd's MaxSessions)."""
    try:
        return _sessions(options)
    except errors.RemoteKernelError as error:  # ssh, or its configuration, has changed since the steps before
        return unknown("sessions", f"not looked at: {error.message}", error.hint)


def _sessions(options: LaunchOptions) -> Finding:
    if not uses_openssh(options):
        return ok("sessions", "each kernel has a connection of its own")
    if not masters.master_pid(options):
        return unknown(
            "sessions", "ssh keeps no connection that kernels could share", "see ControlMaster in its config"
        )
    began = time.monotonic()
    argv = choice.verbose(options, choice.carrier_argv(options, "cat"))
    held: list[PipedProcess] = []
    refused = 0
    with ExitStack() as undo:
        with suppress(OSError):
            for _ in range(SESSIONS):
                held.append(undo.enter_context(PipedProcess(argv, choice.environment(options))))
            for session in held:  # each is open once its cat has answered, and stays so until all are
                session.send(b"x")
                select.select([session.stdout], [], [], 10)
        for session in held:
            refused += "Session open refused by peer" in session.end(10)[1]
    if len(held) < SESSIONS:
        return unknown("sessions", "not looked at: this machine starts no more processes", "see 'ulimit -u' and '-n'")
    if refused:
        return warning(
            "sessions",
            f"the server takes only {1 + SESSIONS - refused} sessions over one connection (MaxSessions)",
            "further kernels log in by themselves; with a second factor they cannot",
        )
    return ok("sessions", f"{SESSIONS} at a time over one connection", time.monotonic() - began)
