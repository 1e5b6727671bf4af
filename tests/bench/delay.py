"""Put a round trip of so many milliseconds between ssh and a server: a TCP relay that holds bytes back."""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator

from tests.support.servers import free_port

_CHUNK = 1 << 20


class _Way:
    """One direction of one connection: what was read, and when it may be written."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.held: collections.deque[tuple[float, bytes]] = collections.deque()
        self.ended = False


def _serve(listener: socket.socket, port: int, seconds: float, stop: threading.Event) -> None:
    """Move bytes until `stop`. Each byte waits `seconds`; the bandwidth is the machine's."""
    ways: list[_Way] = []
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while not stop.is_set():
        now = time.monotonic()
        due = [way.held[0][0] for way in ways if way.held]
        for key, _ in selector.select(max(0.0, min([*due, now + 0.1]) - now)):
            if key.fileobj is listener:
                client, _address = listener.accept()
                server = socket.create_connection(("127.0.0.1", port), timeout=5)
                for end, other in ((client, server), (server, client)):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.setblocking(True)
                    ways.append(_Way(end, other))
                    selector.register(end, selectors.EVENT_READ, ways[-1])
                continue
            way = key.data
            try:
                data = way.source.recv(_CHUNK)
            except OSError:
                data = b""
            way.held.append((time.monotonic() + seconds, data))
            if not data:
                selector.unregister(way.source)
        now = time.monotonic()
        for way in ways:
            while way.held and way.held[0][0] <= now:
                _, data = way.held.popleft()
                with contextlib.suppress(OSError):
                    if data:
                        way.sink.sendall(data)
                    else:
                        way.ended = True
                        way.sink.shutdown(socket.SHUT_WR)
    for way in ways:
        way.source.close()


@contextlib.contextmanager
def delayed(port: int, round_trip_seconds: float) -> Iterator[int]:
    """Give a port on loopback that leads to `port` with that round trip."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(64)
        stop = threading.Event()
        relay = threading.Thread(target=_serve, args=(listener, port, round_trip_seconds / 2, stop), daemon=True)
        relay.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            relay.join(5)
