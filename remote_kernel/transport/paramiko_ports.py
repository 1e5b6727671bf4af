"""Let a port on this machine lead to one that the remote host can reach: sshtunnel's forwarder, verified and quick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sshtunnel

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import PortInUse
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.paramiko_connection import forwarder
from remote_kernel.transport.paramiko_way import connected, hops_of


@contextmanager
def forwarded_port(options: LaunchOptions, to: Endpoint, port: int = 0) -> Iterator[int]:
    """Forward a port on 127.0.0.1 (a free one for 0) to `to` as the remote host sees it; give its number.

    Any number of connections may go through it at once. Raises PortInUse and TransportError's kinds; a connection that
    the remote host cannot pass on is closed.
    """
    assert to.port
    with connected(options) as transport, ExitStack() as undo:
        local = forwarder(transport, hops_of(options)[-1], (to.host, to.port), ("127.0.0.1", port))
        try:
            local.start()
        except sshtunnel.BaseSSHTunnelForwarderError as error:  # it does not say why
            raise PortInUse(f"cannot listen on port {port} of 127.0.0.1", "choose another") from error
        undo.callback(local.stop, force=True)
        yield int(local.local_bind_port)
