"""Copy files one way, between here and a remote host: run one end here and the other there.

The end here is imported while ssh connects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from remote_kernel.errors import PythonNotFound, RemoteKernelError, RemoteShellNoise, UsageError
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.carrying import FarEnd
from remote_kernel.sync.outcome import Manner, Outcome, Progress
from remote_kernel.sync.place import Place
from remote_kernel.sync.tool import has_rsync
from remote_kernel.sync.wire import to_text
from remote_kernel.sync.wishes import ALL, NEVER
from remote_kernel.transport.ssh_config import uses_openssh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remote_kernel.sync.push import Push

CANNOT_RUN = (PythonNotFound, RemoteShellNoise)


def sync(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Outcome:
    """Copy a file or folder there or here, once.

    Over SFTP where no program of ours can be run there. Raises NothingToSync, NoRoom, SyncError; ConnectionLost, after
    which the same call goes on; TransportError's kinds.
    """
    manner = fitting(options, manner)

    def over_sftp(instead_of: RemoteKernelError | None = None) -> Outcome:
        from remote_kernel.sync import by_sftp  # only here: few need it, and ssh is not started yet

        return by_sftp.copy(options, source, target, manner, progress, instead_of=instead_of)

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
        if manner.wishes.rsync == ALL:
            raise
        return over_sftp(instead_of=error)


@contextmanager
def pusher(options: LaunchOptions, source: Place, target: Place, manner: Manner, progress: Progress) -> Iterator[Push]:
    """Give what sends to a receiving end, as long as the block."""
    with FarEnd(options, "receive", _far_settings(options, target, manner)) as far:
        from remote_kernel.sync.push import Push

        yield Push(options, far, source, manner, progress)


def fitting(options: LaunchOptions, manner: Manner) -> Manner:
    """Leave rsync out where it has no way of its own to the host. Raises UsageError where it is asked for."""
    wishes = manner.wishes
    if wishes.rsync == ALL and manner.sftp:
        raise UsageError("rsync does not go over SFTP", "leave out --rsync or --sftp")
    if wishes.rsync == ALL and not has_rsync():
        raise UsageError("there is no rsync 3.1 or later here", "leave out --rsync")
    if uses_openssh(options) and "/" not in options.endpoint.host:
        return manner
    if wishes.rsync == ALL and "/" in options.endpoint.host:
        raise UsageError("rsync takes a host name with a slash for a path", "leave out --rsync")
    if wishes.rsync == ALL:
        raise UsageError("rsync goes over the ssh program, not over paramiko", "leave out --rsync or --transport")
    return manner._replace(wishes=wishes._replace(rsync=NEVER))


def _far_settings(options: LaunchOptions, place: Place, manner: Manner) -> dict[str, Any]:
    """Give what the remote end's program is started with."""
    return {
        "folder": options.workdir,
        "path": to_text(place.path),
        "excludes": [to_text(os.fsencode(line)) for line in manner.excludes],
        "gitignore": manner.gitignore,
        "wishes": manner.wishes._asdict(),
    }
