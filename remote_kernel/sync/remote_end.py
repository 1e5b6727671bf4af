"""Start the remote end of a sync over whatever transport leads there, and tell why it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from remote_kernel import bootstrap
from remote_kernel.errors import (
    ConnectionLost,
    ProtocolMismatch,
    RemoteError,
    RemoteKernelError,
    by_name,
)
from remote_kernel.handshake import Handshake, explain_end, no_answer, parse_answer, raise_reported, wait_for_answer
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.wire import Broken, MessageWire, SyncFailure, Violation
from remote_kernel.transport import choice, masters, notes
from remote_kernel.transport.carrier import PipedProcess, enlarge_pipe

GREETING_SECONDS = 60.0  # a slow login shell, or a second try of a jump host
_END_SECONDS = 5.0

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
        self._process = process = PipedProcess(argv, choice.environment(self._options), new_session=True)
        for pipe in (process.stdin, process.stdout):
            enlarge_pipe(pipe.fileno())
        self._start(process.stdout.fileno(), process.stdin.fileno())
        return self

    def _start(self, fd_in: int, fd_out: int) -> None:
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not issubclass(kind, Exception):  # Ctrl-C, or the end of a launcher: nobody waits for more
            self._process.terminate()
        with self._process:
            self._process.stdout.close()
            self._process.wait(_END_SECONDS)

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
        status, said = self._process.end(_END_SECONDS)
        if self._process.is_flood:
            return self._flooded(said)
        if self._is_late:
            return no_answer(self._options, GREETING_SECONDS)
        return explain_end(self._options, said.strip(), status, noise)

    def _flooded(self, said: str) -> RemoteKernelError:
        from remote_kernel.transport.ssh_errors import flooded  # only here: few connections end so

        return flooded(self._options, said.strip().encode())


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
        self._process.send(bootstrap.FIRST_LINE)

    def greet(self, begin: Callable[[], None] = lambda: None) -> None:
        """Wait until the remote end runs. Raises TransportError's kinds, PythonNotFound, RemoteShellNoise.

        `begin` writes what it is to read first, and need not wait for it to run: that saves a round trip. It must not
        wait for what it does with that either, which may take longer than a greeting.
        """

        def send() -> None:
            self._process.send(self._program)
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
        raise_reported(self._options, parse_answer(self._options, handshake.answer))
        notes.clear_refusals(self._options)

    def converse(self, words: Callable[[], Told]) -> Told:
        """Return what a conversation gives. Raises ConnectionLost, ProtocolMismatch, and what the other end tells."""
        try:
            return words()
        except (Broken, SyncFailure) as error:
            raise self.why(error) from error

    def check(self) -> None:
        """Raise ConnectionLost if the carrier has ended."""
        if not self._process.is_running:
            raise self.why(Broken())

    def why(self, error: Broken | SyncFailure) -> RemoteKernelError:
        """Return the error to tell the user for one that the conversation ended with."""
        if isinstance(error, SyncFailure):
            return by_name(error.name, error.message, error.hint)
        if isinstance(error, Violation):
            return refused(self._options, error)
        if self._process.is_flood:
            return self._flooded(self._process.end(_END_SECONDS)[1])
        told = self._last_words()
        if told:
            return by_name(told.name, told.message, told.hint)
        status, said = self._process.end(_END_SECONDS)
        if status not in (0, 255, None) and said.strip():
            return RemoteError(
                f"the remote end of the sync on {self._options.endpoint} failed: {said.strip().splitlines()[-1]}",
                "the same command continues from here",
            )
        return self._lost()

    def _last_words(self) -> SyncFailure | None:
        """Return why the other end gave up, which may wait behind what was not read. Nothing more is sent."""
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
