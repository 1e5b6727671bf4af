"""Connect to the kernel's five sockets and its two output pipes on the remote host."""

from __future__ import annotations

import os
import select
import socket
import time

from remote_kernel.link.link import LinkStream
from remote_kernel.link.reactor import READ, Reactor
from remote_kernel.link.sockets import connect_socket
from remote_kernel.remote.folder import KERNEL_SOCKET
from remote_kernel.remote.kernel import CHANNELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TAIL_BYTES = 8 << 10
OUTPUT_LIMIT = 16 << 20  # of the kernel's stdout and stderr, each, kept for the launcher


class KernelPorts:
    """Where the kernel's five sockets are: Unix sockets in the agent's folder, or loopback TCP ports."""

    def __init__(self, folder: str, connection: dict[str, Any], ipc: bool) -> None:
        ports = list(range(1, 6)) if ipc else free_ports(5)
        self.ipc = ipc
        self._family = socket.AF_UNIX if ipc else socket.AF_INET
        base = os.path.join(folder, KERNEL_SOCKET)
        self._addresses: dict[str, Any] = {
            name: f"{base}-{port}" if ipc else ("127.0.0.1", port) for name, port in zip(CHANNELS, ports)
        }
        self.connection = dict(connection, transport="ipc" if ipc else "tcp", ip=base if ipc else "127.0.0.1")
        self.connection.update({f"{name}_port": port for name, port in zip(CHANNELS, ports)})

    def connect(self, channel: str) -> socket.socket | None:
        """Connect to a channel's socket; None while the kernel has not made it."""
        return connect_socket(self._addresses[channel], self._family)

    def is_up(self) -> bool:
        """True if the kernel listens on all five."""
        if self.ipc:
            return all(os.path.exists(address) for address in self._addresses.values())
        for channel in CHANNELS:
            connection = self.connect(channel)
            if connection is None:
                return False
            connection.close()
        return True


def free_ports(count: int) -> list[int]:
    """Pick TCP ports that nothing on loopback listens on now; a kernel may still lose the race for one."""
    held = []
    try:
        for _ in range(count):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


class KernelOutput:
    """Pass one of the kernel's own output pipes to a stream; never let the kernel wait for it."""

    def __init__(self, reactor: Reactor, fd: int, stream: LinkStream | None) -> None:
        self._reactor, self._fd = reactor, fd
        self.tail = b""
        self._open = True
        self._dropped = 0
        self.write_to(stream)
        os.set_blocking(fd, False)
        reactor.watch(fd, READ, self._readable)

    def write_to(self, stream: LinkStream | None) -> None:
        """Write to this stream from now on; without one only the tail is kept."""
        self._stream = stream
        if stream:
            stream.spool.limit = OUTPUT_LIMIT

    def _readable(self, _: int) -> None:
        if not self._read():
            self.stop()

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 64 << 10)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        if self._stream is None:
            self._dropped = 0
        elif self._stream.full:
            self._dropped += len(data)
        else:
            if self._dropped:
                self._stream.write(f"\n[remote_kernel: {self._dropped} bytes dropped here]\n".encode())
                self._dropped = 0
            self._stream.write(data)
        return bool(data)

    def stop(self) -> None:
        """Read what is left and stop watching. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._reactor.watch(self._fd, 0, self._readable)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and select.select([self._fd], [], [], 0)[0] and self._read():
            pass
