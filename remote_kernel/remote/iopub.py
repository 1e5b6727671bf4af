"""Read a kernel's iopub on when there is no room for it, and say exactly what is left out.

The kernel's PUB socket keeps 1000 messages for a reader that is slow and drops the rest without a word, the sign that
a cell is done among them, for which a front end then waits for ever. So the agent never stops reading. From where the
spool is full it discards whole messages of the kinds that fill it; the state of cells, results and errors still go
into the spool's spare room. Where messages are missing it puts one that says how many, signed as the kernel does it,
and the launcher's log has the count. Until then the bytes are skimmed for the ends of messages, and nothing else.

A kernel that encrypts its sockets (CURVE) cannot be followed: its socket is no longer read, as any other would be, and
the log says that output may be missing.

When a launcher was killed, what it had not acknowledged is in its stream, and more comes. A launcher that takes its
place gets that from the first whole message on, ahead of what its own connection to the kernel brings; some of it
twice, as acknowledgements come late.
"""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import suppress

from remote_kernel.jupyter.signing import DELIMITER, Signer
from remote_kernel.jupyter.zmtp import EndFinder, frames_of, is_command, message
from remote_kernel.link.reactor import SocketSink

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from remote_kernel.link.link import LinkStream
    from remote_kernel.link.reactor import Reactor

KEPT_BYTES = 64 << 10  # of a message; a larger one is bulk, whatever it says
_MOST_CELLS = 256  # cells whose losses are counted at a time
_ENDS = 4096  # of messages that are not acknowledged, whose places are known
_BULK = ("stream", "display_data", "update_display_data", "comm_msg")


class MissingMessages:
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
        """Return the message that stands in for them; nothing if they were no Jupyter messages in JSON."""
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

    `send_event` sends the launcher an event: `overflow` when the first message is discarded, or when reading stops
    (`exact` false); `discarded` with the count of `messages` and `bytes` once there is room again or the end has come.
    """

    def __init__(
        self,
        reactor: Reactor,
        stream: LinkStream,
        connection: socket.socket,
        closed: Callable[[SocketSink], None],
        values: Mapping[str, object],
        send_event: Callable[..., None],
        inherited: IopubSocket | None = None,
    ) -> None:
        """Read this connection; `values` are those of the kernel's connection file, for its key.

        `inherited` is the connection of a launcher that was killed, which is closed when it is of no use any longer.
        """
        self._values, self._send_event, self._inherited = values, send_event, inherited
        self._pieces = 0  # that have ended: the greeting, the handshake, messages
        self._ends: deque[int] = deque()  # where in the stream messages end, the first that are not acknowledged
        self._last_end = 0
        self._finder = EndFinder()
        self._sorting = False  # between the spool's being full and its having room again
        self._passing = False  # a message that was begun before is written to its end
        self._message = bytearray()  # the one that is being read, KEPT_BYTES of it and a little more
        self._size = 0
        self._roomy = False  # room came while a message was being read; it goes on with the next
        self._missing: dict[bytes, MissingMessages] = {}  # by the cell's request, as the messages name it
        self._messages = self._bytes = 0  # discarded since the spool was full
        self._told_blind = False
        super().__init__(reactor, stream, connection, closed)

    def take(self, data: bytes) -> None:
        """Pass on what was read, or what of it there is room for."""
        ends = self._finder.ends(data)
        self._pieces += len(ends)
        if self._inherited and self._pieces >= 2:
            first = self._pieces - len(ends)  # the kernel takes the handshake for a subscription only with its answer
            cut = ends[1 - first] if first < 2 else 0
            if cut < len(data):
                self.stream.write(data[:cut])
                self._take_inherited(self._inherited)
                data, ends = data[cut:], [end - cut for end in ends if end > cut]
        self._take(data, ends)

    def _take(self, data: bytes, ends: list[int]) -> None:
        if not self._finder.follows:
            self._sorting = False
        if ends and not self._sorting:
            self._note_ends([self.stream.end + end for end in ends])
        start = 0
        for end in ends if self._sorting else ():
            self._take_part(data[start:end], ended=True)
            self._note_ends([self.stream.end])
            start = end
        self._take_part(data[start:] if start else data, ended=False)
        if not self._sorting and self._finder.follows and self.stream.full:
            self._sorting, self._passing = True, not self._finder.between

    def _note_ends(self, ends: list[int]) -> None:
        while self._ends and self._ends[0] < self.stream.spool.base:
            self._ends.popleft()
        self._ends.extend(ends[: _ENDS - len(self._ends)])
        self._last_end = ends[-1]

    @property
    def is_acknowledged_to_an_end(self) -> bool:
        """True if what was acknowledged ends with a message: no message has come in part."""
        return self.stream.spool.base in (self._last_end, *self._ends)

    def _take_inherited(self, other: IopubSocket) -> None:
        """Write what the other's launcher has not acknowledged to our stream, as far as it is whole messages."""
        self._inherited = None
        other.read_all()
        spool = other.stream.spool
        start = next((end for end in other._ends if end >= spool.base), other._last_end)
        while spool.base < other._last_end:
            until = other._last_end if spool.base >= start else start
            piece = bytes(spool.read(spool.base, min(until - spool.base, KEPT_BYTES)))
            if spool.base >= start:
                self.stream.write(piece)
            spool.release(spool.base + len(piece))
        if self._last_end < self.stream.end:
            self._note_ends([self.stream.end])
        other.drop()

    def drop(self) -> None:
        """Close the connection and forget what was read: nobody takes it any longer. Idempotent."""
        self.finish()
        self.stream.spool.close()

    def must_pause(self) -> bool:
        """True if to stop reading: in a message that bursts even the spare room, or for want of understanding."""
        if not self.stream.full or (self._finder.follows and not (self._passing and self.stream.spool.bursting)):
            return False
        if not self._told_blind:
            self._told_blind = True
            self._send_event("overflow", exact=False, disk=self.stream.spool.is_disk_full)
        return True

    def room(self) -> None:
        """Write what is missing so far; discard no more from the next message on."""
        if self._size:
            self._roomy = True
        else:
            self._stop_discarding()
        super().room()

    def at_end(self) -> None:
        """Write what is missing at the end."""
        self._stop_discarding()

    def finish(self) -> None:
        """Report the count to the log; nobody reads the stream any more."""
        if self._inherited:
            self._inherited.drop()
        self._stop_discarding()
        super().finish()

    def _take_part(self, part: bytes, *, ended: bool) -> None:
        """Handle one message, or the part of it that is there."""
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
            self._write_or_discard(raw, size)
            if self._roomy:
                self._stop_discarding()

    def _write_or_discard(self, raw: bytes, size: int) -> None:
        frames = frames_of(raw)
        missing = MissingMessages(frames)
        small = size <= KEPT_BYTES and not self.stream.spool.bursting
        if small and (is_command(raw) or _kind(frames) not in _BULK):
            self._write_missing(missing.parent)
            self.stream.write(raw)
            return
        if not self._messages:
            self._send_event("overflow", exact=True, disk=self.stream.spool.is_disk_full)
        missing = self._missing.setdefault(missing.parent, missing)
        missing.add(size)
        self._messages += 1
        self._bytes += size
        if len(self._missing) > _MOST_CELLS:
            self._write_missing(next(iter(self._missing)))

    def _write_missing(self, parent: bytes) -> None:
        """Write at this place what is missing of a cell."""
        missing = self._missing.pop(parent, None)
        if missing and not self.stream.spool.bursting:  # else the log alone has the count
            with suppress(ValueError):  # a way to sign that is unknown here
                self.stream.write(missing.notice(Signer(self._values)))

    def _stop_discarding(self) -> None:
        for parent in list(self._missing):
            self._write_missing(parent)
        if self._messages:
            self._send_event("discarded", messages=self._messages, bytes=self._bytes)
        self._messages = self._bytes = 0
        self._sorting = self._roomy = self._told_blind = False


def _kind(frames: list[bytes]) -> str:
    """Return a message's type; of what is no Jupyter message, the first of those that may be discarded."""
    try:
        return str(json.loads(frames[frames.index(DELIMITER) + 2])["msg_type"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return _BULK[0]
