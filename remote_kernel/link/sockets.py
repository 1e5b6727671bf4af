"""Open local sockets, or take them in, whatever has become of the other end meanwhile."""

from __future__ import annotations

import errno
import socket

from remote_kernel.link.reactor import READ, Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_SECONDS = 0.5  # a local socket answers at once, or its queue is full
PAUSE_SECONDS = 0.5  # until there may be a descriptor again
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def serve(reactor: Reactor, listener: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
    """Call back with every connection that comes in, until the listener is watched no more.

    Where there is no descriptor left for one, it waits in the listener's queue, which stays ready all the while.
    """

    def ready(_: int) -> None:
        try:
            connection, _address = listener.accept()
        except OSError as error:
            if error.errno in _SHORTAGES:
                reactor.watch(listener.fileno(), 0, ready)
                reactor.call_later(PAUSE_SECONDS, go_on)
            return
        without_delay(connection)
        accepted(connection)

    def go_on() -> None:
        if listener.fileno() >= 0:
            reactor.watch(listener.fileno(), READ, ready)

    go_on()


def without_delay(connection: socket.socket) -> None:
    """Send small messages at once (TCP_NODELAY)."""
    if connection.family != socket.AF_UNIX:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # macOS: EINVAL once the other end has reset it, which whoever reads it will find


def connect_socket(address: object, family: int) -> socket.socket | None:
    """Connect to a local socket that a kernel may not have made yet; None when there is none so far.

    None as well when its queue is full, as that of a stopped kernel may be: a connect that waits would wait for ever.
    """
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_SECONDS)
    try:
        connection.connect(address)  # type: ignore[arg-type]
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN) or isinstance(error, socket.timeout):
            return None
        raise
    connection.settimeout(None)
    without_delay(connection)
    return connection
