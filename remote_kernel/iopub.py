"""Read a kernel's iopub on when there is no room for it, and say exactly what is left out.

The kernel's PUB socket keeps 1000 messages for a reader that is slow and drops the rest without a word, the sign that
a cell is done among them, for which a front end then waits for ever. So the agent never stops reading. From where the
spool is full it discards whole messages of the kinds that fill it; the state of cells, results and errors still go
into the spool's spare room. Where messages are missing it puts one that says how many, signed as the kernel does it,
and the launcher's log has the count. Until then the bytes are skimmed for the ends of messages, and nothing else.

A kernel that encrypts its sockets (CURVE) cannot be followed: its socket is no longer read, as any other would be, and
the log says that output may be missing. Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from remote_kernel.reactor import SocketSink
from remote_kernel.signing import DELIMITER, Signer
from remote_kernel.zmtp import Skimmer, frames_of, is_command, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from remote_kernel.link import Stream
    from remote_kernel.reactor import Reactor

KEPT_BYTES = 64 << 10  # of a message; a larger one is bulk, whatever it says
_GAPS = 256  # cells whose losses are counted at a time
_BULK = ("stream", "display_data", "update_display_data", "comm_msg")


class Gap:
    """Messages that are missing of one cell."""

    def __init__(self, frames: list[bytes]) -> None:
        """Begin with none; `frames` are those of the first that is missing, or as many of them as are there."""
        self.messages = self.bytes = 0
        at = frames.index(DELIMITER) if DELIMITER in frames else len(frames)
        self._topic, self._header = frames[:at], frames[at + 2 : at + 3]
        self.parent = b"".join(frames[at + 3 : at + 4])

    def add(self, size: int) -> None:
        """Count one more, of so many bytes."""
        self.messages += 1
        self.bytes += size

    def notice(self, signer: Signer) -> bytes:
        """Give the message that stands in for them; nothing if they were no Jupyter messages in JSON."""
        if not self.parent:
            return b""
        try:
            found = json.loads(b"".join(self._header))
            header = {**found, "msg_id": os.urandom(16).hex(), "msg_type": "stream"}
        except (ValueError, TypeError, RecursionError):
            return b""
        missing = f"{self.messages} message{'s' if self.messages != 1 else ''} ({self.bytes / (1 << 20):.1f} MiB)"
        text = f"\n[remote_kernel: {missing} are missing here: there was no room for more while nobody took them]\n"
        content = {"name": "stderr", "text": text}
        parts = [json.dumps(header).encode(), self.parent, b"{}", json.dumps(content).encode()]
        return message([*self._topic, DELIMITER, signer.sign(parts), *parts])


class IopubSocket(SocketSink):
    """One connection to the kernel's iopub; see the module's text.

    `tell` sends the launcher an event: `overflow` when the first message is discarded, or when reading stops
    (`exact` false); `discarded` with the count of `messages` and `bytes` once there is room again or the end has come.
    """

    def __init__(
        self,
        reactor: Reactor,
        stream: Stream,
        connection: socket.socket,
        closed: Callable[[SocketSink], None],
        values: Mapping[str, object],
        tell: Callable[..., None],
    ) -> None:
        """`values` are those of the kernel's connection file, for its key."""
        self._values, self._tell = values, tell
        self._skimmer = Skimmer()
        self._sorting = False  # between the spool's being full and its having room again
        self._passing = False  # a message that was begun before is written to its end
        self._message = bytearray()  # the one that is being read, KEPT_BYTES of it and a little more
        self._size = 0
        self._roomy = False  # room came while a message was being read; it goes on with the next
        self._gaps: dict[bytes, Gap] = {}  # by the cell's request, as the messages name it
        self._messages = self._bytes = 0  # discarded since the spool was full
        self._told_blind = False
        super().__init__(reactor, stream, connection, closed)

    def take(self, data: bytes) -> None:
        """Pass on what was read, or what of it there is room for."""
        ends = self._skimmer.ends(data)
        if not self._skimmer.follows:
            self._sorting = False
        start = 0
        for end in ends if self._sorting else ():
            self._take_part(data[start:end], ended=True)
            start = end
        self._take_part(data[start:] if start else data, ended=False)
        if not self._sorting and self._skimmer.follows and self.stream.full:
            self._sorting, self._passing = True, not self._skimmer.between

    def enough(self) -> bool:
        """Whether to stop reading: in a message that bursts even the spare room, or for want of understanding."""
        if not self.stream.full or (self._skimmer.follows and not (self._passing and self.stream.spool.bursting)):
            return False
        if not self._told_blind:
            self._told_blind = True
            self._tell("overflow", exact=False, disk=self.stream.spool.refused)
        return True

    def room(self) -> None:
        """Say what is missing so far; discard no more from the next message on."""
        if self._size:
            self._roomy = True
        else:
            self._go_on()
        super().room()

    def over(self) -> None:
        """Say what is missing at the end."""
        self._go_on()

    def finish(self) -> None:
        """Let the log have the count; nobody reads the stream any more."""
        self._go_on()
        super().finish()

    def _take_part(self, part: bytes, *, ended: bool) -> None:
        """Take one message, or the part of it that is there."""
        if not self._sorting or self._passing:
            self.stream.write(part)
            self._passing = self._passing and not ended
            return
        self._size += len(part)
        if len(self._message) <= KEPT_BYTES:
            self._message += part
        if ended:
            raw, size = bytes(self._message), self._size
            self._message.clear()
            self._size = 0
            self._judge(raw, size)
            if self._roomy:
                self._go_on()

    def _judge(self, raw: bytes, size: int) -> None:
        frames = frames_of(raw)
        gap = Gap(frames)
        small = size <= KEPT_BYTES and not self.stream.spool.bursting
        if small and (is_command(raw) or _kind(frames) not in _BULK):
            self._close_gap(gap.parent)
            self.stream.write(raw)
            return
        if not self._messages:
            self._tell("overflow", exact=True, disk=self.stream.spool.refused)
        gap = self._gaps.setdefault(gap.parent, gap)
        gap.add(size)
        self._messages += 1
        self._bytes += size
        if len(self._gaps) > _GAPS:
            self._close_gap(next(iter(self._gaps)))

    def _close_gap(self, parent: bytes) -> None:
        """Say at this place what is missing of a cell."""
        gap = self._gaps.pop(parent, None)
        if gap and not self.stream.spool.bursting:  # else the log alone has the count
            with suppress(ValueError):  # a way to sign that is unknown here
                self.stream.write(gap.notice(Signer(self._values)))

    def _go_on(self) -> None:
        for parent in list(self._gaps):
            self._close_gap(parent)
        if self._messages:
            self._tell("discarded", messages=self._messages, bytes=self._bytes)
        self._messages = self._bytes = 0
        self._sorting = self._roomy = self._told_blind = False


def _kind(frames: list[bytes]) -> str:
    """Give a message's type; of what is no Jupyter message, the first of those that may be discarded."""
    try:
        return str(json.loads(frames[frames.index(DELIMITER) + 2])["msg_type"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return _BULK[0]
