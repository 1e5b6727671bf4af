"""Manage a session's kernel process: start it, find it again, signal it, and learn how it ended.

The kernel (for a remote one, its launcher) is the child of a small shell that leads a session of its own, survives the
host and writes the exit status down. So a host may be killed, and the next one finds a kernel that has noticed nothing,
or the file that says how it ended meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from remote_kernel.errors import ConnectionFileError
from remote_kernel.files import write_private
from remote_kernel.jupyter.connection_file import CHANNELS, read_connection_file
from remote_kernel.launcher.state_file import SUCCEEDS, read_state
from remote_kernel.launcher.state_file import VARIABLE as STATE_FILE
from remote_kernel.process import birth, is_alive
from remote_kernel.remote.kernel import oom_kills
from remote_kernel.session.paths import Paths

# The traps keep the shell alive through signals for its group; its child gets the default handling back. Should the
# shell be killed all the same, and no host be there to see it, ipykernel ends by itself: its parent is gone.
_KEEPER = """
trap : INT TERM HUP QUIT
exit_file=$1; shift
read -r _ || exit 1
JPY_PARENT_PID=$$; export JPY_PARENT_PID
"$@" < /dev/null
printf '%s %s' "$?" "$$" > "$exit_file.new" && mv "$exit_file.new" "$exit_file"
"""
_LOOK_SECONDS = 0.5
_GROUP_SECONDS = 0.3  # for what outlives the leader of its group to end by itself
_GONE_SECONDS = 10.0  # for a kernel that somebody has restarted to listen again
_LAST_WORDS_BYTES = 4096
_NOT_FOR_KERNELS = ("JPY_PARENT_PID", "JPY_SESSION_NAME", STATE_FILE, SUCCEEDS)  # of a kernel whose cell has started us


class KernelProcessGroup:
    """The process group of a session's kernel; `pid` is its leader, the shell."""

    def __init__(self, paths: Paths, pid: int, born: str, *, is_remote: bool) -> None:
        """`pid` and `born` are those of a kernel that was started before, which may have ended.

        `is_remote` is true where the process is our launcher.
        """
        self._is_remote = is_remote
        self.pid, self.born = pid, born
        self.peak_bytes = 0  # what it held at most, known when it has ended and this host has started it
        self._paths = paths
        self._child: subprocess.Popen[bytes] | None = None
        self._oom_kills = oom_kills()

    @classmethod
    def start(
        cls,
        paths: Paths,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        *,
        is_remote: bool,
        succeeds: str = "",
    ) -> KernelProcessGroup:
        """Start `argv` with its output in the kernel's log. Raises OSError where folder, log or program cannot be used.

        A launcher goes on with the kernel of one that was killed where `succeeds` is that one's LauncherState.kernel.
        Nothing runs before `go`: a host that is killed before it has written down which process it is leaves none.
        """
        for path in (paths.kernel_exit, "" if succeeds else paths.kernel_state):
            if os.path.exists(path):
                os.unlink(path)
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_KERNELS} | dict(env)
        if is_remote:  # the launcher says there whether its host is connected; a local kernel may start one for itself
            environment[STATE_FILE] = paths.kernel_state
        if succeeds:
            environment[SUCCEEDS] = succeeds
        if (os.path.isabs(argv[0]) or "/" not in argv[0]) and not shutil.which(argv[0], path=environment.get("PATH")):
            raise FileNotFoundError(errno.ENOENT, "there is no such program", argv[0])
        log = os.open(paths.kernel_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if succeeds else os.O_TRUNC), 0o600)
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "rkernel", paths.kernel_exit, *argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        process = cls(paths, child.pid, birth(child.pid), is_remote=is_remote)
        process._child = child
        return process

    def go(self) -> None:
        """Start the program itself. Called once."""
        if self._child and self._child.stdin:
            with suppress(BrokenPipeError):  # it was killed meanwhile
                self._child.stdin.write(b"\n")
                self._child.stdin.close()

    def status(self) -> int | None:
        """Return the exit status, 128 + N for signal N, or -1 where nobody knows it; None while the kernel lives."""
        try:
            with open(self._paths.kernel_exit, encoding="ascii") as file:
                status, _, pid = file.read().partition(" ")
        except FileNotFoundError:
            status = pid = ""
        if pid not in ("", str(self.pid)):  # of a kernel whose session has lost its name to this one
            status = ""
        if not status and self._is_alive():
            return None
        self._reap()
        return int(status) if status.isdigit() else -1

    def _is_alive(self) -> bool:
        if self._child:
            return not self._reap()
        return is_alive(self.pid, self.born)

    def _reap(self) -> bool:
        """True if the shell has ended; with its status comes what the kernel, which it has waited for, has used."""
        if self._child and self._child.returncode is None:
            pid, status, usage = os.wait4(self._child.pid, os.WNOHANG)
            if pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                self.peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return self._child is not None and self._child.returncode is not None

    def describe_end(self, status: int, last_look_bytes: int) -> str:
        """Return how it ended, for people; `last_look_bytes` is the memory it held at the last look, 0 if unknown."""
        self._reap()
        there = read_state(self._paths.kernel_state)  # of a remote one, whose launcher knows
        peak = there.peak_bytes if there else self.peak_bytes
        is_oom = there.out_of_memory if there else oom_kills() > self._oom_kills
        used = f"{last_look_bytes / 1e6:,.0f} MB of memory at the last look" if last_look_bytes else ""
        if peak:
            used = f"up to {peak / 1e6:,.0f} MB of memory"
        launchers_words = self.last_words() if self._is_remote else ""
        return _describe(status, used and f"; it used {used}", launchers_words, out_of_memory=is_oom)

    async def ended(self) -> int:
        """Wait until the kernel has ended, and return its status."""
        while (status := self.status()) is None:
            await self._change()
        return status

    async def clear_away(self) -> int:
        """Wait until the kernel has ended, kill whatever of its group outlives it, and return its status."""
        status = await self.ended()
        await asyncio.sleep(_GROUP_SECONDS)
        self.signal(signal.SIGKILL)
        return status

    async def _change(self) -> None:
        """Wait until the process ends, where the system can tell (Linux), else for a moment."""
        try:
            watch = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            await asyncio.sleep(_LOOK_SECONDS)
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(watch, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(watch)
            os.close(watch)

    def signal(self, number: int) -> None:
        """Signal the whole group, as Jupyter does. Nothing happens when it has ended."""
        try:
            os.killpg(self.pid, number)
        except OSError:
            pass

    async def end(self, patience_seconds: float) -> None:
        """End it: wait for what was asked of it, then SIGTERM, then SIGKILL. Idempotent."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                self.signal(number)
            try:
                await asyncio.wait_for(self.ended(), patience_seconds)
                return
            except (asyncio.TimeoutError, TimeoutError):
                continue

    def last_words(self) -> str:
        """Return the last line of the kernel's log: for a launcher that gave up, the sentence that says why."""
        try:
            with open(self._paths.kernel_log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "").removeprefix("remote_kernel: ")


def make_connection_file(paths: Paths) -> None:
    """Write a connection file (0600) with free ports of 127.0.0.1 and a new key."""
    import json

    values: dict[str, object] = {
        "transport": "tcp",
        "ip": "127.0.0.1",
        "key": os.urandom(32).hex(),
        "signature_scheme": "hmac-sha256",
        "kernel_name": paths.name,
    }
    with ExitStack() as stack:
        for channel in CHANNELS:  # all at once, so that they differ
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            values[f"{channel}_port"] = listener.getsockname()[1]
    write_private(paths.connection_file, json.dumps(values, indent=1))


def _describe(status: int, used: str, launchers_words: str, *, out_of_memory: bool) -> str:
    if status == 128 + signal.SIGKILL and out_of_memory:
        return f"was killed (signal 9), probably because the system ran out of memory{used}"
    if status == 128 + signal.SIGKILL:
        return f"was killed (signal 9), by somebody or for want of memory{used}"
    if status > 128:
        return f"ended by signal {status - 128}{used}"
    if status < 0:
        return "is gone, nobody saw how"
    if status in range(10, 60) and launchers_words:  # its own end, and not the kernel's; see errors.py
        return f"is gone: {launchers_words}"
    return f"ended by itself with exit status {status}"


async def comes_back(connection_file: str, shell_port: object) -> bool:
    """Wait for a kernel that has let go of its sockets to listen again; return False when it does not.

    At once where its connection file is gone, or names another port: whoever restarts a kernel keeps both.
    """
    deadline = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < deadline and _may_come_back(connection_file, shell_port):
        if await listens(connection_file):
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


def _may_come_back(connection_file: str, shell_port: object) -> bool:
    try:
        return read_connection_file(connection_file).ports["shell"] == shell_port
    except ConnectionFileError:  # it may be half written
        return os.path.exists(connection_file)


async def listens(connection_file: str) -> bool:
    """True if somebody listens where the kernel of this connection file did."""
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
