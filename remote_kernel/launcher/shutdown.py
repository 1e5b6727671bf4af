"""Filter what a front end sends to a kept kernel: leaving it must not end it, interrupting and restarting it must work.

jupyter_client closes a kernel in one way only: it interrupts, and right behind the interrupt asks the kernel to shut
down, by SIGINT or `interrupt_request` and then `shutdown_request` on the control channel. A kept kernel must live
through that, its running cell too, and must still be interrupted and restarted. So, for kept kernels alone:

- an interrupt waits for HOLD_SECONDS, and is forgotten if the front end leaves meanwhile;
- `shutdown_request` with `restart` false goes no further: the front end has left;
- with `restart` true it goes through, and so does everything else; a kernel that does not heed it, because its cell
  ignores the interrupt or computes on, is ended when the front end then ends the launcher.

The control channel's bytes are followed for that, and stay the same bytes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from functools import partial

from remote_kernel.jupyter.zmtp import Piece, Splitter
from remote_kernel.link.link import LinkStream
from remote_kernel.link.reactor import Reactor, SocketSink, Timer

HOLD_SECONDS = 0.4  # an interrupt and the shutdown behind it come within milliseconds


class ShutdownFilter:
    """What one launcher's front end is about to do with a kernel; `kept` may change at any time."""

    def __init__(self, reactor: Reactor, leave: Callable[[], None]) -> None:
        """Pass everything on; `leave` is called when the front end asks a kept kernel to shut down."""
        self._reactor, self._leave = reactor, leave
        self.kept = False
        self.on_shutdown: Callable[[bool], None] = lambda restart: None
        """Called with each shutdown_request, whether or not it goes on, and whether a restart is meant."""
        self.restarts = False
        """True if the front end's last shutdown_request asked for another kernel in this one's place."""
        self._held: list[Callable[[], None]] = []
        self._timer: Timer | None = None

    @property
    def spares(self) -> bool:
        """True if the kernel is to live on when the front end ends the launcher now."""
        return self.kept and not self.restarts

    def interrupt(self, deliver: Callable[[], None]) -> None:
        """Deliver an interrupt: at once, or for a kept kernel after HOLD_SECONDS."""
        if not self.kept:
            deliver()
            return
        self._held.append(deliver)
        if self._timer is None:
            self._timer = self._reactor.call_later(HOLD_SECONDS, self.release)

    def then(self, deliver: Callable[[], None]) -> None:
        """Deliver something that came behind an interrupt, and so waits as long as that."""
        if self._held:
            self._held.append(deliver)
        else:
            deliver()

    def release(self) -> None:
        """Deliver what waits. Idempotent."""
        self._stop()
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def forget(self) -> None:
        """Drop what waits: the front end leaves. Idempotent."""
        self._stop()
        self._held.clear()

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, *, restart: bool) -> bool:
        """Return whether a shutdown_request may go on to the kernel."""
        self.restarts = restart
        self.on_shutdown(restart)
        if not self.kept:
            return True
        if restart:
            self.release()
            return True
        self.forget()
        self._leave()
        return False


class ControlSocket(SocketSink):
    """One connection of the control channel: what the front end sends is held or dropped as `ShutdownFilter` says."""

    def __init__(
        self,
        reactor: Reactor,
        stream: LinkStream,
        connection: socket.socket,
        closed: Callable[[SocketSink], None],
        filter: ShutdownFilter,
        values: Mapping[str, object],
    ) -> None:
        """Filter this connection; `values` are the connection file's, for the key."""
        from remote_kernel.jupyter.signing import Signer  # some ms of import, while ssh shakes hands

        self._filter, self._splitter = filter, Splitter()
        try:
            self._signer: Signer | None = Signer(values)
        except ValueError:  # nothing can be understood then, and all goes through
            self._signer = None
        super().__init__(reactor, stream, connection, closed)

    def take(self, data: bytes) -> None:
        """Pass on what was read, piece by piece."""
        for piece in self._splitter.feed(data):
            kind, restart = self._kind(piece)
            write = partial(self.stream.write, piece.raw)
            if kind == "interrupt_request":
                self._filter.interrupt(write)
            elif kind != "shutdown_request" or self._filter.shutdown(restart=restart):
                self._filter.then(write)

    def _kind(self, piece: Piece) -> tuple[str, bool]:
        """Return the message's type, empty where it is of no interest here or not signed, and its `restart`."""
        frames = piece.frames
        if not frames or not self._signer or not self._signer.accepts(frames):
            return "", False
        from remote_kernel.jupyter.signing import header_and_content

        header, content = header_and_content(frames)
        if b"_request" not in header:
            return "", False
        try:
            return str(json.loads(header)["msg_type"]), bool(json.loads(content).get("restart"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "", False
