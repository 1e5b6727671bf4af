"""Reach files on the remote host with SFTP, where nothing else can: no ssh here, or no Python there.

Paths are the remote host's; one that is not absolute, or begins with `~/`, is below the home folder. What the server
refuses is an OSError, of the kind that a local file gives where the server tells it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import paramiko

from remote_kernel.options import LaunchOptions
from remote_kernel.transport.paramiko_connection import PACKET_BYTES, WINDOW_BYTES
from remote_kernel.transport.paramiko_way import connected

_CHUNK = 1 << 20
Progress = Callable[[int], None]
"""Called with the number of bytes that have just been moved."""


class RemoteFile(NamedTuple):
    """What a folder says of one of its entries: times in seconds since the epoch, sizes in bytes."""

    name: str
    size: int
    modified: int
    mode: int

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder; a link to one is not."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class RemoteFiles:
    """The remote host's files, as long as the connection is open. For one thread."""

    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client

    def entries(self, folder: str) -> list[RemoteFile]:
        """Give what is in a folder, by name. Raises OSError."""
        found = self._client.listdir_attr(_below_home(folder))
        files = [RemoteFile(e.filename, e.st_size or 0, e.st_mtime or 0, e.st_mode or 0) for e in found]
        return sorted(files, key=lambda file: file.name)

    def look_at(self, path: str) -> RemoteFile:
        """Give what there is of that name, a link being itself. Raises OSError, FileNotFoundError among them."""
        found = self._client.lstat(_below_home(path))
        return RemoteFile(os.path.basename(path), found.st_size or 0, found.st_mtime or 0, found.st_mode or 0)

    def read(self, path: str, to: BinaryIO, progress: Progress = lambda _: None) -> None:
        """Copy a file's bytes; many requests are under way at once, so that a long round trip costs little."""
        with self._client.open(_below_home(path), "rb") as file:
            file.prefetch(file.stat().st_size or 0)
            while data := file.read(_CHUNK):
                to.write(data)
                progress(len(data))

    def write(self, path: str, source: BinaryIO, mode: int = 0o644, progress: Progress = lambda _: None) -> None:
        """Write a file under another name and give it its own when it is whole, in place of what was there."""
        target = _below_home(path)
        partial = f"{target}.{os.urandom(4).hex()}.part"
        try:
            with self._client.open(partial, "wb") as file:
                file.set_pipelined(True)
                while data := source.read(_CHUNK):
                    file.write(data)
                    progress(len(data))
            self._client.chmod(partial, mode)
            self._client.posix_rename(partial, target)
        except BaseException:
            with suppress(OSError, EOFError, paramiko.SSHException):
                self._client.remove(partial)
            raise

    def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder; the one that it is in has to be there. Raises OSError."""
        self._client.mkdir(_below_home(path), mode)

    def remove(self, path: str) -> None:
        """Remove a file or a link, or an empty folder. Raises OSError."""
        if self.look_at(path).is_folder:
            self._client.rmdir(_below_home(path))
        else:
            self._client.remove(_below_home(path))

    def set_modified(self, path: str, seconds: float) -> None:
        """Set the time of a file's last change, and of the last look at it. Raises OSError."""
        self._client.utime(_below_home(path), (seconds, seconds))


@contextmanager
def remote_files(options: LaunchOptions) -> Iterator[RemoteFiles]:
    """Connect, through jump hosts too, for as long as the block. Raises TransportError's kinds."""
    with connected(options) as transport:
        client = paramiko.SFTPClient.from_transport(transport, WINDOW_BYTES, PACKET_BYTES)
        if client is None:
            raise paramiko.SSHException("the server has no SFTP")
        with client:
            yield RemoteFiles(client)


def _below_home(path: str) -> str:
    """Give the path as SFTP wants it, which knows no `~` and starts in the home folder."""
    return path.removeprefix("~/") or "." if path != "~" else "."
