"""Connect to one kernel's agent again when the connection is lost, for as long as the kernel waits.

- A lost connection is tried again at once, then less and less often, at once again when the machine wakes, until the
  lease is over. The last attempt is when it ends.
- A server that refuses the login is tried minutes later, or as soon as somebody was let in: it may ban who asks often.
  One that refuses the account is tried once a minute; OpenSSH does not print its words, and is asked for them once.
- A start that fails in an outage that another launcher knows of is tried again for as long as a front end waits.
- A shared SSH connection that was there before the loss is ended before the next attempt: it may be dead and not know.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Protocol

from remote_kernel.errors import (
    AccountRefused,
    AuthenticationFailed,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    KernelGone,
    KernelParted,
    ProtocolMismatch,
    RemoteKernelError,
    TransportError,
)
from remote_kernel.launcher.attempt import Attempt, AttemptEvents
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.state_file import LauncherState, write_state
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import Reactor, Timer
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, masters, notes
from remote_kernel.transport.ssh_config import uses_openssh
from remote_kernel.transport.ssh_errors import explain

ANSWER_SECONDS = 45.0  # VS Code gives up after 60 without a word of why
ATTACH_SECONDS = 20.0
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
REFUSED_SECONDS = (60.0, 120.0, 300.0, 600.0)  # servers ban an address after a few refused logins in ten minutes
CLOCK_SECONDS = 5.0
# The connection is not back before somebody does what the error says.
_NEEDS_A_PERSON = (AccountRefused, AuthenticationFailed, HostKeyChanged, HostKeyUnknown)
# Goes on while the machine sleeps, and does not jump when somebody sets its clock (macOS: the monotonic one does so).
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def backoff(attempts: int) -> float:
    """Return the seconds until the next attempt, after so many."""
    return BACKOFF_SECONDS[min(attempts, len(BACKOFF_SECONDS) - 1)]


def scattered(seconds: float) -> float:
    """Return about as many seconds: kernels that lost one connection are not to come back all at once."""
    return seconds * random.uniform(0.75, 1.25)


class ReconnectEvents(AttemptEvents, Protocol):
    """What the launcher does when it is to connect again, or not."""

    def begin(self, seconds: float) -> None:
        """Make the attempt that starts the kernel. Raises TransportError."""

    def attach(self, seconds: float) -> None:
        """Make the attempt that attaches to it again. Raises TransportError."""

    def stop(self, error: RemoteKernelError) -> None:
        """End with this error."""


class Reconnector:
    """The connections to one agent, one attempt after another. The launcher makes the first, by `attempt`."""

    def __init__(self, reactor: Reactor, link: Link, log: Log, options: LaunchOptions, events: ReconnectEvents) -> None:
        self._reactor, self._link, self._log, self._options, self._events = reactor, link, log, options, events
        self.was_connected = False  # whether the agent has ever answered
        self.lost_at = 0.0  # in seconds since the epoch; 0.0 while it is there, and before
        self._lost_since = 0.0  # the same by _CLOCK
        self._give_up_at = time.monotonic() + ANSWER_SECONDS
        self._kernel, self._is_whole = "", False  # as LauncherState has them
        self._attempt: Attempt | None = None
        self._retry: Timer | None = None
        self._tries = self._refused = 0
        self._reason: type[RemoteKernelError] | None = None  # why the last attempt failed
        self._noted: set[type[RemoteKernelError]] = set()  # reasons that the log has, of this loss
        self._refusal: AccountRefused | None = None  # the server's words for why it ends every attempt
        self._is_asked_why = False  # since the loss
        self._master: masters.Master | None = None
        self._stale = False
        self._clock = 0.0

    @property
    def waits_to_start(self) -> bool:
        """True if there is no kernel yet, and the next attempt to start one is to come."""
        return self._retry is not None and not self.was_connected

    def attempt(self, mode: str, settings: Mapping[str, object], seconds: float) -> None:
        """Make an attempt, in which the agent has `seconds` to answer. Raises TransportError's kinds."""
        self._kernel = f"{settings['id']} {settings['link']}"
        self._attempt = Attempt(self._reactor, self._link, self._log, self._options, self._events)
        self._attempt.start(mode, settings, seconds, avoid_master=self._stale)

    def connected(self) -> bool:
        """Record that the agent answers; return whether it was lost before."""
        notes.clear_refusals(self._options)
        notes.clear_outage(self._options)
        write_state(LauncherState(connected=True, kernel=self._kernel, is_whole=self._is_whole))
        self._master = self._attempt.master() if self._attempt else None
        was_lost = self.lost_at > 0
        if was_lost:
            self._log.warning(f"connected to {self._options.endpoint} again after {self._lost_for():.1f} s")
        self.was_connected = True
        self.lost_at, self._tries, self._refused, self._stale, self._reason = 0.0, 0, 0, False, None
        self._noted.clear()
        return was_lost

    def lost(self, error: RemoteKernelError, *, silent: bool) -> None:
        """Try to connect again after a loss; `silent` as AttemptEvents.disconnected has it."""
        self.lost_at, self._lost_since = time.time(), time.clock_gettime(_CLOCK)
        self._tries, self._stale = 0, silent
        self._refusal, self._is_asked_why = None, False
        self._log.warning(f"{error.message}; the kernel keeps running; trying to reconnect")
        self._write_away(error.message)
        notes.write_outage(self._options)
        self._try_again()

    def attach_failed(self, error: RemoteKernelError) -> None:
        """Try again after an attempt to attach has failed; stop where no other can succeed."""
        if isinstance(error, (KernelGone, KernelParted, ProtocolMismatch)):
            self._kernel = "" if isinstance(error, KernelGone) else self._kernel
            self._write_away(str(error))
            self._events.stop(error)
            return
        if type(error) in (ConnectionLost, TransportError):
            self._ask_why()
            error = self._refusal or error
        else:
            self._refusal, self._is_asked_why = None, False
        self._note_once(error)
        if isinstance(error, _NEEDS_A_PERSON):
            self._write_away(str(error))
        if isinstance(error, AuthenticationFailed):
            notes.write_refused_login(self._options, error)
            self._refused += 1
        else:
            self._refused = 0
        self._stale = True
        self._try_again()

    def start_failed(self, error: RemoteKernelError, *, wanted: bool) -> None:
        """Try again after the start has failed, where it is `wanted` and an outage explains the error."""
        seconds = self._give_up_at - time.monotonic()
        if isinstance(error, AuthenticationFailed):
            notes.write_refused_login(self._options, error)
        if isinstance(error, AccountRefused):
            notes.write_refused_account(self._options, error)
        if not wanted or seconds < 1 or not notes.is_from_outage(self._options, error):
            self._events.stop(error)
            return
        self._note_once(error)
        self._stale, self._master = True, self._attempt.master() if self._attempt else None
        self._tries += 1
        self._retry = self._reactor.call_later(min(backoff(self._tries), seconds - 1), self._begin_again)

    def try_now(self) -> None:
        """Make the attempt at once that was to come later."""
        if self._retry:
            self._retry.cancel()
            self._tries = 0
            (self._attach if self.was_connected else self._begin_again)()

    def watch_clock(self) -> None:
        """Look whether the machine has slept: the wall clock then runs ahead of the monotonic one."""
        ahead = time.time() - time.monotonic()
        if self._clock and ahead - self._clock > CLOCK_SECONDS:
            self._log.info(f"the machine has slept for {ahead - self._clock:.0f} s")
            self._link.probe(time.monotonic())
            self.try_now()
        elif self._refused and not notes.is_login_refused(self._options):  # somebody was let in since
            self.try_now()
        self._clock = ahead
        self._reactor.call_later(CLOCK_SECONDS, self.watch_clock)

    def close(self) -> None:
        """End the attempt that is under way. Idempotent."""
        if self._attempt:
            self._attempt.close()

    def take_over(self, kernel: str, error: RemoteKernelError) -> None:
        """Connect in the place of a launcher that was killed. See LauncherState.kernel."""
        self.was_connected, self._kernel = True, kernel
        self.lost(error, silent=False)

    def note_whole(self) -> None:
        """Record that nothing is missing of what the kernel published while it had no launcher."""
        self._is_whole = True
        write_state(LauncherState(connected=True, kernel=self._kernel, is_whole=True))

    def _write_away(self, reason: str) -> None:
        write_state(LauncherState(connected=False, at=self.lost_at, reason=reason, kernel=self._kernel))

    def _lost_for(self) -> float:
        """Return the seconds since it was lost."""
        return time.clock_gettime(_CLOCK) - self._lost_since

    def _try_again(self) -> None:
        left = self._options.linger_seconds - self._lost_for()
        if left < 0:
            self._events.stop(
                ConnectionLost(
                    f"cannot reconnect to {self._options.endpoint} for as long as the kernel outlives its connection",
                    "it is kept: 'remote_kernel ps' shows it, and 'resume' attaches it, once the host can be reached"
                    if self._options.keep
                    else "start a new kernel; give --linger for a longer time",
                )
            )
            return
        if self._reason is AccountRefused:
            delay = REFUSED_SECONDS[0]
        elif self._refused:
            delay = REFUSED_SECONDS[min(self._refused, len(REFUSED_SECONDS)) - 1]
        else:  # a short lease must not end between two attempts
            delay = min(backoff(self._tries), self._options.linger_seconds / 8)
        # The last attempt is when the lease ends, and not a backoff later.
        self._retry = self._reactor.call_later(min(scattered(delay), left), self._attach)

    def _attach(self) -> None:
        self._retry = None
        self._tries += 1
        if self._stale:
            self._end_stale_master()
        try:
            self._events.attach(ATTACH_SECONDS)
        except TransportError as error:
            self.attach_failed(error)

    def _begin_again(self) -> None:
        self._retry = None
        self._end_stale_master()
        try:
            self._events.begin(min(ATTACH_SECONDS, max(1.0, self._give_up_at - time.monotonic())))
        except TransportError as error:
            self._events.stop(error)

    def _end_stale_master(self) -> None:
        if self._master is not None and masters.exists(self._master):
            self._log.info("ending the stale shared connection")
            masters.end_master(self._master)

    def _ask_why(self) -> None:
        """Find out whether the server refuses the account; the words for it are in `_refusal` when they are here.

        Once after each loss, and not for one failure: it is another login. Beside the reactor, for it takes seconds.
        """
        if self._is_asked_why or self._tries < 2 or not uses_openssh(self._options):  # paramiko shows the words
            return
        self._is_asked_why = True
        lost_since = self._lost_since

        def ask() -> None:
            error = explain(self._options, choice.complete_stderr(self._options, ""), 255, b"")
            if isinstance(error, AccountRefused) and self._lost_since == lost_since:  # else it is of an earlier loss
                self._refusal = error

        import threading

        threading.Thread(target=ask, daemon=True).start()

    def _note_once(self, error: RemoteKernelError) -> None:
        self._reason = type(error)
        if self._reason not in self._noted:
            self._noted.add(self._reason)
            self._log.info(f"not yet: {error}")
