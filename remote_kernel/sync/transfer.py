"""Copy files one way, between here and a remote host: run one end here and the other there.

The end here is imported while ssh connects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remote_kernel.errors import PythonNotFound, RemoteKernelError, RemoteShellNoise
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.outcome import Manner, Outcome, Progress
from remote_kernel.sync.place import Place
from remote_kernel.sync.wire import to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remote_kernel.sync.push import Push

CANNOT_RUN = (PythonNotFound, RemoteShellNoise)


def sync(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    """Copy a file or folder there or here, once.

    Over SFTP where no program of ours can be run there. Raises NothingToSync, NoRoom, SyncError; ConnectionLost, after
    which the same call goes on; TransportError's kinds.
    """

    def over_sftp(instead_of: RemoteKernelError | None = None) -> Outcome:
        from remote_kernel.sync import sftp  # only here: few need it, and ssh is not started yet

        return sftp.copy(options, source, target, manner, progress, instead_of=instead_of)

    if manner.sftp:
        return over_sftp()
    try:
        if source.is_remote:
            with FarEnd(options, "send", _far_settings(options, source, manner)) as far:
                from remote_kernel.sync.fetch import fetch

                return fetch(options, far, source, target, manner, progress)
        with pusher(options, source, target, manner, progress) as push:
            return push.run()
    except CANNOT_RUN as error:
        return over_sftp(instead_of=error)


@contextmanager
def pusher(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Iterator[Push]:
    """Give what sends to a receiving end, as long as the block."""
    with FarEnd(options, "receive", _far_settings(options, target, manner)) as far:
        from remote_kernel.sync.push import Push

        yield Push(options, far, source, manner, progress)


def _far_settings(options: LaunchOptions, place: Place, manner: Manner) -> dict[str, Any]:
    """Give what the remote end's program is started with."""
    return {
        "folder": options.workdir,
        "path": to_text(place.path),
        "excludes": [to_text(os.fsencode(line)) for line in manner.excludes],
        "gitignore": manner.gitignore,
        "wishes": manner.wishes._asdict(),
    }
