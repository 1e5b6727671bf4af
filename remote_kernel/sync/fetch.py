"""Fetch: the receiving end runs here, and speaks with one there that sends."""

from __future__ import annotations

import os

from remote_kernel.options import LaunchOptions
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.outcome import Manner, Outcome, Progress, outcome
from remote_kernel.sync.place import Place
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.validate import Asked


def fetch(
    options: LaunchOptions, far: FarEnd, source: Place, target: Place, manner: Manner, progress: Progress
) -> Outcome:
    """Receive what differs, once. Raises as `sync` does."""
    far.greet()
    asked = Asked(source.path, tuple(map(os.fsencode, manner.excludes)), manner.gitignore)
    receiver = Receiver(far.wire, target.path, manner.wishes, progress.moved, asked)

    def receive() -> Outcome:
        plan = receiver.consider()
        progress.planned(plan["bytes"], plan["files"])
        receiver.ask(plan)
        return outcome(plan, receiver.receive())

    return far.converse(receive)
