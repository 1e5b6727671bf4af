"""Keep restarters from locking a user out: after a refused login, do not try that server again for a while.

jupyter_client relaunches a dead launcher up to five times; five refused logins within seconds get an address
banned on many servers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from remote_kernel.errors import AuthenticationFailed
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.private import private_folder

BREAKER_SECONDS = 60.0


def _note(options: LaunchOptions) -> str:
    way = "\0".join([str(options.endpoint), *map(str, options.jumps), options.ssh_config])
    return os.path.join(private_folder(), f"refused-{hashlib.sha256(way.encode()).hexdigest()[:16]}")


def check(options: LaunchOptions) -> None:
    """Raise the AuthenticationFailed of less than BREAKER_SECONDS ago again, if there was one."""
    try:
        with open(_note(options), encoding="utf-8") as file:
            when, message, hint = json.load(file)
            age = time.time() - float(when)
    except (OSError, ValueError, TypeError):
        return
    if 0 <= age < BREAKER_SECONDS:
        raise AuthenticationFailed(str(message), str(hint))
    clear(options)


def is_tripped(options: LaunchOptions) -> bool:
    """Whether the server refused a login, however long ago, and has let nobody in since."""
    return os.path.exists(_note(options))


def trip(options: LaunchOptions, error: AuthenticationFailed) -> None:
    """Remember a refused login."""
    fd = os.open(_note(options), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump([time.time(), error.message, error.hint], file)


def clear(options: LaunchOptions) -> None:
    """Forget a refused login: the server has let the user in, or a person asks. Idempotent."""
    try:
        os.unlink(_note(options))
    except OSError:
        pass
