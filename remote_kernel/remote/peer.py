"""Serve one launcher of the agent's: its Link, its SSH session, and its own connections to the kernel's sockets.

A kernel may have several front ends at a time, each with a launcher of its own and so with a peer here; each finds
its own replies because each has its own connections.
"""

from __future__ import annotations

from functools import partial

from remote_kernel.link.link import CONTROL, STDERR, STDOUT, Link, LinkStream, MessageSink, Sink, send_message
from remote_kernel.link.reactor import HeldStream, Pipe, Reactor, SocketSink, Timer
from remote_kernel.remote.channels import KernelPorts
from remote_kernel.remote.iopub import IopubSocket
from remote_kernel.remote.kernel import CHANNELS
from remote_kernel.remote.ssh_session import SshSession, to_null
from remote_kernel.remote.tunnel import CHANNEL, Tunnels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_SECONDS = 0.05  # between looks at a session whose input has ended
LOOKS = 20  # for a killed sshd to close all it had and end, which it does not do all at once
SURE_LOOKS = 10  # that found the session whole: what ends it later, as a shared connection may, came on its own
FLUSH_SECONDS = 10.0  # without one byte moving, until a launcher that is still there is left alone
POLL_SECONDS = 0.005  # a kernel says nowhere that its sockets are up; looking costs microseconds


class PeerOwner:
    """What the agent does for its peers; it subclasses this."""

    def handle_message(self, peer: Peer, message: dict[str, Any]) -> None:
        """Do what a launcher's control message says."""

    def use_disk(self, stream: LinkStream) -> None:
        """Extend a stream to the room that the kernel's iopub needs."""

    def peer_away(self, peer: Peer, *, launcher_gone: bool) -> None:
        """Handle the loss of a peer's SSH session, with which its launcher may have gone."""

    def await_report(self, peer: Peer) -> None:
        """Wait for a launcher that is away to hear of the kernel's end."""

    def peer_left(self, peer: Peer) -> None:
        """Drop the peer of a launcher that has left for good."""


class Peer:
    """One launcher, from its first attach until it has left or has been away for too long."""

    def __init__(self, reactor: Reactor, owner: PeerOwner, identity: str) -> None:
        """Begin with a launcher that has seen nothing yet; `identity` is its Link's."""
        self._reactor, self._owner, self.identity = reactor, owner, identity
        self.link = Link(self._opened)
        self._control = self.link.streams[CONTROL]
        self._control.sink = MessageSink(self._control, lambda message: owner.handle_message(self, message))
        self._sockets: dict[int, Sink] = {}
        self._tunnels = Tunnels(reactor)
        self._ports: KernelPorts | None = None
        self._inherited: IopubSocket | None = None
        self._session: SshSession | None = None
        self._pipe: Pipe | None = None
        self._lease: Timer | None = None
        self.away = ""  # why its launcher is not attached now
        self.has_heard = False  # whether it ever acknowledged what it was told
        self._kernel_ended = self._reported = self._leaving = self._closed = False
        self._end_report: dict[str, object] = {"why": ""}

    # -- the launcher

    @property
    def connected(self) -> bool:
        """True if its launcher is attached now."""
        return self._pipe is not None

    def send_event(self, event: str, **fields: object) -> None:
        """Send a control message, now or when the launcher is back."""
        send_message(self._control, dict(fields, event=event))

    def serve(self, session: SshSession, marker: str) -> None:
        """Use this SSH session from now on, in place of the one before it."""
        self.close_session()
        self.set_lease(None, lambda: None, "")
        self._session = session
        self._pipe = Pipe(self._reactor, self.link, session.fd_in, session.fd_out, self._pipe_ended)
        self._pipe.start(f"\n{marker}\n".encode())

    def close_session(self) -> None:
        """Close the SSH session that is served now, which ends its process. Idempotent."""
        if self._pipe and self._session:
            self._pipe.close()
            self._session.stub.close()
            self._pipe = self._session = None
            to_null(2)

    def set_lease(self, seconds: float | None, otherwise: Callable[[], None], away: str) -> None:
        """Do something else when the launcher is not back in so many seconds; None waits for ever.

        `away` says why it is not there.
        """
        self.away = away
        if self._lease:
            self._lease.cancel()
        self._lease = self._reactor.call_later(seconds, otherwise) if seconds is not None else None

    def detach(self) -> None:
        """Detach the launcher, which has said bye, while the kernel lives on. Idempotent."""
        if self._leaving:
            return
        self._leaving = True
        self.send_event("parted")
        if not self._pipe:
            self._owner.peer_left(self)

    def close(self) -> None:
        """Close everything: the SSH session and the kernel's sockets. Idempotent."""
        self._closed = True
        self.set_lease(None, lambda: None, "")
        self.close_session()
        for sink in list(self._sockets.values()):
            sink.finish()
        if self._inherited:
            self._inherited.drop()
        self._tunnels.close()
        for stream in self.link.streams.values():
            stream.close()
            stream.spool.close()

    def _pipe_ended(self, reason: str) -> None:
        self.has_heard = self.has_heard or self._control.spool.base > 0
        if reason.startswith("no sign"):
            self.close_session()
            self._away(launcher_gone=False)
        elif self._leaving or (self._reported and self.link.idle()):
            self._owner.peer_left(self)
        else:
            self._look_why()

    def _look_why(self, looks: int = 1, whole: int = 0) -> None:
        """Distinguish a launcher that is gone from a lost connection; `whole` of the looks found the session whole.

        The session stays open until then: without a shared connection sshd would end with it either way.
        """
        assert self._session
        unread = self._session.nobody_reads()
        lost = unread and not self._session.served()
        whole += not unread
        if not lost and looks < LOOKS and whole < SURE_LOOKS:
            self._lease = self._reactor.call_later(LOOK_SECONDS, partial(self._look_why, looks + 1, whole))
            return
        self.close_session()
        self._away(launcher_gone=not lost)

    def _away(self, *, launcher_gone: bool) -> None:
        if self._leaving or (self._reported and (launcher_gone or self._end_report["why"])):
            self._owner.peer_left(self)  # it has all and has left, or it is away and its kernel was ended for that
        elif self._reported:
            self._owner.await_report(self)
        else:
            self._owner.peer_away(self, launcher_gone=launcher_gone)

    # -- the kernel

    def inherit(self, other: Peer) -> bool:
        """Continue the iopub of another peer's launcher, which was killed; return whether nothing of it is missing."""
        for sink in list(other._sockets.values()):
            if isinstance(sink, IopubSocket):
                del other._sockets[sink.stream.id], other.link.streams[sink.stream.id]
                if self._inherited:
                    self._inherited.drop()
                self._inherited = sink
        return self._inherited is not None and self._inherited.is_acknowledged_to_an_end

    def join(self, ports: KernelPorts) -> None:
        """Connect what waits for the kernel's sockets, which are up."""
        self._ports = ports
        for sink in list(self._sockets.values()):
            if isinstance(sink, HeldStream):
                self._join(sink)

    def _opened(self, stream: LinkStream) -> None:
        if stream.channel.startswith(CHANNEL) and not self._kernel_ended:
            self._tunnels.opened(stream)
            return
        if stream.channel not in CHANNELS or self._kernel_ended:
            stream.close()
            return
        if stream.channel == "iopub":
            self._owner.use_disk(stream)
        self._sockets[stream.id] = sink = HeldStream(stream)
        self._join(sink)

    def _join(self, held: HeldStream) -> None:
        stream = held.stream
        if self._ports is None or self._closed or self._sockets.get(stream.id) is not held:
            return
        try:
            connection = self._ports.connect(stream.channel)
        except OSError:
            connection = None
        if connection is None:  # bound and not yet listening, or its queue of connections is full
            if not self._kernel_ended:
                self._reactor.call_later(POLL_SECONDS, lambda: self._join(held))
            return
        if stream.channel == "iopub":
            values = self._ports.connection
            sink: SocketSink = IopubSocket(
                self._reactor,
                stream,
                connection,
                self._socket_closed,
                values,
                partial(self.send_event, number=stream.id),
                self._inherited,
            )
            self._inherited = None
        else:
            sink = SocketSink(self._reactor, stream, connection, self._socket_closed)
        self._sockets[stream.id] = sink
        held.hand_over(sink)

    def _socket_closed(self, sink: SocketSink) -> None:
        if self._sockets.get(sink.stream.id) is sink:
            del self._sockets[sink.stream.id]
        if self._kernel_ended and not self._sockets:
            self._report()

    # -- its end

    def kernel_ended(self, report: dict[str, object]) -> None:
        """Report the kernel's end once the launcher has the kernel's last bytes; called once."""
        self._kernel_ended, self._end_report = True, report
        self._tunnels.close()
        for number, sink in list(self._sockets.items()):
            if isinstance(sink, HeldStream):
                sink.stream.close()
                del self._sockets[number]
        # A process that the kernel left in a session of its own may hold its sockets open.
        self._reactor.call_later(1.0, self._report)
        if not self._sockets:
            self._report()

    def start_failed(self, **fields: object) -> None:
        """Report why there is no kernel, and leave the launcher."""
        self._kernel_ended = self._reported = True
        self.send_event("failed", **fields)
        self._reactor.call_later(FLUSH_SECONDS, lambda: self._owner.peer_left(self))

    def _report(self) -> None:
        if self._reported or self._closed:
            return
        self._reported = True
        streams = self.link.streams
        self.send_event("ended", output_ends=[streams[STDOUT].end, streams[STDERR].end], **self._end_report)
        if self._pipe:  # the launcher closes the session when it has it all
            self._leave_when_still(self.link.moved)
        elif self._end_report["why"]:
            self._owner.peer_left(self)
        elif not self._lease:  # kept, or lingering for ever: that was for the kernel
            self._owner.await_report(self)

    def _leave_when_still(self, moved: int) -> None:
        """Leave a launcher that is there alone once it has taken nothing for FLUSH_SECONDS."""

        def look() -> None:
            if self._pipe and self.link.moved == moved:
                self._owner.peer_left(self)
            elif self._pipe:
                self._leave_when_still(self.link.moved)

        self._reactor.call_later(FLUSH_SECONDS, look)
