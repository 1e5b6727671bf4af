"""Keep restarters from locking a user out: after a refused login, do not try that server again for a while.

jupyter_client relaunches a dead launcher up to five times; five refused logins within seconds get an address
banned on many servers. An account that the server refuses is in no such danger, and a person may mend that at any
moment (a job starts), so that holds for the same start only: restarts keep their connection file.
"""

from __future__ import annotations

import json
import os
import time

from remote_kernel.errors import AccountRefused, AuthenticationFailed
from remote_kernel.files import leave_note, note_path
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice

BREAKER_SECONDS = 60.0
RESTARTS_SECONDS = 30.0  # jupyter_client tries once in three, five times
_ACCOUNT = "account"


def check(options: LaunchOptions) -> None:
    """Raise the AuthenticationFailed of less than BREAKER_SECONDS ago again, if there was one.

    Not after a change of the ssh config. And the AccountRefused that the start of this very kernel has met.
    """
    _check_account(options)
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
    for kind in (_kind(options), _ACCOUNT):
        try:
            os.unlink(note_path(kind, options))
        except OSError:
            pass


def note_account(options: LaunchOptions, error: AccountRefused) -> None:
    """Remember that the server has refused the account when this kernel was started."""
    said = [time.time(), options.connection_file, error.message, error.hint]
    leave_note(_ACCOUNT, options, json.dumps(said))


def _check_account(options: LaunchOptions) -> None:
    try:
        with open(note_path(_ACCOUNT, options), encoding="utf-8") as file:
            when, connection_file, message, hint = json.load(file)
            age = time.time() - float(when)
    except (OSError, ValueError, TypeError):
        return
    if connection_file == options.connection_file and 0 <= age < RESTARTS_SECONDS:
        raise AccountRefused(str(message), str(hint))


def _config_changed_since(options: LaunchOptions, when: float) -> bool:
    """True if the name may lead elsewhere now, or as somebody else: that refusal is none of the new way's."""
    try:
        return os.stat(os.path.expanduser(options.ssh_config or "~/.ssh/config")).st_mtime > when
    except OSError:
        return False


def _kind(options: LaunchOptions) -> str:
    """Name the note by its transport: what one has to log in with, a shared connection above all, the other has not."""
    return f"refused-{choice.name(options)}"
