"""Answer requests at the socket in the agent's folder: of `attach`, which hands over an SSH session, and of `ask`.

A request is a JSON object in one piece; `attach` sends the three descriptors of its session along.
"""

from __future__ import annotations

import array
import json
import os
import socket

from remote_kernel.link.reactor import READ, Reactor
from remote_kernel.link.sockets import serve
from remote_kernel.remote.folder import AGENT_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Answer = Callable[[socket.socket, dict[str, Any], list[int]], bool]

REQUEST_SECONDS = 2.0  # for who connects to say why, and to take the answer


class AgentSocket:
    """The socket. `answer` gets each request, and returns true if it keeps the connection and the descriptors."""

    def __init__(self, reactor: Reactor, folder: str, answer: Answer) -> None:
        """Listen in the folder. Raises OSError."""
        self._reactor, self._answer = reactor, answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(folder, AGENT_SOCKET))
        self._listener.listen(16)
        self._listener.setblocking(False)
        serve(reactor, self._listener, self._accepted)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._listener.close()

    def _accepted(self, connection: socket.socket) -> None:
        """Wait for a request, and for nothing meanwhile: the kernel drops what it says when nobody reads."""
        fd = connection.fileno()

        def close() -> None:
            self._reactor.watch(fd, 0, ready)
            connection.close()

        def ready(_: int) -> None:
            self._reactor.watch(fd, 0, ready)
            patience.cancel()
            self._take_request(connection)

        patience = self._reactor.call_later(REQUEST_SECONDS, close)
        self._reactor.watch(fd, READ, ready)

    def _take_request(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_SECONDS)
        fds = array.array("i")
        try:
            text, extra, _flags, _address = connection.recvmsg(64 << 10, socket.CMSG_SPACE(3 * fds.itemsize))
            for level, kind, data in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if self._answer(connection, json.loads(text), list(fds)):
                return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # a request that cannot be read, or nobody who waits for the answer
        for fd in fds:
            os.close(fd)
        connection.close()
