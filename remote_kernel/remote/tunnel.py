"""Connect streams to TCP ports of the remote host, where TensorBoard, Dask, Ray or a debugger listens.

A stream of the Link whose channel is `tcp:PORT` is a connection to that port on the host's loopback; one of an agent
that does not know them is closed at once, as one to a port is where nobody listens. A connection is closed as a whole:
one end's last byte is the other's.
"""

from __future__ import annotations

import errno
import socket

from remote_kernel.link.link import LinkStream, Sink
from remote_kernel.link.reactor import WRITE, HeldStream, Reactor, SocketSink
from remote_kernel.link.sockets import without_delay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHANNEL = "tcp:"
CONNECT_SECONDS = 5.0  # loopback answers at once, or its queue is full: what listens there is busy
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))  # some programs listen on one of them only


class Tunnels:
    """The connections to ports of this host."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._sinks: set[Sink] = set()

    def opened(self, stream: LinkStream) -> None:
        """Connect a stream to the port that its channel names; close it if that is none, or nobody listens."""
        number = stream.channel[len(CHANNEL) :]
        if stream.channel.startswith(CHANNEL) and number.isdigit() and 0 < int(number) < 65536:
            pending = PendingConnection(self._reactor, stream, int(number), self._connected)
            self._sinks.add(pending)
            pending.begin()
        else:
            stream.close()

    def close(self) -> None:
        """Close them all. Idempotent."""
        for sink in list(self._sinks):
            if isinstance(sink, PendingConnection):
                sink.give_up()
            else:
                sink.finish()

    def _connected(self, pending: PendingConnection, connection: socket.socket | None) -> None:
        self._sinks.discard(pending)
        if connection is None:
            pending.stream.close()
            return
        without_delay(connection)
        sink = SocketSink(self._reactor, pending.stream, connection, self._sinks.discard)
        self._sinks.add(sink)
        pending.hand_over(sink)


class PendingConnection(HeldStream):
    """A stream whose connection is being made while all else goes on.

    `done` is called once, with the connection or None.
    """

    def __init__(
        self,
        reactor: Reactor,
        stream: LinkStream,
        port: int,
        done: Callable[[PendingConnection, socket.socket | None], None],
    ) -> None:
        super().__init__(stream)
        self._reactor, self._port, self._done = reactor, port, done
        self._left = list(_LOOPBACK)
        self._socket: socket.socket | None = None

    def begin(self) -> None:
        """Try the next of the addresses."""
        while self._left:
            family, host = self._left.pop(0)
            try:
                connection = socket.socket(family)
            except OSError:
                continue  # one without IPv6
            connection.setblocking(False)
            status = connection.connect_ex((host, self._port))
            if not status:
                self._done(self, connection)
                return
            if status == errno.EINPROGRESS:
                self._socket = connection
                self._reactor.watch(connection.fileno(), WRITE, self._connect_ended)
                self._timer = self._reactor.call_later(CONNECT_SECONDS, self._next)
                return
            connection.close()
        self._done(self, None)

    def _connect_ended(self, _: int) -> None:
        assert self._socket
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._next()
        else:
            self._done(self, self._let_go())

    def _next(self) -> None:
        self._let_go().close()
        self.begin()

    def _let_go(self) -> socket.socket:
        assert self._socket
        connection, self._socket = self._socket, None
        self._reactor.watch(connection.fileno(), 0, self._connect_ended)
        self._timer.cancel()
        return connection

    def give_up(self) -> None:
        """Connect no more. Idempotent."""
        self._left.clear()
        if self._socket:
            self._next()
