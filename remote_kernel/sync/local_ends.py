"""The end of a sync that runs here: the sender, speaking with a receiver there, or the receiver with a sender."""

from __future__ import annotations

from collections.abc import Iterator

from remote_kernel.errors import by_name
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.remote_end import RemoteEnd
from remote_kernel.sync.sender import Sender, find_source
from remote_kernel.sync.transfer import Outcome, Transfer, outcome
from remote_kernel.sync.wire import SyncFailure


class LocalSender:
    """Sends what is here to a remote end that receives, as often as `run` is called."""

    def __init__(self, transfer: Transfer, end: RemoteEnd) -> None:
        self._transfer, self._end = transfer, end
        self._is_greeted = False

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        transfer = self._transfer
        try:
            found = find_source(transfer.source.path, transfer.options).listed()
        except SyncFailure as error:
            raise by_name(error.name, error.message, error.hint) from error
        sender = Sender(self._end.wire, found, transfer.progress.moved, transfer.options)
        telling = sender.telling()
        if not self._is_greeted:
            self._end.greet(lambda: next(telling, None))
            self._is_greeted = True
        return self._end.converse(lambda: self._deliver(sender, telling))

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""
        self._end.check()

    def _deliver(self, sender: Sender, telling: Iterator[None]) -> Outcome:
        for _ in telling:
            pass
        plan = sender.hear()
        self._transfer.progress.planned(plan["bytes"], plan["files"])
        return outcome(plan, sender.deliver())


def fetch(transfer: Transfer, end: RemoteEnd) -> Outcome:
    """Receive what differs from a remote end that sends, once. Raises as `sync` does."""
    end.greet()
    target, progress = transfer.target.path, transfer.progress
    receiver = Receiver(end.wire, target, transfer.options, progress.moved, transfer.source.path)

    def receive() -> Outcome:
        plan = receiver.consider()
        progress.planned(plan["bytes"], plan["files"])
        receiver.ask(plan)
        return outcome(plan, receiver.receive())

    return end.converse(receive)
