"""Keep as text what a kernel's cells print while no front end is attached, for whoever comes next.

A front end that is away gets every byte when it is back; a kernel that is kept, or whose front end is lost for good,
has nobody who keeps them. The agent then reads iopub itself.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

from remote_kernel.jupyter.zmtp import GREETING, Splitter, command
from remote_kernel.link.reactor import READ, Reactor
from remote_kernel.remote.channels import KernelPorts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEXT_LOG_CHARACTERS = 256 << 10
# Once the other's greeting is there: libzmq 4.3 hangs up on a peer that sends it all in one piece.
_READY = command(b"READY", {b"Socket-Type": b"SUB"}) + b"\x00\x01\x01"  # and subscribe to everything


class TextLog:
    """The last TEXT_LOG_CHARACTERS of text; `start` and `stop` may be called any number of times."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._socket: socket.socket | None = None
        self._parts: list[str] = []
        self._size = 0

    def start(self, ports: KernelPorts) -> None:
        """Read iopub from now on. Idempotent."""
        if self._socket:
            return
        try:
            connection = ports.connect("iopub")
            if connection is None:
                return
            connection.sendall(GREETING)
        except OSError:
            return
        connection.setblocking(False)
        self._socket, self._splitter, self._greeting_size = connection, Splitter(), 0
        self._reactor.watch(connection.fileno(), READ, self._readable)
        self._write(time.strftime("[%d %b %H:%M:%S: no front end is attached]\n"))
        self._empty_size = self._size

    def stop(self) -> None:
        """Read no more; what is noted stays. Idempotent."""
        if self._socket:
            self._reactor.watch(self._socket.fileno(), 0, self._readable)
            self._socket.close()
            self._socket = None
            if self._size == self._empty_size:
                self._size -= len(self._parts.pop())

    @property
    def text(self) -> str:
        """Return what was printed; empty when nothing was."""
        if self._socket and self._size == self._empty_size:
            return "".join(self._parts[:-1])
        return "".join(self._parts)

    def _readable(self, _: int) -> None:
        assert self._socket
        try:
            data = self._socket.recv(256 << 10)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.stop()
            return
        if self._greeting_size < len(GREETING):
            self._greeting_size += len(data)
            if self._greeting_size >= len(GREETING):
                with suppress(OSError):  # it has closed already, which the next look finds
                    self._socket.send(_READY)  # some 40 bytes into an empty buffer
        for piece in self._splitter.feed(data):
            if piece.frames:
                self._write(_text(piece.frames))

    def _write(self, text: str) -> None:
        if text:
            self._parts.append(text[-TEXT_LOG_CHARACTERS:])
            self._size += len(self._parts[-1])
        while self._size > TEXT_LOG_CHARACTERS and len(self._parts) > 1:
            self._size -= len(self._parts.pop(0))


def _text(frames: list[bytes]) -> str:
    """Return what a message of iopub shows, as plain text; nothing for one that shows nothing."""
    try:
        at = frames.index(b"<IDS|MSG>")
        kind: str = json.loads(frames[at + 2])["msg_type"]
        if kind == "stream":
            return str(json.loads(frames[at + 5])["text"])
        if kind in ("execute_result", "display_data"):
            content: dict[str, Any] = json.loads(frames[at + 5])
            return f"{content['data']['text/plain']}\n"
        if kind == "error":
            return "\n".join(json.loads(frames[at + 5])["traceback"]) + "\n"
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    return ""
