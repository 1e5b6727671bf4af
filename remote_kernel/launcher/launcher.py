"""Run the process that a front end starts and takes for the kernel, for one kernel's whole life.

1. Read the connection file, listen on its five ports, start ssh. Front ends connect at once and wait. With
   --on-start a folder is pushed before that (see on_start).
2. Send the agent and the start parameters through ssh's stdin, and right behind them the Link's frames: what a
   front end has sent so far reaches the kernel without a further round trip; so does its greeting (see greeting).
3. Skip what the remote shell printed up to our marker; from there on stdout carries the Link's frames.
4. Every connection on a port is a stream. SIGINT and other signals become control messages, SIGTERM and SIGHUP
   a `bye`, which ends the kernel unless it is kept.
5. When the connection is lost, keep the front end's sockets open and try to attach to the agent again (see reconnect).
6. When the kernel has ended, hand on its last bytes and exit with its status.

Speaks through stderr, whose last line is one sentence when a start fails, and through a log file. Imports
neither typer nor paramiko nor jupyter_client: they would double a kernel's start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from remote_kernel import bootstrap
from remote_kernel.errors import (
    KernelDied,
    KernelGone,
    KernelNotInstalled,
    RemoteKernelError,
    TransportError,
)
from remote_kernel.handshake import malformed
from remote_kernel.jupyter.connection_file import ConnectionFile, read_connection_file
from remote_kernel.launcher import agent_messages
from remote_kernel.launcher.forward import Ports
from remote_kernel.launcher.front_end import has_lost_its_front_end, listen, with_spec_env
from remote_kernel.launcher.greeting import EarlyGreeting
from remote_kernel.launcher.log import Log, OutputSink
from remote_kernel.launcher.on_start import OnStartPush
from remote_kernel.launcher.orphans import OrphanNote, watch_orphans
from remote_kernel.launcher.reconnect import ANSWER_SECONDS, Reconnector
from remote_kernel.launcher.shutdown import ControlSocket, ShutdownFilter
from remote_kernel.launcher.state_file import LauncherState, write_state
from remote_kernel.link.link import CONTROL, STDERR, STDOUT, Link, MessageSink, send_message
from remote_kernel.link.reactor import Reactor, SocketSink, Timer
from remote_kernel.link.sockets import serve
from remote_kernel.options import LaunchOptions, parse_launch
from remote_kernel.transport import notes
from remote_kernel.typed_json import MALFORMED

BYE_SECONDS = 5.0  # for the agent to end the kernel
HEARD_SECONDS = 2.0  # for the agent to have heard of it: jupyter_client kills 2.5 s after SIGTERM
DRAIN_SECONDS = 3.0  # without one byte moving, until a front end that does not read is left alone
WATCHER_SECONDS = 2.0  # most lost connections are back by then
ORPHANS_SECONDS = 1.0  # the start goes first, and leaves a connection to share
SLOW_SECONDS = 30.0  # of the 60 that front ends wait for a kernel
IDLE_SECONDS = 2.0  # from the kernel's first word: what it is started with goes first
PARENT_SECONDS = 1.0  # between looks at whether the front end still lives
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


def main(
    arguments: Sequence[str], kind: Callable[[Reactor, LaunchOptions, ConnectionFile, Log], Launcher] | None = None
) -> int:
    """Run one kernel and give the exit status: the kernel's own, 128 + N for signal N, or an error's.

    A kept kernel whose front end has left gives 0. `kind` makes a launcher that does it in another way.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here to the loop there is nothing yet to interrupt
    log = Log()
    try:
        options = with_spec_env(parse_launch(arguments), arguments)
        connection = read_connection_file(options.connection_file)
        log.open(os.path.basename(options.connection_file).removesuffix(".json"))
        with Reactor() as reactor, contextlib.ExitStack() as undo:
            relay = None
            if connection.is_encrypted and not options.resume:
                from remote_kernel.launcher.relay import PrivateRelay  # which needs pyzmq, 40 ms of import

                relay = undo.enter_context(PrivateRelay(connection, log.info))
            launcher = (kind or Launcher)(reactor, options, relay.back if relay else connection, log)
            if relay:
                launcher.on_listening = relay.start
            return launcher.run()
    except RemoteKernelError as error:
        log.warning(str(error))
        return error.exit_status
    finally:
        log.close()


class Launcher:
    """One kernel's life on this machine; see the module's text."""

    def __init__(self, reactor: Reactor, options: LaunchOptions, connection: ConnectionFile, log: Log) -> None:
        self._reactor, self._options, self._connection, self._log = reactor, options, connection, log
        self._identity = options.resume or os.urandom(6).hex()
        self._link_id = os.urandom(8).hex()
        self._listeners: dict[str, socket.socket] = {}
        self.on_listening: Callable[[], None] = lambda: None
        self._link = Link()
        self._control = self._link.streams[CONTROL]
        self._control.sink = MessageSink(self._control, self._message_arrived)
        for number in (STDOUT, STDERR):
            OutputSink(self._link.streams[number], log)
        self._sockets: set[SocketSink] = set()
        self._forwarded = Ports(reactor)
        self._note = OrphanNote(options, self._identity)
        self._may_greet_early = True
        self._reconnector = Reconnector(reactor, self._link, log, options, self)
        self._push = OnStartPush(reactor, log, options, self._pushed)
        self._leaving = False
        self._filter = ShutdownFilter(reactor, self._send_bye)
        self._filter.kept = options.keep
        self._slow = Timer(0.0, lambda: None)
        self._ended: agent_messages.KernelEnded | None = None
        self._error: RemoteKernelError | None = None
        self._status = 0

    def run(self) -> int:
        """Serve until the kernel has ended. Raises the error that kept it from starting."""
        self._reactor.on_signal(signal.SIGINT, lambda: self._filter.interrupt(lambda: self._signal(signal.SIGINT)))
        for number in _PASSED_ON:
            self._reactor.on_signal(number, lambda n=int(number): self._signal(n))  # type: ignore[misc]
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._reactor.on_signal(number, self._send_bye)
        if has_lost_its_front_end():
            self._log.info("the front end was gone before the kernel was started")
            return 128 + signal.SIGTERM
        if os.getppid() != 1:  # else somebody has set it free on purpose
            self._watch_parent(os.getppid())
        self._listeners = listen(self._connection)
        try:
            self.on_listening()
            notes.raise_recent_refusal(self._options)
            self._log.info(f"connecting to {self._options.endpoint}")
            self.begin(ANSWER_SECONDS)
            for channel, listener in self._listeners.items():
                serve(self._reactor, listener, partial(self._accepted, channel))
            for forward in self._options.forward:
                self._forwarded.listen_when_free(forward, lambda: self._link, self._log.warning)
            self._reconnector.watch_clock()
            self._reactor.call_later(ORPHANS_SECONDS, watch_orphans)
            self._reactor.run()
        finally:
            self._clean_up()
        if self._error:
            raise self._error
        self._log.keep = self._status != 0 and not self._leaving
        return self._status

    # -- the connection

    def begin(self, seconds: float) -> None:
        """Start a kernel. An attempt that failed may have left one there, which soon ends: this is another."""
        if self._push.is_wanted:
            self._push.start(seconds)
            return
        self._identity, self._link_id = os.urandom(6).hex(), os.urandom(8).hex()
        self._note = OrphanNote(self._options, self._identity)
        settings = bootstrap.start_settings(self._options, self._identity, self._link_id, self._connection.values)
        self._reconnector.attempt("start", settings, seconds)

    def _pushed(self, error: RemoteKernelError | None) -> None:
        """Start the kernel, or end with why the folder of --on-start is not there. Called by the OnStartPush."""
        if isinstance(error, TransportError):
            self._reconnector.start_failed(error, wanted=not self._leaving)
        elif error:
            self.stop(error)
        else:
            try:
                self.begin(ANSWER_SECONDS)
            except TransportError as failure:
                self.stop(failure)

    def attach(self, seconds: float) -> None:
        """Attach to the kernel after the connection was lost. Called by the Reconnector."""
        self._reconnector.attempt("attach", self._attach_settings(), seconds)

    def _attach_settings(self, *, resume: bool | str = False) -> dict[str, object]:
        folder = bootstrap.remote_folder()
        settings = {"id": self._identity, "link": self._link_id, "folder": folder, "resume": resume}
        return {**settings, "host": self._note.host}

    def connected(self) -> None:
        """Record that the agent answers. Called by the Attempt."""
        was_lost = self._reconnector.connected()
        if was_lost and not self._leaving:
            self._note.connection_back()
        elif not was_lost and not self._filter.kept:
            self._note.write()

    def disconnected(self, error: RemoteKernelError, *, was_connected: bool, silent: bool) -> None:
        """Handle the end of the SSH session. Called by the Attempt."""
        if self._error:
            self._reactor.stop()
        elif self._ended and (self._leaving or isinstance(error, KernelGone)):
            self._finish()
        elif was_connected:
            if not self._filter.kept:
                self._reactor.call_later(WATCHER_SECONDS, self._watch_in_outage)
            self._reconnector.lost(error, silent=silent)
        elif self._reconnector.lost_at:
            self._reconnector.attach_failed(error)
        else:
            self._reconnector.start_failed(error, wanted=not self._leaving)

    def _watch_in_outage(self) -> None:
        if self._reconnector.lost_at and not self._filter.kept:
            self._note.connection_lost()

    def stop(self, error: RemoteKernelError) -> None:
        """End with this error, unless there was one before. Called by the Reconnector too."""
        self._error = self._error or error
        self._reactor.stop()

    # -- the front end

    def _accepted(self, channel: str, connection: socket.socket) -> None:
        if self._link.is_full:
            connection.close()
            return
        stream = self._link.open(channel)
        if channel == "control":
            sink: SocketSink = ControlSocket(
                self._reactor, stream, connection, self._sockets.discard, self._filter, self._connection.values
            )
        else:
            sink = SocketSink(self._reactor, stream, connection, self._sockets.discard)
        self._sockets.add(sink)
        if self._may_greet_early:
            EarlyGreeting(stream, connection, self._stop_early_greetings)

    def _stop_early_greetings(self) -> None:
        self._may_greet_early = False
        self._log.info("the kernel speaks an old ZMTP: front ends get no head start at their greeting")

    def _signal(self, number: int) -> None:
        self._send("signal", number=number)

    def _watch_parent(self, parent: int) -> None:
        """End with the front end, as a local ipykernel does: nobody else would tell us that it was killed."""
        if os.getppid() == parent:
            self._reactor.call_later(PARENT_SECONDS, lambda: self._watch_parent(parent))
        else:
            self._send_bye()

    def _send(self, do: str, **fields: object) -> None:
        send_message(self._control, dict(fields, do=do))

    def _send_bye(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        self._filter.forget()
        self._log.info("the front end closes the kernel")
        if self._ended:
            self._finish()
            return
        if self._reconnector.waits_to_start or self._push.runs:  # there is no kernel that could be told
            self._leave(128 + signal.SIGTERM)
            return
        self._send("bye", restart=self._filter.restarts)
        if not self._filter.spares:  # nobody is to go on with it
            write_state(LauncherState(connected=not self._reconnector.lost_at))
        self._reconnector.try_now()
        self._reactor.call_later(HEARD_SECONDS, self._leave_unheard)
        self._reactor.call_later(BYE_SECONDS, lambda: self._leave(128 + signal.SIGTERM))

    def _leave_unheard(self) -> None:
        if len(self._control.spool):
            self._leave(128 + signal.SIGTERM)

    # -- the agent

    def _message_arrived(self, message: dict[str, Any]) -> None:
        try:
            self._handle_message(message)
        except MALFORMED:
            self.stop(malformed(self._options))

    def _handle_message(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "started":
            self._started(agent_messages.started(message))
        elif event == "ready":
            self._slow.cancel()
            self._log.info(f"kernel ready after {agent_messages.ready(message).seconds:.2f} s")
            self._reactor.call_later(IDLE_SECONDS, self._load_the_rest)
        elif event == "kept":
            self._filter.kept = True
            self._note.remove()
        elif event == "parted":
            self._log.info(f"the kernel is kept; 'remote_kernel resume {self._identity}' attaches to it")
            self._leave(0)
        elif event in ("overflow", "discarded"):
            self._log.warning(agent_messages.loss(message, self._options.spool_bytes))
        elif event == "failed":
            self._send("done")
            self.stop(agent_messages.failed(message))
        elif event == "ended" and self._ended is None:
            self._ended = agent_messages.ended(message)
            self._reactor.before_wait.append(self._finish_if_drained)
            self._finish_when_still(self._link.moved)

    def _started(self, found: agent_messages.KernelStarted) -> None:
        self._note.host = found.host
        if not self._filter.kept:
            self._note.write()
        self._log.info(f"kernel process {found.pid} on {found.host}, folder {found.folder}")
        if found.warning:
            self._log.warning(found.warning)
        if self._options.init:
            self._slow = self._reactor.call_later(SLOW_SECONDS, self._warn_of_init)

    def _load_the_rest(self) -> None:
        """Load what a lost connection and the end will need: an upgrade of this package may remove it meanwhile."""
        with contextlib.suppress(AssertionError, ImportError, OSError):  # it is gone already
            from remote_kernel.jupyter import signing  # noqa: F401

            bootstrap.read_ahead("attach")

    def _warn_of_init(self) -> None:
        what = f"--init '{self._options.init}', or the login shell there, may wait for something"
        self._log.warning(f"the kernel is not ready after {SLOW_SECONDS:.0f} s; {what}")

    def _finish_if_drained(self, _: float) -> float:
        """Finish once the front end has the kernel's last bytes."""
        assert self._ended
        stdout_end, stderr_end = self._ended.output_ends
        streams = self._link.streams
        logged = streams[STDOUT].received >= stdout_end and streams[STDERR].received >= stderr_end
        if logged and not self._sockets:
            self._finish()
        return float("inf")

    def _finish_when_still(self, moved: int) -> None:
        """Finish once nothing has got through for DRAIN_SECONDS of an unbroken connection."""

        def look() -> None:
            if self._reconnector.lost_at or self._link.moved != moved:
                self._finish_when_still(self._link.moved)
            else:
                self._finish()

        self._reactor.call_later(DRAIN_SECONDS, look)

    def _finish(self) -> None:
        assert self._ended
        self._send("done")
        status, peak, is_oom = self._ended.status, self._ended.peak_bytes, self._ended.out_of_memory
        write_state(LauncherState(connected=True, peak_bytes=peak, out_of_memory=is_oom))
        if status == -signal.SIGKILL and is_oom:
            used = f"it used up to {peak / 1e6:,.0f} MB"
            self._log.warning(f"the kernel was killed, probably because its host ran out of memory; {used}")
        if not self._ended.ready and not self._leaving:
            self.stop(self._died(status, self._ended.stderr))
            return
        if self._ended.why and not self._leaving:
            self._log.warning(f"the kernel was ended: {self._ended.why}")
        self._leave(128 - status if status < 0 else status)

    def _died(self, status: int, stderr: str) -> RemoteKernelError:
        """Return the error for a kernel that ended before its sockets were up."""
        endpoint, python = self._options.endpoint, self._options.remote_python()
        last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
        if "No module named ipykernel" in last or "No module named 'ipykernel'" in last:
            from remote_kernel import advice

            found = last.partition(":")[0]  # what runs there by that name
            if advice.is_system_path(found):
                hint = f"see which interpreters there have it: {advice.discover_command(self._options)}"
            else:
                hint = f"install it with: {advice.install_command(self._options, python)}"
            return KernelNotInstalled(f"'{python}' on {endpoint} has no ipykernel", hint)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return KernelDied(
            f"the kernel on {endpoint} {how} before it was ready{': ' + last if last else ''}",
            f"see {self._log.path}" if self._log.path else "",
        )

    # -- the end

    def _leave(self, status: int) -> None:
        self._status = status
        self._reactor.stop()

    def _clean_up(self) -> None:
        watch_orphans()
        self._push.close()
        self._forwarded.close()
        for listener in self._listeners.values():
            if listener.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):  # the front end may have removed it
                    os.unlink(listener.getsockname())
            listener.close()
        self._reconnector.close()
        if not self._reconnector.was_connected:
            return
        unheard = self._leaving and not self._ended and not self._error and len(self._control.spool) > 0
        if unheard:
            notes.write_outage(self._options)
        if unheard and not self._filter.spares:
            self._note.hand_over(restart=self._filter.restarts)
        else:
            self._note.remove()
