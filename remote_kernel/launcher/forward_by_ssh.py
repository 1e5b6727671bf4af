"""Forward ports by SSH's own means, for hosts without the Python that the other end of a Link needs.

ssh does so with -L, and paramiko with sshtunnel's forwarder. A server may forbid it (AllowTcpForwarding no), which is
why a Link is preferred.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from remote_kernel.errors import ConnectionLost, PortInUse, RemoteKernelError, TransportError
from remote_kernel.launcher.reconnect import backoff
from remote_kernel.options import Forward, LaunchOptions
from remote_kernel.transport import choice, openssh
from remote_kernel.transport.ssh_config import uses_openssh
from remote_kernel.transport.ssh_errors import explain, explained


def forward_by_ssh(
    options: LaunchOptions,
    forwards: Sequence[Forward],
    arrived: Callable[[], None],
    lost: Callable[[RemoteKernelError], None],
) -> None:
    """Forward until an exception, such as one that a signal raises, ends it.

    `arrived` is called each time all ports are open, and `lost` when the connection has broken, which is then made
    again. Raises PortInUse, and TransportError's kinds if there was no way from the start.
    """
    attempts, has_arrived = 0, False

    def tell() -> None:
        nonlocal attempts, has_arrived
        attempts, has_arrived = 0, True
        arrived()

    once = _over_openssh if uses_openssh(options) else _over_paramiko
    while True:
        try:
            once(options, forwards, tell)
        except TransportError as error:
            if not has_arrived:
                raise
            if not attempts:
                lost(error)
        attempts += 1
        time.sleep(backoff(attempts))


def _over_paramiko(options: LaunchOptions, forwards: Sequence[Forward], arrived: Callable[[], None]) -> None:
    with explained(options):
        choice.forward_without_openssh(options, forwards, arrived)


def _over_openssh(options: LaunchOptions, forwards: Sequence[Forward], arrived: Callable[[], None]) -> None:
    pairs = [(forward.local, forward.remote) for forward in forwards]
    process = subprocess.Popen(
        openssh.forward_argv(options, pairs),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=choice.environment(options),
        encoding="utf-8",
        errors="replace",
    )
    assert process.stderr
    waiting, said = len(forwards), ""
    try:
        with process.stderr as lines:
            for line in lines:
                if "[port listener]" in line:  # "Local forwarding listening on" comes ahead of bind and listen
                    waiting -= 1
                    if not waiting:
                        arrived()
                elif not line.startswith("debug1: "):
                    said += line
        status = process.wait()
    finally:
        process.terminate()
        process.wait()
    for forward in forwards:
        if f":{forward.local}: Address already in use" in said:
            message = f"port {forward.local} of this machine is in use"
            raise PortInUse(message, "choose another, for example 16006:6006")
    if waiting:
        raise explain(options, said, status, b"")
    raise ConnectionLost(f"the connection to {options.endpoint} broke", "try again")
