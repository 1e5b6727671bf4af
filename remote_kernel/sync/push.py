"""Push: the sending end runs here, and speaks with one there that receives."""

from __future__ import annotations

import os
from collections.abc import Iterator

from remote_kernel.errors import by_name
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.outcome import Manner, Outcome, Progress, outcome
from remote_kernel.sync.place import Place
from remote_kernel.sync.sender import Sender, find_source
from remote_kernel.sync.wire import SyncFailure


class Push:
    """Sends what is here to a far end that receives, as often as `run` is called."""

    def __init__(self, options: LaunchOptions, far: FarEnd, source: Place, manner: Manner, progress: Progress) -> None:
        self._options, self._far, self._source, self._manner = options, far, source, manner
        self._progress = progress
        self._is_greeted = False

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""
        wishes = self._manner.wishes
        excludes = [os.fsencode(line) for line in self._manner.excludes]
        try:
            found = find_source(self._source.path, excludes, self._manner.gitignore, wishes.checksum).listed()
        except SyncFailure as error:
            raise by_name(error.name, error.message, error.hint) from error
        sender = Sender(self._far.wire, found, self._progress.moved, names=wishes.names)
        telling = sender.telling()
        if not self._is_greeted:
            self._far.greet(lambda: next(telling, None))
            self._is_greeted = True
        return self._far.converse(lambda: self._deliver(sender, telling))

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""
        self._far.check()

    def _deliver(self, sender: Sender, telling: Iterator[None]) -> Outcome:
        for _ in telling:
            pass
        plan = sender.hear()
        self._progress.planned(plan["bytes"], plan["files"])
        return outcome(plan, sender.deliver(self._manner.wishes.dry_run))
