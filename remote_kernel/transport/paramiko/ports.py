"""Let ports here lead to ports of the remote host by SSH itself: sshtunnel's forwarder, verified and quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import paramiko
import sshtunnel

from remote_kernel.errors import ConnectionLost, PortInUse
from remote_kernel.options import Forward, LaunchOptions
from remote_kernel.transport.paramiko.config import Hop
from remote_kernel.transport.paramiko.connection import forwarder
from remote_kernel.transport.paramiko.way import connected, hops_of


def forward_ports(options: LaunchOptions, forwards: Sequence[Forward], arrived: Callable[[], None]) -> None:
    """Forward until the connection breaks; `arrived` is called once all ports are open.

    Any number of connections may go through each; one that the remote host cannot pass on is closed. Raises PortInUse,
    ConnectionLost, TransportError's kinds.
    """
    with connected(options) as transport, ExitStack() as undo:
        hop = hops_of(options)[-1]
        for forward in forwards:
            local = forwarder(transport, hop, ("127.0.0.1", forward.remote), ("127.0.0.1", forward.local))
            try:
                local.start()
            except sshtunnel.BaseSSHTunnelForwarderError as error:  # it does not say why
                message = f"port {forward.local} of this machine is in use"
                raise PortInUse(message, "choose another, for example 16006:6006") from error
            undo.callback(local.stop, force=True)
        arrived()
        _stay(transport, hop)
    raise ConnectionLost(f"the connection to {options.endpoint} broke", "try again")


def _stay(transport: paramiko.Transport, hop: Hop) -> None:
    """Wait until the server is gone, or gives no sign of life."""
    while transport.is_active():
        asking = threading.Thread(target=_ask, args=(transport,), daemon=True)
        asking.start()
        asking.join(hop.keepalive_seconds * hop.keepalive_count)
        if asking.is_alive():
            return
        for _ in range(10):
            time.sleep(hop.keepalive_seconds / 10)
            if not transport.is_active():
                return


def _ask(transport: paramiko.Transport) -> None:
    try:
        transport.global_request("keepalive@openssh.com", wait=True)
    except (paramiko.SSHException, OSError, EOFError):
        pass  # it is not active any more
