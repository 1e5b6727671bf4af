"""Make one SSH session to the agent: start it or attach to it, and report how the session ended.

The launcher makes another attempt when the connection was lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Mapping
from typing import Protocol

from remote_kernel import bootstrap
from remote_kernel.errors import (
    ConnectionLost,
    ProtocolMismatch,
    RemoteKernelError,
    RemoteShellNoise,
    TransportError,
)
from remote_kernel.handshake import (
    QUIET_SECONDS,
    Handshake,
    SecondSession,
    malformed,
    no_answer,
    parse_answer,
    raise_reported,
    start_second_session,
)
from remote_kernel.launcher.log import Log
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import READ, Pipe, Reactor
from remote_kernel.options import LaunchOptions
from remote_kernel.terminal_safe import ByteStream
from remote_kernel.transport import choice, masters
from remote_kernel.transport.carrier import NOISE_LIMIT, Carrier
from remote_kernel.transport.ssh_errors import explain, flooded

# The reasons of a Link that was sent something else than what it takes.
_NONE_OF_OURS = re.compile("no frame of this protocol|a greeting that|a control message")
_NOISE_BYTES = 64 << 10
# Of what a login shell prints on stderr: more may leave a front end's pipe no room for an error.
_SHOWN_BYTES = 32 << 10


class AttemptEvents(Protocol):
    """What its owner does when an attempt connects or ends."""

    def connected(self) -> None:
        """Handle the agent's answer: a new one's marker, or the greeting of one that is attached to."""

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        """Handle the end of the session, once; `silent` when the other end merely stopped answering."""


class Attempt:
    """One SSH session, from the start of ssh to its end."""

    def __init__(
        self,
        reactor: Reactor,
        link: Link,
        log: Log,
        options: LaunchOptions,
        events: AttemptEvents,
    ) -> None:
        self._reactor, self._link, self._log, self._options, self._events = reactor, link, log, options, events
        self._carrier: Carrier | None = None
        self._pipe: _RemotePipe | None = None
        self._second: SecondSession | None = None
        self._stderr, self._stderr_bytes = b"", 0
        self._text = ByteStream()
        self._mode = ""
        self._argv: list[str] = []
        self._over = self._is_connected = False

    def start(self, mode: str, settings: Mapping[str, object], seconds: float, *, avoid_master: bool = False) -> None:
        """Start ssh, send the program and the Link's frames behind it. Raises TransportError's kinds.

        The agent has `seconds` to answer.
        """
        self._mode = mode
        try:
            self._start(settings, seconds, avoid_master=avoid_master)
        except OSError as error:  # no process or descriptor to spare: a kernel that runs can wait until there is
            raise TransportError(
                f"cannot start what leads to {self._options.endpoint}: {(error.strerror or str(error)).lower()}",
                "look at this machine's load, and at the limits that 'ulimit -a' shows",
            ) from error

    def _start(self, settings: Mapping[str, object], seconds: float, *, avoid_master: bool) -> None:
        marker = bootstrap.new_marker()
        program = bootstrap.program(marker, self._mode, settings)
        command = bootstrap.remote_command(self._options.remote_python(), len(program), marker)
        self._argv = choice.carrier_argv(self._options, command, avoid_master=avoid_master)
        self._carrier = Carrier(self._argv, choice.environment(self._options))
        self._handshake = Handshake(self._options, marker)
        self._pipe = _RemotePipe(self._reactor, self._link, self._carrier, program, self._handshake, self)
        self._reactor.watch(self._carrier.stderr, READ, self._read_stderr)
        self._timers = [
            self._reactor.call_later(seconds, lambda: self.fail(no_answer(self._options, seconds))),
            self._reactor.call_later(QUIET_SECONDS, self._start_second_session),
        ]
        self._pipe.begin()

    def master(self) -> masters.Master | None:
        """Return the shared connection that ssh goes over; None while there is none, and where it is not ours."""
        return masters.master_of(self._argv)

    def close(self) -> None:
        """End the session. The remote side sees the end of its input. Idempotent."""
        self._over = True
        if self._pipe and self._carrier:
            self._cancel_timers()
            has_answered = self._handshake.answer is not None
            if has_answered:
                self._pipe.flush()
            self._pipe.close()
            if not has_answered:
                self._carrier.kill()
            if self._carrier.stderr >= 0:
                self._reactor.watch(self._carrier.stderr, 0, self._read_stderr)
            self._carrier.close()

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._second and self._second.fd >= 0:
            self._reactor.watch(self._second.fd, 0, lambda _: None)
            self._second.close()

    def kill(self) -> None:
        """End the session and ssh with it: the connection is dead and ssh may not know."""
        self.close()
        if self._carrier:
            self._carrier.kill()

    def answered(self, answer: str) -> None:
        """Handle the marker and what stands behind it. Called by the pipe."""
        if answer:
            try:
                raise_reported(self._options, parse_answer(self._options, answer))
                raise malformed(self._options)
            except RemoteKernelError as error:
                self.fail(error)
        elif self._mode == "start":  # there is an agent now, whatever comes of this session
            self._set_connected()

    def greeted(self) -> None:
        """Record that the agent itself speaks. Called by the pipe."""
        if not self._is_connected:
            self._set_connected()

    def _set_connected(self) -> None:
        self._is_connected = True
        self._cancel_timers()
        self._events.connected()

    def _start_second_session(self) -> None:
        """Start a second session if this one is silent, to see why."""
        if self._handshake.is_ready:
            return
        self._second = second = start_second_session(self._options)
        if not second:
            self._timers.append(self._reactor.call_later(QUIET_SECONDS, self._start_second_session))
            return

        def read(_: int) -> None:
            if not second.read():
                return
            self._reactor.watch(second.fd, 0, read)
            error, seconds = second.diagnosis()
            if error:
                self._timers.append(self._reactor.call_later(seconds, lambda: self._give_up(error)))

        self._reactor.watch(second.fd, READ, read)

    def _give_up(self, error: RemoteKernelError) -> None:
        if not self._handshake.is_ready:
            self.fail(error)

    def fail(self, error: RemoteKernelError) -> None:
        """End with this error: whatever answers there is not our program, or not in time. Called by the pipe too."""
        self._end(error, was_connected=False)

    def ended(self, reason: str) -> None:
        """Handle the end of the session. Called by the pipe."""
        assert self._pipe
        endpoint = self._options.endpoint
        if self._handshake.answer is None:
            stderr, status = self._wait_for_end()
            if self._mode == "start":
                stderr = choice.complete_stderr(self._options, stderr)
            error = explain(self._options, stderr, status, self._handshake.end())
            self._end(error, was_connected=False)
        elif "speaks protocol" in reason:
            hint = "use the same version of remote_kernel as the one that started the kernel"
            self._end(ProtocolMismatch(reason, hint), was_connected=False)
        elif _NONE_OF_OURS.search(reason):
            # Not a lost connection: whatever writes there would write again, and each new session would break at once.
            noise = f"something else than the kernel's agent wrote to the SSH session of {endpoint} ({reason})"
            hint = "let its rc files start nothing that prints later on, in the background"
            self._end(RemoteShellNoise(noise, hint), was_connected=False)
        else:
            lost = ConnectionLost(
                f"the connection to {endpoint} was lost{': ' + reason if reason else ''}",
                "restart the kernel when the network is back",
            )
            self._end(lost, was_connected=self._is_connected, silent=reason.startswith("no sign"))

    def _end(self, error: RemoteKernelError, *, was_connected: bool, silent: bool = False) -> None:
        if not self._over:
            if silent:
                self.kill()
            else:
                self.close()
            self._events.disconnected(error, was_connected=was_connected, silent=silent)

    def _read_stderr(self, _: int) -> None:
        assert self._carrier
        data = os.read(self._carrier.stderr, 64 << 10)
        if data:
            self._stderr = (self._stderr + data)[-_NOISE_BYTES:]
            self._stderr_bytes += len(data)
            if self._stderr_bytes > NOISE_LIMIT:
                if self._handshake.answer is None:
                    self.fail(flooded(self._options, self._stderr))
                return
            is_shown = self._stderr_bytes <= _SHOWN_BYTES or self._handshake.answer is not None
            if is_shown and (self._mode != "attach" or self._is_connected):  # the launcher says once what keeps failing
                self._log.write(self._text.feed(data))
        else:
            self._reactor.watch(self._carrier.stderr, 0, self._read_stderr)
            os.close(self._carrier.stderr)
            self._carrier.stderr = -1

    def _wait_for_end(self) -> tuple[str, int | None]:
        """Wait for ssh to end, which it does when its stdout has; give its stderr and its exit status."""
        assert self._carrier
        deadline = time.monotonic() + 2.0
        while self._carrier.stderr >= 0 and time.monotonic() < deadline:
            if select.select([self._carrier.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._read_stderr(READ)
        status = self._carrier.status(max(0.1, deadline - time.monotonic()))
        return self._stderr.decode("utf-8", "replace"), status


class _RemotePipe(Pipe):
    """The Link's pipe through ssh. Nothing but the first line is sent until the interpreter there reads it."""

    def __init__(
        self, reactor: Reactor, link: Link, carrier: Carrier, program: bytes, handshake: Handshake, attempt: Attempt
    ) -> None:
        super().__init__(reactor, link, carrier.stdout, carrier.stdin, attempt.ended)
        carrier.stdin = carrier.stdout = -1
        self._program, self._handshake, self._attempt = program, handshake, attempt
        self._is_sent = False

    def begin(self) -> None:
        """Send the first line, and listen."""
        with contextlib.suppress(OSError):  # ssh has ended, as the end of its output will tell
            os.write(self.fd_out, bootstrap.FIRST_LINE)
        self._reactor.watch(self.fd_in, READ, self._readable)

    def receive(self, data: bytes) -> None:
        """Send the program once it is read, and pass on what follows the marker."""
        if self._handshake.answer is None:
            try:
                data = self._handshake.feed(data)
            except RemoteShellNoise as error:
                self._attempt.fail(error)
                return
            if self._handshake.is_ready and not self._is_sent:
                self._is_sent = True
                self.start(self._program)
            if self._handshake.answer is None:
                return
            self._attempt.answered(self._handshake.answer)
        if data and self.fd_in >= 0:
            super().receive(data)
            if self._link.greeted:
                self._attempt.greeted()
