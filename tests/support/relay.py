"""Stand between ssh and sshd, and stop carrying bytes without telling either: a network that is gone, not closed."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.servers import Server, free_port

_CHUNK = 256 << 10
_SLOW_CHUNK = 8 << 10
_RESET = struct.pack("ii", 1, 0)


class Address(NamedTuple):
    """Where something listens that is no server of these tests."""

    host: str
    port: int


class Relay:
    """Forward a port on 127.0.0.1 to a server, as long as it is told to.

    While `frozen`, bytes, new connections and closes wait; nothing of them is lost. `accepted` counts connections,
    `carried` bytes in both directions.
    With `bytes_per_second` it is as slow as that, both directions and all connections together.
    """

    bytes_per_second = 0.0

    def __init__(self, server: Server | Address) -> None:
        self._to = (server.host, server.port)
        self.port = free_port()
        self.accepted = self.carried = 0
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._wake_in, self._wake_out = socket.socketpair()
        self._wanted_frozen = self._frozen = False
        self._cut = threading.Event()
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    def freeze(self) -> None:
        """Carry nothing more, in either direction, and say nothing of it."""
        self._wanted_frozen = True
        self._wake()

    def thaw(self) -> None:
        """Carry on, with what had waited first."""
        self._wanted_frozen = False
        self._wake()

    def cut(self) -> None:
        """Reset every connection that is up, both ends of it."""
        self._cut.set()
        self._wake()

    def close(self) -> None:
        """End."""
        self._closing = True
        self._wake()
        self._thread.join(10)
        for opened in (self._listener, self._wake_in, self._wake_out):
            opened.close()
        self._selector.close()

    def _wake(self) -> None:
        self._wake_in.send(b"!")

    def _run(self) -> None:
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._closing:
            for key, _ in self._selector.select():
                opened = key.fileobj
                assert isinstance(opened, socket.socket)
                if opened is self._wake_out:
                    opened.recv(64)
                    self._obey()
                elif self._frozen:
                    continue
                elif opened is self._listener:
                    self._accept()
                elif opened in self._peers:
                    self._carry(opened)
        self._reset_all()

    def _obey(self) -> None:
        if self._cut.is_set():
            self._cut.clear()
            self._reset_all()
        if self._wanted_frozen == self._frozen:
            return
        self._frozen = self._wanted_frozen
        for opened in (self._listener, *self._peers):
            if self._frozen:
                self._selector.unregister(opened)
            else:
                self._selector.register(opened, selectors.EVENT_READ)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        self.accepted += 1
        far = socket.socket()
        try:
            far.connect(self._to)
        except OSError:
            far.close()
            _reset(near)
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(0.2)  # a receiver that is stopped must not stop the relay for long
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, opened: socket.socket) -> None:
        other = self._peers[opened]
        try:
            data = opened.recv(_SLOW_CHUNK if self.bytes_per_second else _CHUNK)
            if self.bytes_per_second:
                self._cut.wait(len(data) / self.bytes_per_second)
            if not data:
                raise ConnectionError
            self.carried += len(data)
            while data and not (self._closing or self._cut.is_set()):
                with contextlib.suppress(TimeoutError):
                    data = data[other.send(data) :]
        except OSError:
            self._drop(opened, other)

    def _drop(self, *pair: socket.socket) -> None:
        for opened in pair:
            self._peers.pop(opened, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(opened)
            opened.close()

    def _reset_all(self) -> None:
        for opened in list(self._peers):
            self._peers.pop(opened)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(opened)
            _reset(opened)


def _reset(opened: socket.socket) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    opened.close()


@contextlib.contextmanager
def relay_to(server: Server, ssh_config: Path, folder: Path) -> Iterator[tuple[Relay, Path]]:
    """Run a relay in front of a server; give it and an ssh config whose alias `target` leads through it."""
    relay = Relay(server)
    path = folder / "ssh_config_relay"
    path.write_text(
        f"Host target\n    HostName 127.0.0.1\n    Port {relay.port}\n"
        f"    HostKeyAlias [{server.host}]:{server.port}\n{ssh_config.read_text()}"
    )
    try:
        yield relay, path
    finally:
        relay.close()
