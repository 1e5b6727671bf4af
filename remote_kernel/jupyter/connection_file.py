"""Read the connection file that a front end wrote, and find Jupyter's runtime folder."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any, NamedTuple

from remote_kernel.errors import ConnectionFileError, PortInUse

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class ConnectionFile(NamedTuple):
    """What a front end wants: `ports` by channel on `ip`, over `transport` (tcp or ipc).

    `values` is the whole file; what is not known here (keys of other kernels, CURVE keys) travels on as it is.
    """

    transport: str
    ip: str
    ports: dict[str, int]
    values: dict[str, Any]

    @property
    def is_encrypted(self) -> bool:
        """True if the front end asks for encrypted sockets (CURVE), as jupyter_client 8.9 can."""
        return all(self.values.get(f"curve_{kind}key") for kind in ("public", "secret"))

    def address(self, channel: str) -> str:
        """Return a channel's address as ZMQ writes it."""
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{self.ports[channel]}"
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"tcp://{ip}:{self.ports[channel]}"

    def remove_stale_sockets(self) -> None:
        """Remove the Unix sockets that a killed launcher left where the channels are to be. Called before binding.

        Raises PortInUse where something else is: a file of somebody's, which libzmq would remove too.
        """
        for channel, port in self.ports.items() if self.transport == "ipc" else ():
            path = f"{self.ip}-{port}"
            if not os.path.lexists(path):
                continue
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                hint = "move it away, or start the kernel again, which picks another name"
                raise PortInUse(f"{path} is no socket, but the front end wants its {channel} socket there", hint)
            os.unlink(path)


def read_connection_file(path: str) -> ConnectionFile:
    """Read and check the file. Raises ConnectionFileError, which never shows the key."""
    hint = "the front end should write it before it starts the kernel; see that the disk is not full, and start again"
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise ConnectionFileError(f"cannot read the connection file {path}: {error.strerror}", hint) from error
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError(f"the connection file {path} is not JSON, or only a part of it", hint) from error
    if not isinstance(values, dict):
        raise ConnectionFileError(f"the connection file {path} is not a JSON object", hint)
    missing = [name for name in ("key", *(f"{channel}_port" for channel in CHANNELS)) if name not in values]
    if missing:
        raise ConnectionFileError(f"the connection file {path} lacks {', '.join(missing)}", hint)
    ports = {channel: values[f"{channel}_port"] for channel in CHANNELS}
    wrong = [name for name, port in ports.items() if type(port) is not int or not 0 < port < 65536]
    if wrong:
        raise ConnectionFileError(f"the connection file {path} has no valid port for {', '.join(wrong)}", hint)
    transport = values.get("transport", "tcp")
    if transport not in ("tcp", "ipc"):
        raise ConnectionFileError(f"the connection file {path} asks for transport '{transport}'", "use tcp or ipc")
    return ConnectionFile(transport, str(values.get("ip") or "127.0.0.1"), ports, values)


def runtime_folder() -> str:
    """Return Jupyter's runtime folder, as jupyter_core finds it (which takes 40 ms to import), and make it, 0700."""
    path = os.environ.get("JUPYTER_RUNTIME_DIR", "")
    if not path:
        home = os.path.expanduser("~")
        data = os.environ.get("JUPYTER_DATA_DIR", "")
        if not data and sys.platform == "darwin":
            data = os.path.join(home, "Library", "Jupyter")
        elif not data:
            data = os.path.join(os.environ.get("XDG_DATA_HOME", "") or os.path.join(home, ".local", "share"), "jupyter")
        path = os.path.join(data, "runtime")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path
