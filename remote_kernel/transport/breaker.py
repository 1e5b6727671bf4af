"""Keep restarters from locking a user out: after a refused login, do not try that server again for a while.

jupyter_client relaunches a dead launcher up to five times; five refused logins within seconds get an address
banned on many servers.
"""

from __future__ import annotations

import json
import os
import time

from remote_kernel.errors import AuthenticationFailed
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice
from remote_kernel.transport.private import leave_note, note_path

BREAKER_SECONDS = 60.0


def check(options: LaunchOptions) -> None:
    """Raise the AuthenticationFailed of less than BREAKER_SECONDS ago again, if there was one.

    Not after a change of the ssh config.
    """
    try:
        with open(note_path(_kind(options), options), encoding="utf-8") as file:
            when, message, hint = json.load(file)
            age = time.time() - float(when)
    except (OSError, ValueError, TypeError):
        return
    if 0 <= age < BREAKER_SECONDS and not _config_changed_since(options, float(when)):
        raise AuthenticationFailed(str(message), str(hint))
    clear(options)


def is_tripped(options: LaunchOptions) -> bool:
    """Whether the server refused a login, however long ago, and has let nobody in since."""
    return os.path.exists(note_path(_kind(options), options))


def trip(options: LaunchOptions, error: AuthenticationFailed) -> None:
    """Remember a refused login."""
    leave_note(_kind(options), options, json.dumps([time.time(), error.message, error.hint]))


def clear(options: LaunchOptions) -> None:
    """Forget a refused login: the server has let the user in, or a person asks. Idempotent."""
    try:
        os.unlink(note_path(_kind(options), options))
    except OSError:
        pass


def _config_changed_since(options: LaunchOptions, when: float) -> bool:
    """True if the name may lead elsewhere now, or as somebody else: that refusal is none of the new way's."""
    try:
        return os.stat(os.path.expanduser(options.ssh_config or "~/.ssh/config")).st_mtime > when
    except OSError:
        return False


def _kind(options: LaunchOptions) -> str:
    """Name the note by its transport: what one has to log in with, a shared connection above all, the other has not."""
    return f"refused-{choice.name(options)}"
