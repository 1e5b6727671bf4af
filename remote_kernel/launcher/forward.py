"""Forward ports of this machine to ports of the remote host, through a kernel's Link or one of its own.

Each connection is a stream of the Link, so it waits while the SSH connection is lost and goes on as if the network were
slow, as a kernel's own connections do. Listens on loopback only.

On a host without the Python that the other end of a Link needs, SSH's own means do it: `ssh -L`, or sshtunnel's
forwarder. A server may forbid that (AllowTcpForwarding no), which is why a Link is preferred.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from remote_kernel import bootstrap
from remote_kernel.errors import (
    ConnectionLost,
    PortInUse,
    ProtocolMismatch,
    RemoteKernelError,
    SshConfigError,
    TransportError,
)
from remote_kernel.launcher.attempt import Attempt
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.reconnect import ANSWER_SECONDS, backoff, scattered
from remote_kernel.link.link import CONTROL, Link, MessageSink
from remote_kernel.link.reactor import Reactor, SocketSink, Timer
from remote_kernel.link.sockets import serve
from remote_kernel.options import Forward, LaunchOptions
from remote_kernel.remote.tunnel import CHANNEL
from remote_kernel.transport import choice, openssh
from remote_kernel.transport.ssh_config import uses_openssh
from remote_kernel.transport.ssh_errors import explain, explained

AGAIN_SECONDS = 2.0  # until a port is tried again that another program has, such as the launcher before this one


class Ports:
    """The listening ports here, and the connections that have come in through them. Made closed; see `listen`."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._listeners: list[socket.socket] = []
        self._sockets: set[SocketSink] = set()
        self._waiting: dict[Forward, Timer] = {}

    def listen(self, forward: Forward, link: Callable[[], Link]) -> None:
        """Open a stream of the Link for every connection to the port. Raises PortInUse."""
        listener = listening(forward.local)
        self._listeners.append(listener)
        serve(self._reactor, listener, lambda connection: self._accepted(connection, forward, link))

    def listen_when_free(self, forward: Forward, link: Callable[[], Link], tell: Callable[[str], None]) -> None:
        """Do so when the port is free, and tell about it if that is not now: a kernel need not wait for that."""
        try:
            self.listen(forward, link)
        except PortInUse as error:
            tell(f"{error.message}; nothing is forwarded from it until it is free")
            self._wait(forward, link, tell)

    def _wait(self, forward: Forward, link: Callable[[], Link], tell: Callable[[str], None]) -> None:
        def again() -> None:
            try:
                self.listen(forward, link)
            except PortInUse:
                self._wait(forward, link, tell)
            else:
                tell(f"port {forward.local} here leads to port {forward.remote} there now")

        self._waiting[forward] = self._reactor.call_later(AGAIN_SECONDS, again)

    def _accepted(self, connection: socket.socket, forward: Forward, link: Callable[[], Link]) -> None:
        if link().is_full:
            connection.close()
            return
        stream = link().open(f"{CHANNEL}{forward.remote}")
        self._sockets.add(SocketSink(self._reactor, stream, connection, self._sockets.discard))

    def drop(self) -> None:
        """Close the connections, and go on listening."""
        for sink in list(self._sockets):
            sink.finish()

    def close(self) -> None:
        """Close everything. Idempotent."""
        for timer in self._waiting.values():
            timer.cancel()
        self.drop()
        for listener in self._listeners:
            self._reactor.watch(listener.fileno(), 0, lambda _: None)
            listener.close()
        self._listeners.clear()


def listening(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine's loopback. Raises PortInUse."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {(error.strerror or '').lower()}"
        raise PortInUse(f"port {port} of this machine {what}", "choose another, for example 16006:6006") from error
    listener.setblocking(False)
    return listener


class Forwarder:
    """Forward ports with a Link of its own, until the reactor is stopped.

    A lost connection closes what went through it, and is made again.
    """

    def __init__(
        self,
        reactor: Reactor,
        options: LaunchOptions,
        log: Log,
        on_connected: Callable[[], None],
        patience_seconds: float = 0.0,
    ) -> None:
        """Make one that calls `on_connected` each time it has a connection.

        With `patience_seconds` it ends by itself once a kernel of these very options was seen to run there, and then
        none for so long.
        """
        self._reactor, self._options, self._log, self._on_connected = reactor, options, log, on_connected
        self._patience = patience_seconds
        self._fingerprint = bootstrap.fingerprint(options)
        self._has_seen = False
        self.outlived = False  # whether it has ended for want of a kernel
        self._ports = Ports(reactor)
        self._link = Link()
        self._attempt: Attempt | None = None
        self._tries = 0
        self._was_connected = False
        self._error: RemoteKernelError | None = None

    def run(self, forwards: Sequence[Forward]) -> None:
        """Serve until the reactor is stopped. Raises PortInUse; TransportError's kinds if there is no way."""
        try:
            for forward in forwards:
                self._ports.listen(forward, lambda: self._link)
            self._go()
            self._reactor.run()
        finally:
            self._ports.close()
            if self._attempt:
                self._attempt.close()
        if self._error:
            raise self._error

    def _go(self) -> None:
        self._link = Link()
        control = self._link.streams[CONTROL]
        control.sink = MessageSink(control, self._handle_message)
        self._attempt = Attempt(self._reactor, self._link, self._log, self._options, self)
        try:
            self._attempt.start("forward", {"watch": self._watch()}, ANSWER_SECONDS, avoid_master=self._tries > 0)
        except TransportError as error:
            self.disconnected(error, was_connected=False, silent=False)

    def _watch(self) -> dict[str, object] | None:
        """Return what the other end is to look for, as `port_forward.KernelWatch` takes it."""
        if not self._patience:
            return None
        return {
            "folder": bootstrap.remote_folder(),
            "id": self._options.resume,
            "fingerprint": self._fingerprint,
            "patience": self._patience,
            "seen": self._has_seen,
        }

    def _handle_message(self, message: dict[str, Any]) -> None:
        if message.get("event") == "seen":
            self._has_seen, self._fingerprint = True, str(message.get("fingerprint"))
        elif message.get("event") == "over":
            self.outlived = True
            self._reactor.stop()

    def connected(self) -> None:
        """Record that the other end answers. Called by the Attempt."""
        self._tries, self._was_connected = 0, True
        self._on_connected()

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        """Try again, or end with the error. Called by the Attempt."""
        self._ports.drop()
        if not self._was_connected or isinstance(error, (ProtocolMismatch, SshConfigError)):
            self._error = error
            self._reactor.stop()
            return
        if was_connected:
            self._log.warning(f"{error.message}; trying to reconnect")
        self._tries += 1
        self._reactor.call_later(scattered(backoff(self._tries - 1)), self._go)


# -- without a Link


def forward_by_ssh(
    options: LaunchOptions,
    forwards: Sequence[Forward],
    on_connected: Callable[[], None],
    lost: Callable[[RemoteKernelError], None],
) -> None:
    """Forward until an exception, such as one that a signal raises, ends it.

    `on_connected` is called each time all ports are open, and `lost` when the connection has broken, which is then made
    again. Raises PortInUse, and TransportError's kinds if there was no way from the start.
    """
    attempts, was_connected = 0, False

    def tell() -> None:
        nonlocal attempts, was_connected
        attempts, was_connected = 0, True
        on_connected()

    once = _over_openssh if uses_openssh(options) else _over_paramiko
    while True:
        try:
            once(options, forwards, tell)
        except TransportError as error:
            if not was_connected:
                raise
            if not attempts:
                lost(error)
        attempts += 1
        time.sleep(backoff(attempts))


def _over_paramiko(options: LaunchOptions, forwards: Sequence[Forward], on_connected: Callable[[], None]) -> None:
    with explained(options):
        choice.forward_without_openssh(options, forwards, on_connected)


def _over_openssh(options: LaunchOptions, forwards: Sequence[Forward], on_connected: Callable[[], None]) -> None:
    pairs = [(forward.local, forward.remote) for forward in forwards]
    process = subprocess.Popen(
        openssh.forward_argv(options, pairs),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=choice.environment(options),
        encoding="utf-8",
        errors="replace",
    )
    assert process.stderr
    waiting, errors = len(forwards), ""
    try:
        with process.stderr as lines:
            for line in lines:
                if "[port listener]" in line:  # "Local forwarding listening on" comes ahead of bind and listen
                    waiting -= 1
                    if not waiting:
                        on_connected()
                elif not line.startswith("debug1: "):
                    errors += line
        status = process.wait()
    finally:
        process.terminate()
        process.wait()
    for forward in forwards:
        if f":{forward.local}: Address already in use" in errors:
            message = f"port {forward.local} of this machine is in use"
            raise PortInUse(message, "choose another, for example 16006:6006")
    if waiting:
        raise explain(options, errors, status, b"")
    raise ConnectionLost(f"the connection to {options.endpoint} broke", "try again")
