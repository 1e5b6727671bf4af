"""Where a session's files are on this machine.

<Jupyter's runtime folder>/rkernel/NAME/        0700
    session.json      what the session is: record.py
    kernel.json       the connection file
    kernel.log        what the kernel and its launcher wrote to stdout and stderr
    kernel.state      connected or away: state_file.py
    kernel.exit       how the kernel's process ended
    kernel.pid        which process that is, once more: session.json may be damaged
    host.log          what the host had to say
    host.lock         held by the host for as long as it lives; says where it listens: host_lock.py
    cells/N.jsonl     what cell N gave: journal.py
    files/            images and large data

<private folder>/rk-HASH.sock                   0600, short enough for a Unix socket's address
"""

from __future__ import annotations

import os

from remote_kernel.errors import UsageError
from remote_kernel.files import is_private, private_folder
from remote_kernel.jupyter.connection_file import runtime_folder
from remote_kernel.session.host_lock import read_holder

_NAME_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_NAME = 64


class Paths:
    """The paths of one session; nothing here touches the disk but the methods."""

    def __init__(self, name: str) -> None:
        """Raises UsageError for a name that cannot be a folder's."""
        self.name = check_name(name)
        self.folder = os.path.join(sessions_folder(), name)
        self.record = os.path.join(self.folder, "session.json")
        self.connection_file = os.path.join(self.folder, "kernel.json")
        self.kernel_log = os.path.join(self.folder, "kernel.log")
        self.kernel_state = os.path.join(self.folder, "kernel.state")
        self.kernel_exit = os.path.join(self.folder, "kernel.exit")
        self.kernel_pid = os.path.join(self.folder, "kernel.pid")
        self.host_log = os.path.join(self.folder, "host.log")
        self.host_lock = os.path.join(self.folder, "host.lock")
        self.cells = os.path.join(self.folder, "cells")
        self.files = os.path.join(self.folder, "files")

    def journal(self, cell: str) -> str:
        """Return the path of a cell's journal; the cell need not exist."""
        return os.path.join(self.cells, f"{cell}.jsonl")

    def socket(self) -> str:
        """Return where the host listens: where it says, else where a new one would listen. Raises TransportError.

        A folder under /tmp that is no longer the user's own might lead to somebody else's program.
        """
        holder = read_holder(self.host_lock)
        if holder and holder.socket and is_private(os.path.dirname(holder.socket)):
            return holder.socket
        return self.new_socket()

    def new_socket(self) -> str:
        """Return where a host is to listen, in a folder that is made if need be. Raises TransportError."""
        return os.path.join(private_folder(), f"rk-{_checksum(self.folder):08x}-{self.name[:20]}.sock")

    def exists(self) -> bool:
        """True if there is such a session, its host alive or not."""
        return os.path.exists(self.record)

    def make(self) -> None:
        """Make the session's folders, 0700."""
        for folder in (os.path.dirname(self.folder), self.folder, self.cells, self.files):
            os.makedirs(folder, mode=0o700, exist_ok=True)


def _checksum(text: str) -> int:
    """Return the FNV-1a checksum, which tells one user's folders apart. hashlib and zlib take long to load."""
    number = 2166136261
    for byte in os.fsencode(text):
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    return number


def sessions_folder() -> str:
    """Return the folder that holds one folder for each session; it need not exist."""
    return os.path.join(runtime_folder(), "rkernel")


def session_names() -> list[str]:
    """Return the names of all sessions of this user on this machine, sorted."""
    try:
        names = os.listdir(sessions_folder())
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name[0] not in ".-" and set(name) <= _NAME_SIGNS and Paths(name).exists())


def check_name(name: str) -> str:
    """Return the name if a session can have it. Raises UsageError."""
    if not name or len(name) > _LONGEST_NAME or name[0] in ".-" or not set(name) <= _NAME_SIGNS:
        raise UsageError(
            f"'{name}' cannot be a session's name", "use up to 64 letters, digits, dots, dashes and underscores"
        )
    return name
