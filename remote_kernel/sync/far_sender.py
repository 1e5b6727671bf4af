"""The remote end's program where it sends.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import os

from remote_kernel.sync.far import serve
from remote_kernel.sync.sender import Sender, find_source
from remote_kernel.sync.wire import Wire, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Send once."""
    settings = parameters["settings"]
    wishes = settings["wishes"]

    def send(pipe: Wire, _: bytes) -> None:
        path = os.path.expanduser(to_bytes(settings["path"])) or b"."
        excludes = [to_bytes(line) for line in settings["excludes"]]
        source = find_source(path, excludes, settings["gitignore"], wishes["checksum"])
        sender = Sender(pipe, source, lambda moved, files: None, names=wishes["names"])
        sender.offer()
        sender.deliver(wishes["dry_run"])

    serve(marker, settings, send, is_sender=True)
