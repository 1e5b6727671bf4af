"""Push a folder to where the kernel works before it starts, for `--on-start`.

The kernel does not start when that fails: it would run what was there before, and nobody would see that from its
results. So the front end shows what is wrong at once, with the command that leaves the push out.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from remote_kernel.errors import ConnectTimeout, PushFailed, RemoteKernelError, SyncError, by_name
from remote_kernel.launcher.log import Log
from remote_kernel.link.reactor import READ, Reactor, Timer
from remote_kernel.options import LaunchOptions
from remote_kernel.terminal_safe import ByteStream
from remote_kernel.transport.ssh_config import to_paste

LONG_SECONDS = 5.0  # after which a person is told what it is that takes so long
_END_SECONDS = 2.0
_PROGRAM = "remote_kernel.sync.on_start"
_WITHOUT = "start without it: remote_kernel edit KERNELSPEC --on-start ''"


def missing(folder: str) -> PushFailed:
    """Return the error for a folder that is not here, or no longer."""
    message = f"there is no folder '{folder}' here, which is to be pushed before the kernel starts"
    return PushFailed(message, f"make it, or {_WITHOUT}")


class OnStartPush:
    """The push of one start. `done` is called once for each `start`, with the error if there is one."""

    def __init__(
        self,
        reactor: Reactor,
        log: Log,
        options: LaunchOptions,
        done: Callable[[RemoteKernelError | None], None],
    ) -> None:
        self._reactor, self._log, self._options, self._done = reactor, log, options, done
        self._process: subprocess.Popen[bytes] | None = None
        self._timers: list[Timer] = []
        self._rest = b""
        self._text = ByteStream()
        self._plan: dict[str, Any] = {}
        self._moved: dict[str, Any] = {"files": 0}
        self.is_wanted = bool(options.on_start)

    @property
    def runs(self) -> bool:
        """True if the push is under way."""
        return self._process is not None

    def start(self, seconds: float) -> None:
        """Begin; the host has `seconds` to answer. Raises PushFailed where there is no such folder or process here."""
        folder = self._options.on_start
        if not os.path.isdir(folder):
            raise missing(folder)
        way = self._options._replace(env=(), init="", kernel="", forward=())  # what it need not know
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM, *way.to_arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it ends with its stdin, and takes its ssh along: a killed group would not
                cwd="/",  # in the notebook's folder, Python would look for modules
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PushFailed(
                f"cannot push '{folder}': {reason}",
                "look at this machine's load, and try again",
            ) from error
        assert self._process.stdout
        self._log.info(f"pushing '{folder}' to {self._options.endpoint}")
        self._reactor.watch(self._process.stdout.fileno(), READ, self._read)
        self._timers = [
            self._reactor.call_later(seconds, lambda: self._no_answer(seconds)),
            self._reactor.call_later(LONG_SECONDS, self._warn_of_delay),
        ]

    def close(self) -> None:
        """End it, in whatever state it is. Idempotent."""
        process, self._process = self._process, None
        for timer in self._timers:
            timer.cancel()
        if not process:
            return
        assert process.stdin and process.stdout
        self._reactor.watch(process.stdout.fileno(), 0, self._read)
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)

    def _read(self, _: int) -> None:
        assert self._process and self._process.stdout
        data = os.read(self._process.stdout.fileno(), 64 << 10)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._process:
                self._handle_line(line)
        if not data and self._process:
            self._finish(PushFailed(f"the push of '{self._options.on_start}' was ended", "start the kernel again"))

    def _handle_line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            event = message["event"]
        except (ValueError, TypeError, KeyError):
            self._log.write(self._text.feed(line + b"\n"))  # a bug's traceback
            return
        if event == "planned":
            self._timers[0].cancel()
            self._plan = message
        elif event == "moved":
            self._moved = message
        elif event == "done":
            self._log.info(f"pushed {message['files']} files, {message['unchanged']} were there")
            self.is_wanted = False
            self._finish(None)
        else:
            self._finish(self._failure(str(message["error"]), str(message["message"]), str(message["hint"])))

    def _finish(self, error: RemoteKernelError | None) -> None:
        self.close()
        self._done(error)

    def _failure(self, name: str, message: str, hint: str) -> RemoteKernelError:
        """Return the error to end with: of files it is one kind, of the way there the one that a start ends with."""
        found = by_name(name, message, hint)
        if not isinstance(found, SyncError):
            return found
        what = f"cannot push '{self._options.on_start}' to {self._options.endpoint} before the kernel starts"
        return PushFailed(f"{what}: {found}", f"or {_WITHOUT}")

    def _no_answer(self, seconds: float) -> None:
        endpoint = self._options.endpoint
        hint = f"see how long this takes, and whether it asks something: {to_paste(self._options)}"
        self._finish(ConnectTimeout(f"{endpoint} does not answer within {seconds:.0f} s", hint))

    def _warn_of_delay(self) -> None:
        total, size = self._plan.get("files", 0), self._plan.get("bytes", 0) / 1e6
        self._log.warning(
            f"still pushing '{self._options.on_start}' before the kernel starts: {self._moved['files']} of {total} "
            f"files, {size:.0f} MB; what has arrived stays, should the front end give up"
        )
