"""See what becomes of a kernel that does not say so itself: its process ends, or nobody listens any longer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from remote_kernel.errors import ConnectionFileError
from remote_kernel.jupyter.connection_file import read_connection_file
from remote_kernel.session.host.kernel import KernelProcess

_GONE_SECONDS = 10.0  # for a kernel that somebody has restarted to listen again
_LOOK_SECONDS = 0.5
_LAST_OUTPUT_SECONDS = 0.3


async def see_end(process: KernelProcess, memory_bytes: Callable[[], int]) -> str:
    """Wait until the process has ended, kill whatever of its group outlives it, and say how it ended, for people."""
    status = await process.ended()
    await asyncio.sleep(_LAST_OUTPUT_SECONDS)
    process.signal(signal.SIGKILL)
    return process.describe_end(status, memory_bytes())


async def comes_back(connection_file: str) -> bool:
    """Wait for a kernel that has let go of its sockets to listen again; false when it does not."""
    deadline = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < deadline:
        if await listens(connection_file):
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


async def listens(connection_file: str) -> bool:
    """Tell whether somebody listens where the kernel of this connection file did."""
    try:
        connection = read_connection_file(connection_file)
    except ConnectionFileError:  # it went with its kernel
        return False
    try:
        if connection.transport == "ipc":
            path = f"{connection.ip}-{connection.ports['shell']}"
            _, writer = await asyncio.open_unix_connection(path)
        else:
            _, writer = await asyncio.open_connection(connection.ip, connection.ports["shell"])
    except OSError:
        return False
    writer.close()
    return True
