"""Exchange Jupyter's messages with one kernel, over the sockets of its connection file.

A host holds these sockets for as long as a session lives. jupyter_client would do the same with 25 MB more of memory in
each host, which would be most of what it needs.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, cast

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from remote_kernel.jupyter.connection_file import ConnectionFile
from remote_kernel.jupyter.signing import DELIMITER, Signer, delimiter_at, header_and_content
from remote_kernel.session.host.long_text import LONG_BYTES, is_long, pieces

_PROTOCOL = "5.4"
_REMEMBERED = 4096  # messages of iopub: more than are under way at a time
_ROUTED = ("shell", "control", "stdin")


class Message(NamedTuple):
    """One message from a kernel, or a piece of one that is a long text.

    `parent` is the id of the request that it belongs to.
    """

    kind: str
    parent: str
    parent_session: str
    parent_user: str
    session: str
    content: dict[str, Any]
    raw: bytes  # the content as JSON text
    buffers: Sequence[bytes] = ()
    parent_subshell: str = ""


class KernelSockets:
    """The sockets to one kernel. Used in one asyncio loop; closed by `close`.

    All of them share the identity, so that a request for input, which the kernel sends on stdin to whoever asked on
    shell, comes here.
    """

    def __init__(self, connection: ConnectionFile, identity: str) -> None:
        """Connect, which does not wait for the kernel. Raises ValueError for an unknown signature scheme."""
        self._signer = Signer(connection.values)
        self._session = identity
        self._context = zmq.asyncio.Context()
        self._sockets: dict[str, zmq.asyncio.Socket] = {}
        self._sent = 0
        self._pieces: Iterator[Message] = iter(())  # of a long text on iopub
        self._last: deque[int] = deque(maxlen=_REMEMBERED)  # marks of the last messages on iopub
        self._marks: set[int] = set()
        for channel in (*_ROUTED, "iopub"):
            socket = self._context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
            self._sockets[channel] = socket
            socket.linger = 0
            socket.set_hwm(0)
            if channel == "iopub":
                socket.subscribe(b"")
            else:
                socket.setsockopt(zmq.IDENTITY, identity.encode())
            self._encrypt(socket, connection)
            if channel == "stdin":
                self._stdin = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            socket.connect(connection.address(channel))

    @staticmethod
    def _encrypt(socket: zmq.asyncio.Socket, connection: ConnectionFile) -> None:
        if connection.is_encrypted:
            public, secret = (str(connection.values[f"curve_{kind}key"]).encode() for kind in ("public", "secret"))
            socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, public

    def new_id(self) -> str:
        """Return an id for the next message."""
        self._sent += 1
        return f"{self._session}_{os.getpid()}_{self._sent}"

    async def send(
        self,
        channel: str,
        kind: str,
        content: dict[str, Any],
        *,
        identity: str = "",
        subshell: str = "",
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Send a request and return its id. `subshell` sends it to that subshell of the kernel."""
        identity = identity or self.new_id()
        header = {
            "msg_id": identity,
            "msg_type": kind,
            "session": self._session,
            "username": "rkernel",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": _PROTOCOL,
        }
        if subshell:
            header["subshell_id"] = subshell
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
        await self._sockets[channel].send_multipart([DELIMITER, self._signer.sign(parts), *parts])
        return identity

    async def receive(self, channel: str) -> Message:
        """Wait for the next message on a channel; what is not rightly signed is passed over."""
        socket = self._sockets[channel]
        while True:
            try:
                if channel == "iopub" and (piece := next(self._pieces, None)):
                    await asyncio.sleep(0)  # readers get the pieces before it meanwhile
                    return piece
                frames = [_bytes(frame) for frame in await socket.recv_multipart(copy=False)]
                if not self._signer.accepts(frames) or (channel == "iopub" and self._came_before(frames)):
                    continue
                if channel != "iopub" or not _is_long(frames):
                    return _read(frames)
                self._pieces = _read_in_pieces(frames)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def _came_before(self, frames: Sequence[bytes]) -> bool:
        """True for a message that came already; by its signature, of which no two messages have the same.

        A launcher that takes the place of one that was killed brings again what that one has not acknowledged.
        """
        mark = hash(bytes(frames[delimiter_at(frames) + 1]))
        if mark in self._marks:
            return bool(frames[delimiter_at(frames) + 1])
        if len(self._last) == self._last.maxlen:
            self._marks.discard(self._last[0])
        self._last.append(mark)
        self._marks.add(mark)
        return False

    async def can_be_asked(self, seconds: float) -> bool:
        """Wait until the kernel knows stdin's identity; before, a request for input is dropped, and its cell hangs."""
        return bool(await self._stdin.poll(int(seconds * 1000)))

    async def connections(self) -> AsyncIterator[bool]:
        """Yield when the connection on shell comes (true) and goes, until `close` is called."""
        watched = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        monitor = self._sockets["shell"].get_monitor_socket(watched)
        while True:
            event = parse_monitor_message(await monitor.recv_multipart())["event"]
            if event & watched:
                yield event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def close(self) -> None:
        """Close the sockets, the monitor's too. Idempotent."""
        self._sockets.clear()
        self._context.destroy(0)


def _bytes(frame: zmq.Frame) -> bytes:
    """Return what is in a frame; 50 MB of text are not copied for it."""
    return frame.bytes if len(frame) < LONG_BYTES else cast("bytes", frame.buffer)


def _read(frames: Sequence[bytes]) -> Message:
    raw = bytes(header_and_content(frames)[1])
    return _message(frames, raw, json.loads(raw))


def _is_long(frames: Sequence[bytes]) -> bool:
    header, content = header_and_content(frames)
    return is_long(content) and json.loads(header)["msg_type"] == "stream"


def _read_in_pieces(frames: Sequence[bytes]) -> Iterator[Message]:
    _, raw = header_and_content(frames)
    return (_message(frames, piece, content) for piece, content in pieces(raw))


def _message(frames: Sequence[bytes], raw: bytes, content: dict[str, Any]) -> Message:
    at = delimiter_at(frames) + 2
    header, parent = json.loads(frames[at]), json.loads(frames[at + 1])
    return Message(
        kind=str(header["msg_type"]),
        parent=str(parent.get("msg_id", "")),
        parent_session=str(parent.get("session", "")),
        parent_user=str(parent.get("username", "")),
        session=str(header.get("session", "")),
        content=content,
        raw=raw,
        buffers=[bytes(frame) for frame in frames[at + 4 :]],
        parent_subshell=str(parent.get("subshell_id") or ""),
    )
