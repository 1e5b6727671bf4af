"""Reach TCP ports of the remote host, for what listens beside a kernel there: TensorBoard, Dask, Ray, debuggers.

A stream of the Link whose channel is `tcp:PORT` is a connection to that port on the host's loopback; one of an agent
that does not know them is closed at once, as one to a port is where nobody listens. A connection is closed as a whole:
one end's last byte is the other's. Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import socket

from remote_kernel.link import Stream
from remote_kernel.reactor import Reactor, SocketSink
from remote_kernel.sockets import CONNECT_SECONDS, without_delay

CHANNEL = "tcp:"


class Tunnels:
    """The connections to ports of this host."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._sockets: set[SocketSink] = set()

    def opened(self, stream: Stream) -> None:
        """Connect a stream to the port that its channel names; close it if that is none, or nobody listens."""
        number = stream.channel[len(CHANNEL) :]
        is_port = stream.channel.startswith(CHANNEL) and number.isdigit() and 0 < int(number) < 65536
        connection = _connected(int(number)) if is_port else None
        if connection is None:
            stream.close()
        else:
            self._sockets.add(SocketSink(self._reactor, stream, connection, self._sockets.discard))

    def close(self) -> None:
        """Close them all. Idempotent."""
        for sink in list(self._sockets):
            sink.finish()


def _connected(port: int) -> socket.socket | None:
    """Connect to a port of this host's loopback; some programs listen on one of its two addresses only."""
    for host in ("127.0.0.1", "::1"):
        try:
            connection = socket.create_connection((host, port), CONNECT_SECONDS)
        except OSError:
            continue
        without_delay(connection)
        return connection
    return None
