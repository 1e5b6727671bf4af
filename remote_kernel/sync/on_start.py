"""Push a folder to where a kernel is about to start: the program that a launcher runs for `--on-start`.

A process of its own, because the launcher is to stay light and quick to end. It takes the launcher's own arguments,
tells on stdout how it goes, one JSON object a line (`planned`, `moved`, then `done` or `failed`), and ends with the
launcher, which holds its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from remote_kernel.errors import RemoteKernelError, SyncIncomplete
from remote_kernel.options import LaunchOptions, parse_launch
from remote_kernel.sync.engine import retry, sync
from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.transfer import Outcome, SyncPath, Transfer

PATIENCE_SECONDS = 20.0  # for a connection that broke in the middle: front ends wait 60 s for a kernel
_TELL_SECONDS = 1.0


def main() -> int:
    """Push, and report. Return 0 also for a push that failed, which was reported; the launcher waits for the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the kernel; VS Code sends it to every descendant
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    options = parse_launch(sys.argv[1:])
    try:
        outcome = retry(lambda: push(options), lambda error: None, PATIENCE_SECONDS)
    except RemoteKernelError as error:
        tell("failed", error=type(error).__name__, message=error.message, hint=error.hint)
    else:
        tell("done", files=outcome.files, bytes=outcome.bytes, unchanged=outcome.unchanged)
    return 0


def push(options: LaunchOptions) -> Outcome:
    """Do what `sync PATH/ remote:` does. Raises as that does, and SyncIncomplete."""
    source = SyncPath(os.path.join(os.fsencode(options.on_start), b""), False)
    for is_last in (False, True):  # a file may go while it is copied: editors make and remove some all the time
        outcome = sync(Transfer(options, source, SyncPath(b"", True), SyncOptions(), PushReport()))
        if not outcome.failures:
            return outcome
        path, reason = outcome.failed[0]
        if is_last:
            count = "1 path" if outcome.failures == 1 else f"{outcome.failures} paths"
            message = f"{count} could not be copied: {path!r}: {reason}"
            raise SyncIncomplete(message, "correct that, or let a .gitignore skip it")
    raise AssertionError


class PushReport:
    """Tells how far it is, now and then."""

    def __init__(self) -> None:
        self._size = self._files = 0
        self._told = time.monotonic()

    def planned(self, size: int, files: int) -> None:
        """Report what there is to do."""
        tell("planned", files=files, bytes=size)

    def moved(self, size: int, files: int) -> None:
        """Count, and report if it is time."""
        self._size += size
        self._files += files
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            tell("moved", files=self._files, bytes=self._size)

    def fell_back(self, error: RemoteKernelError) -> None:
        """Raise the error: where no program of ours can run, no kernel can."""
        raise error


def tell(event: str, **fields: object) -> None:
    """Write an event to the launcher."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def _end_with_the_launcher() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _leave(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)  # what is open closes on the way, ssh with it


if __name__ == "__main__":
    os._exit(main())
