"""Keep a remote folder like one here: look at it once a second, and send what has changed, over one connection."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import NoReturn

from remote_kernel.errors import RemoteKernelError
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.outcome import Manner, Outcome, Progress
from remote_kernel.sync.place import Place
from remote_kernel.sync.push import Push
from remote_kernel.sync.retry import persistently
from remote_kernel.sync.rules import Rules
from remote_kernel.sync.transfer import CANNOT_RUN, pusher
from remote_kernel.sync.tree import Entry, list_file, list_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remote_kernel.sync.sftp import SftpPush

INTERVAL_SECONDS = 1.0


def watch(
    options: LaunchOptions,
    source: Place,
    target: Place,
    manner: Manner,
    progress: Progress,
    done: Callable[[Outcome], None],
    lost: Callable[[RemoteKernelError], None],
) -> NoReturn:
    """Copy now and after every change, until a signal ends it; `done` hears of each copy.

    A connection that is lost is tried again for ever, and `lost` hears of that. Raises as `sync` does.
    """

    def stay() -> NoReturn:
        instead_of: RemoteKernelError | None = None
        if not manner.sftp:
            try:
                with pusher(options, source, target, manner, progress) as push:
                    _stay(push, source, manner, done)
            except CANNOT_RUN as error:
                instead_of = error
        from remote_kernel.sync import sftp  # only here: few need it, and it loads paramiko

        with sftp.pusher(options, source, target, manner, progress, instead_of=instead_of) as over_sftp:
            _stay(over_sftp, source, manner, done)

    persistently(stay, lost, math.inf)
    raise AssertionError("watching ends by a signal or an error")


def _stay(push: Push | SftpPush, source: Place, manner: Manner, done: Callable[[Outcome], None]) -> NoReturn:
    while True:
        seen = _look(source, manner)
        done(push.run())
        _wait_for_change(push, source, manner, seen)


def _wait_for_change(push: Push | SftpPush, source: Place, manner: Manner, seen: list[Entry]) -> None:
    while True:
        time.sleep(INTERVAL_SECONDS)  # changes are looked for, on any file system, network ones too
        push.check()
        if _look(source, manner) != seen:
            return


def _look(source: Place, manner: Manner) -> list[Entry]:
    """Give what is there. What changes while it is copied is seen the next time, for this was called before."""
    if not os.path.isdir(source.path):
        return list_file(source.path, b"", with_digests=False).entries
    rules = Rules([os.fsencode(line) for line in manner.excludes], manner.gitignore)
    return list_folder(source.path, rules, with_digests=False).entries
