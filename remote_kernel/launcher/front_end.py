"""Find out what the front end wants that has started this launcher, and whether it is still there."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence

from remote_kernel import process
from remote_kernel.errors import PortInUse
from remote_kernel.jupyter.connection_file import ConnectionFile
from remote_kernel.options import LaunchOptions, split_arguments
from remote_kernel.remote.kernel import kernel_folders, kernelspecs

_MEANT_FOR_US = ("REMOTE_KERNEL_", "REMOTE_CONN_DIR", "LOCAL_KERNELS_DIR", "SSH_")


def with_spec_env(options: LaunchOptions, arguments: Sequence[str]) -> LaunchOptions:
    """Return the options of a launcher with its kernel.json's `env`; `arguments` is its command line.

    Front ends set these variables for the launcher, which must not hand its whole environment on to another machine.
    Nor do they say which kernelspec it is: the one with this command line; of several, the first whose variables are
    set here. Without jupyter_core, which takes 40 ms to import.
    """
    own = list(split_arguments(arguments)[0])
    folders = [folder for folder in (os.environ.get("LOCAL_KERNELS_DIR", ""),) if folder]
    for spec in kernelspecs([*folders, *kernel_folders(sys.executable)]).values():
        words = [word.replace("{connection_file}", options.connection_file) for word in split_arguments(spec.argv)[0]]
        if spec.env and words[-len(own) :] == own and spec.env.keys() <= os.environ.keys():
            pairs = tuple(pair for pair in spec.env.items() if not pair[0].startswith(_MEANT_FOR_US))
            return options._replace(spec_env=pairs)
    return options


def listen(connection: ConnectionFile) -> dict[str, socket.socket]:
    """Listen on the five ports. Raises PortInUse."""
    connection.remove_stale_sockets()
    listeners: dict[str, socket.socket] = {}
    try:
        for channel, port in connection.ports.items():
            if connection.transport == "ipc":
                listeners[channel] = listener = socket.socket(socket.AF_UNIX)
                listener.bind(f"{connection.ip}-{port}")
            else:
                family = socket.AF_INET6 if ":" in connection.ip else socket.AF_INET
                listeners[channel] = listener = socket.socket(family)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((connection.ip.replace("*", "0.0.0.0"), port))
            listener.listen(64)
            listener.setblocking(False)
    except OSError as error:
        for opened in listeners.values():
            opened.close()
        what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror or error}"
        raise PortInUse(
            f"port {port} ({channel}) of {connection.ip} {what}", "start the kernel again, which picks other ports"
        ) from error
    return listeners


def has_lost_its_front_end() -> bool:
    """True if jupyter_client, which names itself to its kernels, was killed before this process could look for it.

    Whatever is started from a notebook inherits the name of a front end that may be long gone, VS Code for one: only
    a process that nobody but the system has adopted has lost its own.
    """
    front_end = os.environ.get("JPY_PARENT_PID", "")
    if not front_end.isdigit() or int(front_end) == os.getppid() or not _is_adopted():
        return False
    return not process.is_alive(int(front_end))


def _is_adopted() -> bool:
    """True if this process has lost its parent, in whose place is the system's first process or the user's systemd."""
    return os.getppid() == 1 or process.read_text(f"/proc/{os.getppid()}/comm") == "systemd\n"
