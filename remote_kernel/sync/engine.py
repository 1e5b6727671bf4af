"""Copy files one way, between here and a remote host: once, again after a lost connection, or after each change.

One end runs here and the other there. The end here is imported while ssh connects.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar

from remote_kernel.errors import ConnectionLost, PythonNotFound, RemoteKernelError, RemoteShellNoise, is_temporary
from remote_kernel.sync.remote_end import RemoteEnd
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.transfer import Outcome, SyncPath, Transfer
from remote_kernel.sync.tree import Entry, list_file, list_folder
from remote_kernel.sync.wire import to_text

PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 0.5
LOOK_SECONDS = 1.0  # between two looks for changes
_LONGEST_PAUSE = 10.0
_LONG_SECONDS = 30.0
_CANNOT_RUN = (PythonNotFound, RemoteShellNoise)

Result = TypeVar("Result")


class Pusher(Protocol):
    """What sends to a host, as often as `run` is called."""

    def run(self) -> Outcome:
        """Send what differs. Raises as `sync` does."""

    def check(self) -> None:
        """Raise ConnectionLost if the connection has ended."""


def sync(transfer: Transfer) -> Outcome:
    """Copy a file or folder there or here, once.

    Over SFTP where no program of ours can be run there. Raises NothingToSync, NoRoom, SyncError; ConnectionLost, after
    which the same call goes on; TransportError's kinds.
    """
    if not transfer.source.is_remote:
        return _with_pusher(transfer, lambda pusher: pusher.run())
    instead_of: RemoteKernelError | None = None
    if not transfer.options.sftp:
        try:
            with RemoteEnd(transfer.launch, "send", _remote_settings(transfer, transfer.source)) as end:
                from remote_kernel.sync.local_ends import fetch

                return fetch(transfer, end)
        except _CANNOT_RUN as error:
            instead_of = error
    from remote_kernel.sync import sftp

    return sftp.fetch(transfer, instead_of=instead_of)


def watch(transfer: Transfer, done: Callable[[Outcome], None], lost: Callable[[RemoteKernelError], None]) -> NoReturn:
    """Copy now and after every change, until a signal ends it; `done` is called with each outcome.

    A connection that is lost is tried again for ever, `lost` is called with its error. Raises as `sync` does.
    """

    def keep_alike(pusher: Pusher) -> NoReturn:
        while True:
            seen = now = _look(transfer)
            done(pusher.run())
            while now == seen:
                time.sleep(LOOK_SECONDS)  # changes are looked for, on any file system, network ones too
                pusher.check()
                now = _look(transfer)

    retry(lambda: _with_pusher(transfer, keep_alike), lost, math.inf)
    raise AssertionError("watching ends by a signal or an error")


def retry(
    action: Callable[[], Result],
    tell: Callable[[RemoteKernelError], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Result:
    """Return what the action does, called again for so long after it first lost a connection that had been up.

    One that had been up for a while counts as a first one again. A host that was never reached is an error at once;
    `tell` is called with every other one.
    """
    deadline = 0.0
    pause = FIRST_PAUSE_SECONDS
    while True:
        begun = time.monotonic()
        try:
            return action()
        except RemoteKernelError as error:
            now = time.monotonic()
            if isinstance(error, ConnectionLost) and (not deadline or now - begun > _LONG_SECONDS):
                deadline, pause = now + patience_seconds, FIRST_PAUSE_SECONDS
            if not is_temporary(error) or now >= deadline:
                raise
            tell(error)
        time.sleep(pause)  # there is no event for a network that is back
        pause = min(pause * 2, _LONGEST_PAUSE)


def _with_pusher(transfer: Transfer, action: Callable[[Pusher], Result]) -> Result:
    """Return what the action does with an end that sends to the host: over SFTP where no program of ours runs there."""
    instead_of: RemoteKernelError | None = None
    if not transfer.options.sftp:
        try:
            with RemoteEnd(transfer.launch, "receive", _remote_settings(transfer, transfer.target)) as end:
                from remote_kernel.sync.local_ends import LocalSender

                return action(LocalSender(transfer, end))
        except _CANNOT_RUN as error:
            instead_of = error
    from remote_kernel.sync import sftp  # only here: few need it, and it loads paramiko

    with sftp.pusher(transfer, instead_of=instead_of) as over_sftp:
        return action(over_sftp)


def _remote_settings(transfer: Transfer, path: SyncPath) -> dict[str, Any]:
    """Return what the remote end's program is started with."""
    return {
        "folder": transfer.launch.workdir,
        "path": to_text(path.path),
        "options": transfer.options.pack(),
    }


def _look(transfer: Transfer) -> list[Entry]:
    """Return what is there. What changes while it is copied is seen the next time, for this was called before."""
    path, options = transfer.source.path, transfer.options
    if not os.path.isdir(path):
        return list_file(path, b"", with_digests=False).entries
    return list_folder(path, Rules.of(options), with_digests=False).entries
