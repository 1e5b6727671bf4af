"""Run the program that carries our bytes to the remote host, out of reach of what front ends kill.

jupyter_client signals the launcher's process group; VS Code walks down from the launcher by parent pid and
signals every descendant first. A multiplexing ssh dies of both, even where a plain one would ignore them, so
the carrier gets a session of its own and is orphaned at birth: a shell starts it in the background and ends.
Being nobody's child here, it reports its exit status through a pipe.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

# A background process's stdin is /dev/null but for the detour over descriptor 4. dash has no `>&12`, hence /dev/fd.
_ORPHAN = 'exec 4<&0 3>/dev/fd/{status}; {{ "$@" <&4 4<&- 3>&-; printf %s "$?" >&3; }} &'
NOISE_LIMIT = 4 << 20  # of what a login shell and ssh print: nobody reads more, and some print for ever
KEPT_BYTES = 64 << 10
_END_SECONDS = 2.0
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on, on Linux
_PIPE_BYTES = 1 << 20
_SHELL_SECONDS = 60.0  # it ends at once; longer than a machine that is out of memory stands still


class Carrier:
    """A running carrier: descriptors of its stdin, stdout, stderr and exit status, owned by whoever holds this.

    `stdin` and `stdout` may be handed over to a Pipe; set them to -1 then.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `argv`. Raises OSError where nothing can be started; a missing program gives status 127."""
        pipes: list[tuple[int, int]] = []
        try:
            for _ in range(4):
                pipes.append(os.pipe())
        except OSError:
            for fd in (fd for pipe in pipes for fd in pipe):
                os.close(fd)
            raise
        (child_in, self.stdin), (self.stdout, child_out), (self.stderr, child_err), (self._status, child_status) = pipes
        try:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _ORPHAN.format(status=child_status), "remote_kernel", *argv],
                stdin=child_in,
                stdout=child_out,
                stderr=child_err,
                pass_fds=(child_status,),
                start_new_session=True,
                env=environment,
            )
        except OSError:
            self.close()
            raise
        finally:
            for fd in (child_in, child_out, child_err, child_status):
                os.close(fd)
        self._group = shell.pid  # the carrier's process group outlives the shell that made it
        try:
            shell.wait(_SHELL_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.kill()
            self.close()
            raise TimeoutError(
                errno.ETIMEDOUT, f"the shell that starts it goes on after {_SHELL_SECONDS:.0f} s"
            ) from error

    def status(self, timeout_seconds: float) -> int | None:
        """Wait for the exit status: call it at the end of `stdout`. None when the carrier was killed or lives on."""
        if self._status < 0 or not select.select([self._status], [], [], timeout_seconds)[0]:
            return None
        text = os.read(self._status, 16)
        os.close(self._status)
        self._status = -1
        return int(text) if text else None

    def kill(self) -> None:
        """End the carrier and its helpers (a jump host's ssh among them). Idempotent."""
        try:
            os.killpg(self._group, signal.SIGTERM)
        except OSError:
            pass

    def close(self) -> None:
        """Close the descriptors that are still held here; the carrier ends by itself at the end of its input."""
        for fd in (self.stdin, self.stdout, self.stderr, self._status):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = self._status = -1


class PipeText:
    """Read what a process prints in a thread, to its end, and keep the last of it. A process that floods is killed."""

    def __init__(self, process: subprocess.Popen[bytes], stream: IO[bytes]) -> None:
        """`stream` is the process's stdout or stderr, without a buffer: one cannot be closed while it is read."""
        assert isinstance(stream, io.FileIO)
        self._process, self._stream = process, stream
        self._text = b""
        self.is_flood = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        count = 0
        with suppress(OSError, ValueError):  # closed, while a shared connection in the background holds the other end
            while data := self._stream.read(KEPT_BYTES):
                self._text = (self._text + data)[-KEPT_BYTES:]
                count += len(data)
                if count > NOISE_LIMIT and not self.is_flood:
                    self.is_flood = True
                    self._process.kill()

    def close(self) -> None:
        """Read no more. Idempotent."""
        self._stream.close()

    def text(self) -> str:
        """Return it, once the process has ended. A shared connection in the background may hold it open longer."""
        self._thread.join(_END_SECONDS)
        return self._text.decode("utf-8", "replace")


class PipedProcess:
    """A carrier to talk to, for one `with` block: leaving that ends it. Its stderr is read in a thread meanwhile."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], *, new_session: bool = False) -> None:
        """Start `argv`, out of reach of Ctrl-C if it has a `new_session`. Raises OSError."""
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0, start_new_session=new_session
        )
        assert process.stdin and process.stdout and process.stderr
        self.stdin, self.stdout = process.stdin, process.stdout
        self._errors = PipeText(process, process.stderr)

    def __enter__(self) -> PipedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self.stdin, self.stdout):
            stream.close()
        self._process.wait()
        self._errors.close()

    @property
    def is_flood(self) -> bool:
        """True if it was killed because it printed without end on stderr."""
        return self._errors.is_flood

    def send(self, data: bytes) -> None:
        """Write to its stdin. If nobody reads that any more, the end of `stdout` tells why."""
        with suppress(OSError):
            self.stdin.write(data)

    @property
    def is_running(self) -> bool:
        """True if it has not ended."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to end. Idempotent."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once. Idempotent."""
        self._process.kill()

    def wait(self, seconds: float) -> int | None:
        """Close its stdin and wait for its end; return its status, None where it was killed, as after `seconds`."""
        self.stdin.close()
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status if status >= 0 else None

    def end(self, seconds: float) -> tuple[int | None, str]:
        """Return what `wait` does, and the end of what it printed on stderr."""
        return self.wait(seconds), self._errors.text()


def enlarge_pipe(fd: int) -> None:
    """Enlarge a pipe beyond 64 KiB where the system can: half as many turns, uploads up to 1.4 times as fast."""
    with suppress(OSError):  # no pipe, or more than this user may have
        fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE_BYTES)
