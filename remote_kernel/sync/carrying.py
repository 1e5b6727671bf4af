"""Start the remote end of a sync over whatever transport leads there, and tell why it ended."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping

from remote_kernel import bootstrap
from remote_kernel.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectTimeout,
    RemoteError,
    RemoteKernelError,
    by_name,
)
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.wire import Broken, SyncFailure, Wire
from remote_kernel.transport import breaker, choice, openssh
from remote_kernel.transport.openssh import to_paste
from remote_kernel.transport.verdict import explain

GREETING_SECONDS = 60.0  # a slow login shell, or a second try of a jump host
_END_SECONDS = 5.0
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on, on Linux
_PIPE_BYTES = 1 << 20


class FarEnd:
    """The remote end, for one `with` block; `wire` leads to it. Leaving the block ends it, in whatever state it is.

    Starting does not wait for the connection: `greet` does.
    """

    def __init__(self, options: LaunchOptions, settings: Mapping[str, object]) -> None:
        self._options = options
        self._marker = f"remote_kernel-{os.urandom(8).hex()}"
        self._program = bootstrap.program(self._marker, "sync", settings)
        self._is_greeted = False
        self._is_late = False

    def __enter__(self) -> FarEnd:
        """Start the carrier. Raises SshNotFound, SshConfigError, UsageError."""
        command = bootstrap.remote_command(self._options.remote_python(), len(self._program))
        argv = choice.carrier_argv(self._options, command)
        self._mark = choice.master_mark(self._options)
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=choice.environment(self._options),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us to deal with
        )
        assert self._process.stdin and self._process.stdout
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe.fileno())
        self.wire = Wire(self._process.stdout.fileno(), self._process.stdin.fileno())
        try:
            self._process.stdin.write(self._program)
        except OSError:
            pass  # greet() tells why
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def greet(self) -> None:
        """Wait until the remote end runs. Raises TransportError's kinds, PythonNotFound, RemoteShellNoise."""
        timer = threading.Timer(GREETING_SECONDS, self._give_up)
        timer.start()
        try:
            _, greeting = self.wire.skip_to(self._marker.encode())
        except Broken as error:
            raise self._no_greeting(error.args[0] if error.args else b"") from error
        finally:
            timer.cancel()
        if "error" in greeting:
            raise by_name(greeting["error"], greeting["message"], greeting["hint"])
        breaker.clear(self._options)
        self._is_greeted = True

    def check(self) -> None:
        """Raise ConnectionLost if the carrier has ended."""
        if self._process.poll() is not None:
            raise self.why(Broken())

    def why(self, error: Broken | SyncFailure) -> RemoteKernelError:
        """Give the error to tell the user for one that the conversation ended with."""
        if isinstance(error, SyncFailure):
            return by_name(error.name, error.message, error.hint)
        try:
            while True:  # its last words may wait behind what we did not read
                self.wire.read()
        except SyncFailure as told:
            return by_name(told.name, told.message, told.hint)
        except Broken:
            pass
        status, said = self._ended()
        if status not in (0, 255, None) and said:
            return RemoteError(
                f"the remote end of the sync on {self._options.endpoint} failed: {said.splitlines()[-1]}",
                "the same command goes on from here",
            )
        self._forget_master()
        return ConnectionLost(f"the connection to {self._options.endpoint} broke", "the same command goes on from here")

    def _forget_master(self) -> None:
        if choice.name(self._options) == "openssh":
            openssh.end_master(self._options, self._mark or choice.master_mark(self._options))

    def _give_up(self) -> None:
        self._is_late = True
        self._process.terminate()

    def _no_greeting(self, noise: bytes) -> RemoteKernelError:
        status, said = self._ended()
        if self._is_late:
            return ConnectTimeout(
                f"{self._options.endpoint} does not answer within {GREETING_SECONDS:.0f} s",
                f"see how long this takes, and whether it asks something: {to_paste(self._options)}",
            )
        found = explain(self._options, choice.in_full(self._options, said), status, noise)
        if isinstance(found, AuthenticationFailed):
            breaker.trip(self._options, found)
        return found

    def _ended(self) -> tuple[int | None, str]:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            status: int | None = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            status = None
        self._stderr.seek(0)
        return status if status is None or status >= 0 else None, self._stderr.read().decode("utf-8", "replace").strip()


def _widen(fd: int) -> None:
    """Let a pipe hold more, where the system knows how: fewer changes between processes for large files."""
    try:
        fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE_BYTES)
    except OSError:
        pass
