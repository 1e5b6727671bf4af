"""Serve the remote end of a forward that has a Link of its own, until its SSH session ends.

A forward for a kernelspec ends with the kernels of that: once one has been seen here, and then none for `patience`
seconds, the other end is told. A restart leaves none for a moment, and so may a start that fails; a kernel that is
kept, or whose front end is away, lives.
"""

from __future__ import annotations

import json
import os
import socket
import time

from remote_kernel.link.link import CONTROL, Link, send_message
from remote_kernel.link.reactor import Pipe, Reactor
from remote_kernel.process import birth, is_alive
from remote_kernel.remote.folder import AGENT_SOCKET, find_folders
from remote_kernel.remote.tunnel import Tunnels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_SECONDS = 2.0
_ASK_SECONDS = 0.5  # an agent answers within a millisecond; what is forwarded waits meanwhile


class KernelWatch:
    """The kernels of one kernelspec on this host: those of a fingerprint, or first the one of an id."""

    def __init__(self, settings: dict[str, Any], tell: Callable[..., None]) -> None:
        """Watch what `forward.Forwarder` asks for. `tell` gets `seen` with the fingerprint, and `over` in the end."""
        self._base: str = settings["folder"]
        self._id: str = settings["id"]
        self._fingerprint: str = settings["fingerprint"]
        self._patience: float = settings["patience"]
        self._tell = tell
        self._seen: bool = settings["seen"]
        self._alive: dict[str, tuple[int, str]] = {}  # by their folders, the kernels' processes
        self._others: set[str] = set()  # folders of other kernels
        self._last = time.monotonic()
        self._is_over = False

    def look(self) -> None:
        """Look which of them run; called every LOOK_SECONDS."""
        folders = find_folders(self._base, "")
        self._others.intersection_update(folders)
        self._alive = {folder: known for folder, known in self._alive.items() if is_alive(*known)}
        for folder in folders:
            if folder not in self._alive and folder not in self._others:
                self._identify(folder)
        now = time.monotonic()
        if self._alive:
            self._last = now
        elif self._seen and now - self._last > self._patience and not self._is_over:
            self._is_over = True
            self._tell("over")

    def _identify(self, folder: str) -> None:
        """Ask whose folder it is; one whose agent is about to start, or does not answer, is asked again."""
        state = _state(folder)
        if not state or state["ended"] or not state["pid"]:
            return
        if state["id"] != self._id and state["fingerprint"] != self._fingerprint:
            self._others.add(folder)
            return
        pid = int(state["pid"])
        self._alive[folder] = (pid, birth(pid))
        self._fingerprint = str(state["fingerprint"])
        if not self._seen:
            self._seen = True
            self._tell("seen", fingerprint=self._fingerprint)


def _state(folder: str) -> dict[str, Any]:
    """Ask an agent for its kernel's state; empty where it does not answer."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_ASK_SECONDS)
        try:
            asking.connect(os.path.join(folder, AGENT_SOCKET))
            asking.sendall(b'{"do": ""}')
            found: dict[str, Any] = json.loads(asking.recv(64 << 10))
        except (OSError, ValueError):
            return {}
    known = isinstance(found, dict) and found.keys() >= {"id", "ended", "pid", "fingerprint"}
    return found if known else {}


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Run in the SSH session until that ends."""
    with Reactor() as reactor:
        tunnels = Tunnels(reactor)
        link = Link(tunnels.opened)
        pipe = Pipe(reactor, link, os.dup(0), os.dup(1), lambda _: reactor.stop())
        pipe.start(f"\n{marker}\n".encode())
        watch = parameters["settings"].get("watch")
        if watch:
            watched = KernelWatch(
                watch, lambda event, **more: send_message(link.streams[CONTROL], dict(more, event=event))
            )

            def look() -> None:
                watched.look()
                reactor.call_later(LOOK_SECONDS, look)

            look()
        reactor.run()
        tunnels.close()
        pipe.close()
    os._exit(0)
