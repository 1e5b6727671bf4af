"""The folder on this machine for what only this user may touch: master sockets, notes about servers and kernels."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from remote_kernel.errors import TransportError

if TYPE_CHECKING:
    from remote_kernel.options import LaunchOptions


def private_folder() -> str:
    """Make (0700) and give the folder: under XDG_RUNTIME_DIR, else under /tmp, for a short socket path.

    Raises TransportError when somebody else owns it, which would let them take over connections.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime) and len(runtime) < 50:
        path = os.path.join(runtime, "remote_kernel")
    else:
        path = f"/tmp/remote_kernel-ssh-{os.getuid()}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise TransportError(
            f"cannot make {path}: {error.strerror}", "make it writable or set XDG_RUNTIME_DIR"
        ) from error
    if not is_private(path):
        raise TransportError(
            f"{path} is not a folder of yours alone", "remove it, or set XDG_RUNTIME_DIR to another place"
        )
    return path


def is_private(path: str) -> bool:
    """True if this is a folder that only this user may touch."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def note_path(kind: str, options: LaunchOptions) -> str:
    """Give the path of a note about the server that the options lead to."""
    import hashlib  # `rkernel exec` needs only the folder, and has no milliseconds to spare

    way = "\0".join([str(options.endpoint), *map(str, options.jumps), options.ssh_config])
    return os.path.join(private_folder(), f"{kind}-{hashlib.sha256(way.encode()).hexdigest()[:16]}")


def leave_note(kind: str, options: LaunchOptions, text: str) -> None:
    """Leave a note about the server. It helps, and no kernel ends because there is no room for it."""
    with contextlib.suppress(OSError, TransportError):
        write_private(note_path(kind, options), text)


def write_private(path: str, text: str) -> None:
    """Write a file (0600) that others see whole or not at all."""
    new = f"{path}.{os.getpid()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise
