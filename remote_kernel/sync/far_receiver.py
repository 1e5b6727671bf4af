"""The remote end's program where it receives.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os

from remote_kernel.sync.far import serve
from remote_kernel.sync.receiver import Receiver
from remote_kernel.sync.wire import Wire, to_bytes
from remote_kernel.sync.wishes import Wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Receive as often as the local end begins: it may watch a folder."""
    settings = parameters["settings"]

    def receive(pipe: Wire, start: bytes) -> None:
        path = os.path.join(start, os.path.expanduser(to_bytes(settings["path"])))
        while not pipe.at_end():
            receiver = Receiver(pipe, path, Wishes(**settings["wishes"]), lambda moved, files: None)
            receiver.ask(receiver.consider())
            receiver.receive()

    serve(marker, settings, receive, is_sender=False)
