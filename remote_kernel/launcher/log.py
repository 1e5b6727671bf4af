"""Keep a kernel's words: on stderr as far as someone reads it, and in a 0600 file in Jupyter's runtime folder."""

from __future__ import annotations

import contextlib
import os
import select
import time

from remote_kernel.jupyter.connection_file import runtime_folder
from remote_kernel.link.link import LinkStream, Sink
from remote_kernel.terminal_safe import ByteStream, terminal_safe

LOG_LIMIT = 32 << 20
LOGS_KEPT = 20


class Log:
    """The launcher's stderr and log file. Nothing that goes wrong with either stops a kernel."""

    def __init__(self) -> None:
        self.path = ""
        self.keep = True  # whether `close` leaves the file
        self._fd = -1
        self._size = 0

    def open(self, name: str) -> None:
        """Start the file `remote_kernel-NAME.log`, and remove all but the newest of such files."""
        try:
            folder = runtime_folder()
            _prune(folder)
            self.path = os.path.join(folder, f"remote_kernel-{name}.log")
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            self.warning(f"no log file: {error}")

    def info(self, text: str) -> None:
        """Write a line of ours to the file only."""
        self._append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} remote_kernel: {terminal_safe(text)}\n".encode())

    def warning(self, text: str) -> None:
        """Write a line of ours to stderr and the file."""
        self.write(f"remote_kernel: {terminal_safe(text)}\n")

    def write(self, text: str) -> None:
        """Write terminal-safe text to stderr and the file: stderr may be the terminal that Jupyter runs in.

        A front end that does not read its kernel's stderr does not stop us.
        """
        data = text.encode()
        self._append(data)
        for start in range(0, len(data), 4096):  # a pipe that polls writable takes 4096 bytes without waiting
            try:
                if not select.select([], [2], [], 0)[1]:
                    return
                os.write(2, data[start : start + 4096])
            except (OSError, ValueError):
                return

    def _append(self, data: bytes) -> None:
        if self._fd < 0 or self._size > LOG_LIMIT:
            return
        try:
            self._size += os.write(self._fd, data)
            if self._size > LOG_LIMIT:
                os.write(self._fd, b"\n[remote_kernel: the log ends here, it is full]\n")
        except OSError:
            pass

    def close(self) -> None:
        """Close the file; remove it when the kernel ended as it should. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if not self.keep:
                with contextlib.suppress(OSError):  # one of many later launchers may have removed it
                    os.unlink(self.path)


class OutputSink(Sink):
    """Pass the kernel's own stdout or stderr to the log."""

    def __init__(self, stream: LinkStream, log: Log) -> None:
        self._stream, self._log = stream, log
        self._text = ByteStream()
        stream.sink = self

    def deliver(self, data: memoryview) -> None:
        """Log it."""
        self._log.write(self._text.feed(bytes(data)))
        self._stream.consume(len(data))


def _prune(folder: str) -> None:
    """Remove all but the newest logs. Other launchers may be doing the same."""
    logs = []
    for entry in os.scandir(folder):
        if entry.name.startswith("remote_kernel-") and entry.name.endswith(".log"):
            with contextlib.suppress(OSError):
                logs.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(logs)[:-LOGS_KEPT]:
        with contextlib.suppress(OSError):
            os.unlink(path)
