"""Give files and folders their modes, on file systems that have any.

FAT, and some that are reached over a network, refuse all modes but their own. A copy there is as good as one can be:
it is no failure, as it is none for `cp -p` and `scp -p`.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import errno
import os

_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS)


def set_mode(path: bytes | int, mode: int, folder: int | None = None) -> bool:
    """Set the mode of an open file, or of a path, which may be a name in an open folder; no link is to be there.

    False where the file system has no such mode. Raises OSError, also where it is somebody else's.
    """
    try:
        os.chmod(path, mode, dir_fd=folder)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        about = os.stat(path, dir_fd=folder)
        # This too is the owner's right alone: whoever has it, and may set no mode, has met such a file system.
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=folder)
        return False
    return True
