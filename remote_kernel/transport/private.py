"""The folder on this machine for what only this user may touch: master sockets, notes of refused logins."""

from __future__ import annotations

import os
import stat

from remote_kernel.errors import TransportError


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
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise TransportError(
            f"{path} is not a folder of yours alone", "remove it, or set XDG_RUNTIME_DIR to another place"
        )
    return path
