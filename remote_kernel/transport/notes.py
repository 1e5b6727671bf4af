"""Remember a refused login or an outage of a server, for the launchers that start meanwhile.

jupyter_client relaunches a dead launcher up to five times; five refused logins within seconds get an address banned on
many servers. So after a refused login that server is left alone for a while. An account that the server refuses is in
no such danger, and a person may mend that at any moment (a job starts), so that holds for the same start only: restarts
keep their connection file.

A restart in the front end during an outage starts a launcher that knows nothing of it. Where another one has lost its
connection to the same server, the new one tries for a while before it fails; anywhere else an error is told at once.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

from remote_kernel.errors import (
    AccountRefused,
    AuthenticationFailed,
    RemoteKernelError,
    TransportError,
    is_temporary,
)
from remote_kernel.files import private_folder, write_private
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.ssh_config import transport_name

BREAKER_SECONDS = 60.0
RESTARTS_SECONDS = 30.0  # jupyter_client tries once in three, five times
_LONGEST_OUTAGE_SECONDS = 24 * 3600.0  # after which its note says nothing: nobody was there to remove it
_ACCOUNT, _OUTAGE = "account", "outage"


def raise_recent_refusal(options: LaunchOptions) -> None:
    """Raise the AuthenticationFailed of less than BREAKER_SECONDS ago again, if there was one.

    Not after a change of the ssh config. And the AccountRefused that the start of this very kernel has met.
    """
    _raise_refused_account(options)
    try:
        when, message, hint = _read(_login_kind(options), options)
        age = time.time() - float(when)
    except (OSError, ValueError, TypeError):
        return
    if 0 <= age < BREAKER_SECONDS and not _config_changed_since(options, float(when)):
        raise AuthenticationFailed(str(message), str(hint))
    clear_refusals(options)


def is_login_refused(options: LaunchOptions) -> bool:
    """True if the server refused a login, however long ago, and has let nobody in since."""
    return os.path.exists(_path(_login_kind(options), options))


def write_refused_login(options: LaunchOptions, error: AuthenticationFailed) -> None:
    """Remember a refused login."""
    _write(_login_kind(options), options, json.dumps([time.time(), error.message, error.hint]))


def write_refused_account(options: LaunchOptions, error: AccountRefused) -> None:
    """Remember that the server has refused the account when this kernel was started."""
    said = [time.time(), options.connection_file, error.message, error.hint]
    _write(_ACCOUNT, options, json.dumps(said))


def clear_refusals(options: LaunchOptions) -> None:
    """Remove what a refused login has left: the server has let the user in, or a person asks. Idempotent."""
    _remove(_login_kind(options), options)
    _remove(_ACCOUNT, options)


def write_outage(options: LaunchOptions) -> None:
    """Remember that the connection was lost."""
    _write(_OUTAGE, options, "")


def clear_outage(options: LaunchOptions) -> None:
    """Remove what `write_outage` has left: the server answers. Idempotent."""
    _remove(_OUTAGE, options)


def is_from_outage(options: LaunchOptions, error: RemoteKernelError) -> bool:
    """True if the server was out of reach lately, and this error may be due to that and pass with it."""
    try:
        age = time.time() - os.stat(_path(_OUTAGE, options)).st_mtime
    except OSError:
        return False
    return is_temporary(error) and age < _LONGEST_OUTAGE_SECONDS


def _raise_refused_account(options: LaunchOptions) -> None:
    try:
        when, connection_file, message, hint = _read(_ACCOUNT, options)
        age = time.time() - float(when)
    except (OSError, ValueError, TypeError):
        return
    if connection_file == options.connection_file and 0 <= age < RESTARTS_SECONDS:
        raise AccountRefused(str(message), str(hint))


def _config_changed_since(options: LaunchOptions, when: float) -> bool:
    """True if the name may lead elsewhere now, or as somebody else: that refusal says nothing of the new way."""
    try:
        return os.stat(os.path.expanduser(options.ssh_config or "~/.ssh/config")).st_mtime > when
    except OSError:
        return False


def _login_kind(options: LaunchOptions) -> str:
    """Return the note's kind, by transport: one may have what to log in with, as a shared connection, the other not."""
    return f"refused-{transport_name(options)}"


def _path(kind: str, options: LaunchOptions) -> str:
    """Return the path of a note about the server that the options lead to."""
    import hashlib  # only here: the launcher imports this module before it starts ssh

    way = "\0".join([str(options.endpoint), *map(str, options.jumps), options.ssh_config])
    return os.path.join(private_folder(), f"{kind}-{hashlib.sha256(way.encode()).hexdigest()[:16]}")


def _write(kind: str, options: LaunchOptions, text: str) -> None:
    """Write a note. It helps, and no kernel ends because there is no room for it."""
    with suppress(OSError, TransportError):
        write_private(_path(kind, options), text)


def _read(kind: str, options: LaunchOptions) -> list[Any]:
    with open(_path(kind, options), encoding="utf-8") as file:
        return list(json.load(file))


def _remove(kind: str, options: LaunchOptions) -> None:
    with suppress(OSError):
        os.unlink(_path(kind, options))
