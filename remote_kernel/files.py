"""Keep what only this user may touch in one folder of this machine: master sockets, notes on servers and kernels."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from remote_kernel.errors import TransportError

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "~/.cache")
_LONGEST = 50  # a Unix socket's path ends at about 104 bytes, and ssh makes one that is 17 longer first


def private_folder(part: str = "") -> str:
    """Make (0700) and return the folder, or that part of it: in XDG_RUNTIME_DIR, else the first of PLACES that will do.

    Every process of this user finds the same. One that somebody else owns or can enter is passed over: they could take
    over connections. Raises TransportError where there is no other.
    """
    refused = []
    for path in _candidates():
        try:
            _make_private(path)
            if part:
                path = os.path.join(path, part)
                _make_private(path)
        except OSError as error:
            refused.append(f"{path}: {error.strerror or error}")
        else:
            return path
    raise TransportError(
        f"no folder here is for your user alone ({'; '.join(refused)})", "set XDG_RUNTIME_DIR to a folder of yours"
    )


def _candidates() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime) and len(runtime) < _LONGEST:
        yield os.path.join(runtime, "remote_kernel")
    for place in map(os.path.expanduser, PLACES):
        if len(place) < _LONGEST:
            yield os.path.join(place, f"remote_kernel-ssh-{os.getuid()}")


def _make_private(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    if not is_private(path):
        raise OSError("it is not a folder of yours alone")


def is_private(path: str) -> bool:
    """True if this is a folder that only this user may touch."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def write_private(path: str, content: str | bytes) -> None:
    """Write a file (0600) that others see whole or not at all. Raises OSError."""
    new = f"{path}.{os.getpid()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.rename(new, path)
    except BaseException as error:
        os.unlink(new)
        if isinstance(error, OSError):  # that of a full disk has no name
            raise OSError(error.errno, error.strerror, path) from error
        raise
