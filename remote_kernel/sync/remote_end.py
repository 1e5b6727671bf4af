"""Start the remote end of a sync over whatever transport leads there, and tell why it ended."""

from __future__ import annotations

import fcntl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from remote_kernel import bootstrap
from remote_kernel.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ProtocolMismatch,
    RemoteError,
    RemoteKernelError,
    by_name,
)
from remote_kernel.handshake import Handshake, no_answer, parse_answer, raise_reported, wait_for_answer
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.wire import Broken, MessageWire, SyncFailure, Violation
from remote_kernel.transport import choice, masters, notes
from remote_kernel.transport.carrier import PipeText

GREETING_SECONDS = 60.0  # a slow login shell, or a second try of a jump host
_END_SECONDS = 5.0
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on, on Linux
_PIPE_BYTES = 1 << 20

Process = TypeVar("Process", bound="RemoteProcess")
Told = TypeVar("Told")


class RemoteProcess:
    """The process that carries the bytes of a remote end, for one `with` block. Leaving that ends it, in any state."""

    def __init__(self, options: LaunchOptions) -> None:
        self._options = options
        self._is_late = False

    def _argv(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self: Process) -> Process:
        """Start it, without waiting for the connection. Raises SshNotFound, SshConfigError, UsageError."""
        self._command = argv = self._argv()
        self._master = masters.master_of(argv)
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=choice.environment(self._options),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us to deal with
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe.fileno())
        self._errors = PipeText(self._process, self._process.stderr)
        self._start(self._process.stdout.fileno(), self._process.stdin.fileno())
        return self

    def _start(self, fd_in: int, fd_out: int) -> None:
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        if kind and not issubclass(kind, Exception):  # Ctrl-C, or the end of a launcher: nobody waits for more
            self._process.terminate()
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def stop(self) -> None:
        """End the connection: whoever waits for it hears that it broke."""
        self._process.terminate()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """End the process unless the block is done within GREETING_SECONDS."""
        timer = threading.Timer(GREETING_SECONDS, self._give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _lost(self) -> RemoteKernelError:
        """Return the error for a connection that broke in the middle."""
        masters.end_master(self._master or masters.master_of(self._command))
        return ConnectionLost(
            f"the connection to {self._options.endpoint} broke", "the same command continues from here"
        )

    def _give_up(self) -> None:
        self._is_late = True
        self._process.terminate()

    def _no_greeting(self, noise: bytes) -> RemoteKernelError:
        status, said = self._ended()
        from remote_kernel.transport.ssh_errors import explain, flooded  # only here: ssh is to start as early as it can

        if self._errors.is_flood:
            return flooded(self._options, said.encode())
        if self._is_late:
            return no_answer(self._options, GREETING_SECONDS)
        found = explain(self._options, choice.complete_stderr(self._options, said), status, noise)
        if isinstance(found, AuthenticationFailed):
            notes.write_refused_login(self._options, found)
        return found

    def _ended(self) -> tuple[int | None, str]:
        """Return its exit status and what it printed, once it has ended."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            status: int | None = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            status = None
        return status if status is None or status >= 0 else None, self._errors.text().strip()


class RemoteEnd(RemoteProcess):
    """The remote end, run by the Python there; `wire` leads to it. Starting does not wait for it: `greet` does."""

    def __init__(self, options: LaunchOptions, mode: str, settings: Mapping[str, object]) -> None:
        """Make the program; `mode` is what it does there: `send` or `receive`."""
        super().__init__(options)
        self._marker = bootstrap.new_marker()
        self._program = bootstrap.program(self._marker, mode, settings)

    def _argv(self) -> list[str]:
        python = self._options.remote_python()
        command = bootstrap.remote_command(python, len(self._program), self._marker, bootstrap.FOR_FILES)
        return choice.carrier_argv(self._options, command)

    def _start(self, fd_in: int, fd_out: int) -> None:
        self.wire = MessageWire(fd_in, fd_out)
        self._send(bootstrap.FIRST_LINE)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin
        with suppress(OSError):  # greet() tells why
            self._process.stdin.write(data)

    def greet(self, begin: Callable[[], None] = lambda: None) -> None:
        """Wait until the remote end runs. Raises TransportError's kinds, PythonNotFound, RemoteShellNoise.

        `begin` writes what it is to read first, and need not wait for it to run: that saves a round trip. It must not
        wait for what it does with that either, which may take longer than a greeting.
        """
        assert self._process.stdout

        def send() -> None:
            self._send(self._program)
            with suppress(Broken):  # why, is read below
                begin()

        handshake = Handshake(self._options, self._marker)
        try:
            with self._patience():  # for `begin`: who waits for the answer watches no clock meanwhile
                rest = wait_for_answer(self._options, self._process.stdout.fileno(), handshake, send, GREETING_SECONDS)
        except RemoteKernelError:
            self._process.kill()
            raise
        if handshake.answer is None:
            raise self._no_greeting(handshake.end())
        self.wire.put_back(rest)
        raise_reported(parse_answer(self._options, handshake.answer))
        notes.clear_refusals(self._options)

    def converse(self, words: Callable[[], Told]) -> Told:
        """Return what a conversation gives. Raises ConnectionLost, ProtocolMismatch, and what the other end tells."""
        try:
            return words()
        except (Broken, SyncFailure) as error:
            raise self.why(error) from error

    def check(self) -> None:
        """Raise ConnectionLost if the carrier has ended."""
        if self._process.poll() is not None:
            raise self.why(Broken())

    def why(self, error: Broken | SyncFailure) -> RemoteKernelError:
        """Return the error to tell the user for one that the conversation ended with."""
        if isinstance(error, SyncFailure):
            return by_name(error.name, error.message, error.hint)
        if isinstance(error, Violation):
            return refused(self._options, error)
        if self._errors.is_flood:
            from remote_kernel.transport.ssh_errors import flooded  # only here: few connections end so

            return flooded(self._options, self._ended()[1].encode())
        told = self._last_words()
        if told:
            return by_name(told.name, told.message, told.hint)
        status, said = self._ended()
        if status not in (0, 255, None) and said:
            return RemoteError(
                f"the remote end of the sync on {self._options.endpoint} failed: {said.splitlines()[-1]}",
                "the same command continues from here",
            )
        return self._lost()

    def _last_words(self) -> SyncFailure | None:
        """Return why the other end gave up, which may wait behind what was not read. Nothing more is sent."""
        assert self._process.stdin
        self._process.stdin.close()
        timer = threading.Timer(_END_SECONDS, self._process.kill)
        timer.start()
        try:
            while True:
                self.wire.read()
        except SyncFailure as told:
            return told
        except Broken:
            return None
        finally:
            timer.cancel()


def refused(options: LaunchOptions, error: Violation) -> RemoteKernelError:
    """Return the error for another end that said what is not believed. It is not tried again."""
    return ProtocolMismatch(
        f"the remote end of the sync on {options.endpoint} sent {error}, which was refused",
        "see whether that host and its Python are what you take them for; else this is a bug of remote_kernel",
    )


def _widen(fd: int) -> None:
    """Make a pipe hold more, where the system knows how: fewer changes between processes for large files."""
    try:
        fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE_BYTES)
    except OSError:
        pass
