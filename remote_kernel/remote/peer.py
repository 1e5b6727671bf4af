"""Be one launcher's side of the agent: its Link, its SSH session, and its own connections to the kernel's sockets.

A kernel may have several front ends at a time, each with a launcher of its own and so with a visitor here; each finds
its own replies because each has its own connections. Python 3.8, standard library: this file is shipped to the
remote host.
"""

from __future__ import annotations

from functools import partial

from remote_kernel.link.link import CONTROL, STDERR, STDOUT, Link, MessageSink, Sink, Stream, send_message
from remote_kernel.link.reactor import Pipe, Reactor, SocketSink, Timer
from remote_kernel.remote.channels import KernelPorts, KernelSocket
from remote_kernel.remote.iopub import IopubSocket
from remote_kernel.remote.kernel import CHANNELS
from remote_kernel.remote.ssh_session import Session, to_null
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


class Owner:
    """What the agent does for its visitors; it subclasses this."""

    def handle(self, visitor: Visitor, message: dict[str, Any]) -> None:
        """Do what a launcher's control message says."""

    def spread(self, stream: Stream) -> None:
        """Give a stream the room that the kernel's iopub needs."""

    def away(self, visitor: Visitor, *, launcher_gone: bool) -> None:
        """Take note that a visitor has lost its SSH session, and whether its launcher went with it."""

    def has_news(self, visitor: Visitor) -> None:
        """Take note that a launcher that is away, for as long as it likes, is to hear of the kernel's end."""

    def left(self, visitor: Visitor) -> None:
        """Take note that a launcher has left and will not come back; the visitor is closed then."""


class Visitor:
    """One launcher, from its first attach until it has left or has been away for too long."""

    def __init__(self, reactor: Reactor, owner: Owner, identity: str) -> None:
        """Begin with a launcher that has seen nothing yet; `identity` is its Link's."""
        self._reactor, self._owner, self.identity = reactor, owner, identity
        self.link = Link(self._opened)
        self._control = self.link.streams[CONTROL]
        self._control.sink = MessageSink(self._control, lambda message: owner.handle(self, message))
        self._sockets: dict[int, Sink] = {}
        self._tunnels = Tunnels(reactor)
        self._ports: KernelPorts | None = None
        self._inherited: IopubSocket | None = None
        self._session: Session | None = None
        self._pipe: Pipe | None = None
        self._lease: Timer | None = None
        self.away = ""  # why its launcher is not attached now
        self.heard = False  # whether it ever acknowledged what it was told
        self._kernel_ended = self._reported = self._leaving = self._closed = False
        self._news: dict[str, object] = {"why": ""}

    # -- the launcher

    @property
    def connected(self) -> bool:
        """Whether its launcher is attached now."""
        return self._pipe is not None

    def tell(self, event: str, **fields: object) -> None:
        """Send a control message, now or when the launcher is back."""
        send_message(self._control, dict(fields, event=event))

    def serve(self, session: Session, marker: str) -> None:
        """Go on in this SSH session, in place of the one before it."""
        self.let_go()
        self.expect(None, lambda: None, "")
        self._session = session
        self._pipe = Pipe(self._reactor, self.link, session.fd_in, session.fd_out, self._pipe_ended)
        self._pipe.start(f"\n{marker}\n".encode())

    def let_go(self) -> None:
        """Close the SSH session that is served now, which ends its process. Idempotent."""
        if self._pipe and self._session:
            self._pipe.close()
            self._session.stub.close()
            self._pipe = self._session = None
            to_null(2)

    def expect(self, seconds: float | None, otherwise: Callable[[], None], away: str) -> None:
        """Do something else when the launcher is not back in so many seconds; None waits for ever.

        `away` says why it is not there.
        """
        self.away = away
        if self._lease:
            self._lease.cancel()
        self._lease = self._reactor.call_later(seconds, otherwise) if seconds is not None else None

    def part(self) -> None:
        """Let the launcher go, which has said bye, while the kernel lives on. Idempotent."""
        if self._leaving:
            return
        self._leaving = True
        self.tell("parted")
        if not self._pipe:
            self._owner.left(self)

    def close(self) -> None:
        """Let go of everything: of the launcher, and of the kernel's sockets. Idempotent."""
        self._closed = True
        self.expect(None, lambda: None, "")
        self.let_go()
        for sink in list(self._sockets.values()):
            sink.finish()
        if self._inherited:
            self._inherited.drop()
        self._tunnels.close()
        for stream in self.link.streams.values():
            stream.close()
            stream.spool.close()

    def _pipe_ended(self, reason: str) -> None:
        self.heard = self.heard or self._control.spool.base > 0
        if reason.startswith("no sign"):
            self.let_go()
            self._away(launcher_gone=False)
        elif self._leaving or (self._reported and self.link.idle()):
            self._owner.left(self)
        else:
            self._judge()

    def _judge(self, looks: int = 1, whole: int = 0) -> None:
        """Distinguish a launcher that is gone from a lost connection; `whole` of the looks found the session whole.

        The session stays open until then: without a shared connection sshd would end with it either way.
        """
        assert self._session
        unread = self._session.nobody_reads()
        lost = unread and not self._session.served()
        whole += not unread
        if not lost and looks < LOOKS and whole < SURE_LOOKS:
            self._lease = self._reactor.call_later(LOOK_SECONDS, partial(self._judge, looks + 1, whole))
            return
        self.let_go()
        self._away(launcher_gone=not lost)

    def _away(self, *, launcher_gone: bool) -> None:
        if self._leaving or (self._reported and (launcher_gone or self._news["why"])):
            self._owner.left(self)  # it has all and has left, or it is away and its kernel was ended for that
        elif self._reported:
            self._owner.has_news(self)
        else:
            self._owner.away(self, launcher_gone=launcher_gone)

    # -- the kernel

    def inherit(self, other: Visitor) -> bool:
        """Take over what the launcher of another visitor, which was killed, has not got of iopub; true if all of it."""
        for sink in list(other._sockets.values()):
            if isinstance(sink, IopubSocket):
                del other._sockets[sink.stream.id], other.link.streams[sink.stream.id]
                if self._inherited:
                    self._inherited.drop()
                self._inherited = sink
        return self._inherited is not None and self._inherited.is_acknowledged_to_an_end

    def join(self, ports: KernelPorts) -> None:
        """Take note that the kernel's sockets are up, and connect what waits for them."""
        self._ports = ports
        for sink in list(self._sockets.values()):
            if isinstance(sink, KernelSocket):
                self._join(sink)

    def _opened(self, stream: Stream) -> None:
        if stream.channel.startswith(CHANNEL) and not self._kernel_ended:
            self._tunnels.opened(stream)
            return
        if stream.channel not in CHANNELS or self._kernel_ended:
            stream.close()
            return
        if stream.channel == "iopub":
            self._owner.spread(stream)
        self._sockets[stream.id] = sink = KernelSocket(stream)
        self._join(sink)

    def _join(self, held: KernelSocket) -> None:
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
                partial(self.tell, number=stream.id),
                self._inherited,
            )
            self._inherited = None
        else:
            sink = SocketSink(self._reactor, stream, connection, self._socket_closed)
        self._sockets[stream.id] = sink
        for data in held.held:
            sink.deliver(data)
        if stream.id not in self.link.streams:  # the launcher closed it meanwhile
            sink.finish()

    def _socket_closed(self, sink: SocketSink) -> None:
        if self._sockets.get(sink.stream.id) is sink:
            del self._sockets[sink.stream.id]
        if self._kernel_ended and not self._sockets:
            self._report()

    # -- its end

    def kernel_ended(self, news: dict[str, object]) -> None:
        """Tell the launcher of the kernel's end once it has the kernel's last bytes; called once."""
        self._kernel_ended, self._news = True, news
        self._tunnels.close()
        for number, sink in list(self._sockets.items()):
            if isinstance(sink, KernelSocket):
                sink.stream.close()
                del self._sockets[number]
        # A process that the kernel left in a session of its own may hold its sockets open.
        self._reactor.call_later(1.0, self._report)
        if not self._sockets:
            self._report()

    def start_failed(self, **fields: object) -> None:
        """Tell the launcher why there is no kernel, and let it go."""
        self._kernel_ended = self._reported = True
        self.tell("failed", **fields)
        self._reactor.call_later(FLUSH_SECONDS, lambda: self._owner.left(self))

    def _report(self) -> None:
        if self._reported or self._closed:
            return
        self._reported = True
        streams = self.link.streams
        self.tell("ended", output_ends=[streams[STDOUT].end, streams[STDERR].end], **self._news)
        if self._pipe:  # the launcher closes the session when it has it all
            self._leave_when_still(self.link.moved)
        elif self._news["why"]:
            self._owner.left(self)
        elif not self._lease:  # kept, or lingering for ever: that was for the kernel
            self._owner.has_news(self)

    def _leave_when_still(self, moved: int) -> None:
        """Leave a launcher that is there alone once it has taken nothing for FLUSH_SECONDS."""

        def look() -> None:
            if self._pipe and self.link.moved == moved:
                self._owner.left(self)
            elif self._pipe:
                self._leave_when_still(self.link.moved)

        self._reactor.call_later(FLUSH_SECONDS, look)
