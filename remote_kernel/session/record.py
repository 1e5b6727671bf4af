"""Read and write session.json: what a session is, and where a new host finds the kernel that an old one has left."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from remote_kernel.errors import RemoteKernelError
from remote_kernel.files import write_private
from remote_kernel.session.paths import Paths


class Record(NamedTuple):
    """One session, as it was when its host last wrote it.

    `kernelspec` is empty for a kernel that somebody else started, and `connection_file` then theirs. `log` is the
    notebook's path, empty for none; `cwd` the folder here in which the session was made, and its kernel or launcher
    starts. `workdir` is another folder for the kernel, on its host, empty for none; `folder` the one in which it was
    started, empty where that is not known. `identity` names this session's sockets to the kernel: a reply finds the
    next host too. `generation` counts the kernels, from 1; `pid` is the process group of the present one, 0 when there
    is none of ours, and `born` when its leader began (see process.birth): after a reboot the number may be another's.
    `created` is Unix time in seconds.
    """

    kernelspec: str
    display_name: str
    connection_file: str
    log: str
    cwd: str
    identity: str
    created: float
    language: str = "python"
    interrupt_mode: str = "signal"
    host: str = ""
    generation: int = 1
    pid: int = 0
    born: str = ""
    workdir: str = ""
    folder: str = ""

    @property
    def is_attached(self) -> bool:
        """True if the kernel is somebody else's."""
        return not self.kernelspec


def read_record(paths: Paths) -> Record:
    """Read session.json. Raises RemoteKernelError where it is damaged, FileNotFoundError where there is none."""
    try:
        with open(paths.record, encoding="utf-8") as file:
            fields: dict[str, Any] = json.load(file)
        return Record(**{name: fields[name] for name in Record._fields if name in fields})
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise RemoteKernelError(
            f"{paths.record} cannot be read: {error}", f"remove the session with 'rkernel close {paths.name}'"
        ) from error


def write_record(paths: Paths, record: Record) -> None:
    """Write session.json, whole or not at all, and kernel.pid."""
    write_private(paths.record, json.dumps(record._asdict(), indent=1))
    if record.pid:
        write_private(paths.kernel_pid, f"{record.pid} {record.born}")


def read_process(paths: Paths) -> tuple[int, str]:
    """Return the `pid` and `born` of the record, also where it is damaged. Raises RemoteKernelError if nothing says."""
    try:
        record = read_record(paths)
        return record.pid, record.born
    except (RemoteKernelError, FileNotFoundError) as error:
        try:
            with open(paths.kernel_pid, encoding="ascii") as file:
                pid, _, born = file.read().partition(" ")
                return int(pid), born
        except (OSError, ValueError):
            if not os.path.exists(paths.kernel_log):  # there never was a kernel of ours
                return 0, ""
        raise RemoteKernelError(
            f"it cannot be seen which process its kernel is, and that may live: {error}",
            f"look for it with 'pgrep -fl {paths.kernel_exit}', end it, and remove {paths.folder}",
        ) from error
