"""Run as ssh does, for those who have none: `[-t] [-s] [-v] [-F FILE] [-J HOPS] [-l USER] [-p PORT] HOST COMMAND`.

The contract is ssh's: stdin and stdout are the remote command's bytes, stderr is for people, the exit status is the
command's, or 255 when there is no connection. The end of stdin is passed on and ends nothing by itself. Asks
nobody anything. A failure is told in OpenSSH's words, never with a traceback, and holds no secret.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import termios
import threading
import time
import tty
from contextlib import ExitStack

import paramiko

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import RemoteKernelError
from remote_kernel.terminal_safe import terminal_safe
from remote_kernel.transport.carrier import enlarge_pipe
from remote_kernel.transport.paramiko.config import Config, Hop
from remote_kernel.transport.paramiko.connection import PACKET_BYTES, WINDOW_BYTES, connect
from remote_kernel.transport.paramiko.host_keys import SSH_LOG
from remote_kernel.transport.ssh_messages import NOT_HONOURED, SshFailure

FAILED = 255
_CHUNK = 256 << 10
_POLL_SECONDS = 0.5
_settings_before: list[list[object]] = []  # the terminal's settings, for as long as they are changed


class Pump:
    """Carry a session's bytes, one thread for each direction, and find out when the server is gone."""

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel, hop: Hop) -> None:
        self._transport, self._channel, self._hop = transport, channel, hop
        self._heard_at = time.monotonic()
        self._silence_seconds = hop.keepalive_seconds * hop.keepalive_count
        self._asked_at = 0.0  # when the server was asked for a sign of life, 0.0 while it owes none

    def run(self) -> int:
        """Carry until the remote command has ended and all it wrote is passed on; return its exit status.

        Raises SshFailure when the connection breaks.
        """
        for fd in (0, 1):
            enlarge_pipe(fd)
        self._start(self._send)
        readers = (self._start(self._receive), self._start(self._receive_errors))
        self._start(self._keep_alive)
        while not self._channel.status_event.wait(_POLL_SECONDS) or any(reader.is_alive() for reader in readers):
            for reader in readers:
                reader.join(_POLL_SECONDS if self._channel.status_event.is_set() else 0)
            if self._asked_at and time.monotonic() - max(self._heard_at, self._asked_at) > self._silence_seconds:
                raise SshFailure(f"Timeout, server {self._hop.host} not responding.")
        if self._channel.exit_status < 0 and not self._transport.is_active():
            raise SshFailure(f"Connection to {self._hop.host} closed by remote host.")
        return self._channel.exit_status if self._channel.exit_status >= 0 else FAILED

    def _start(self, action: object) -> threading.Thread:
        thread = threading.Thread(target=action, daemon=True)  # type: ignore[arg-type]
        thread.start()
        return thread

    def _send(self) -> None:
        try:
            while data := os.read(0, _CHUNK):
                self._channel.sendall(data)
            self._channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the command no longer reads, or the connection is gone, which others notice

    def _receive(self) -> None:
        wanted = True
        while data := self._channel.recv(_CHUNK):
            self._heard_at = time.monotonic()
            wanted = wanted and _write_all(1, data)
        os.close(1)

    def _receive_errors(self) -> None:
        wanted = True
        while data := self._channel.recv_stderr(_CHUNK):
            wanted = wanted and _write_all(2, data)

    def _keep_alive(self) -> None:
        while self._transport.is_active():
            time.sleep(self._hop.keepalive_seconds)
            if time.monotonic() - self._heard_at < self._hop.keepalive_seconds:
                continue
            self._asked_at = time.monotonic()
            # paramiko's own keepalive wants no answer, and so finds nobody missing
            try:
                self._transport.global_request("keepalive@openssh.com", wait=True)
            except (paramiko.SSHException, OSError, EOFError):
                return
            self._asked_at = 0.0


def _write_all(fd: int, data: bytes) -> bool:
    """Write all of it; False when nobody reads: the command is not ended by that, as with ssh."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        return False
    return True


def _attach_terminal(channel: paramiko.Channel) -> None:
    """Connect the session to the terminal on stdin: size, kind, every key. Called before the command runs."""
    size = os.get_terminal_size(0)
    channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
    changed = threading.Event()
    signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=_follow_size, args=(channel, changed), daemon=True).start()
    _settings_before.append(termios.tcgetattr(0))
    tty.setraw(0)


def _restore_terminal() -> None:
    """Restore the terminal's settings. Idempotent."""
    while _settings_before:
        termios.tcsetattr(0, termios.TCSADRAIN, _settings_before.pop())  # type: ignore[arg-type]


def _follow_size(channel: paramiko.Channel, changed: threading.Event) -> None:
    """Send the session each change of size. In a thread: a signal's handler may not wait for the connection."""
    while True:
        changed.wait()
        changed.clear()
        size = os.get_terminal_size(0)
        try:
            channel.resize_pty(size.columns, size.lines)
        except (paramiko.SSHException, OSError):
            return


def run(arguments: list[str], undo: ExitStack) -> int:
    """Connect, run the command, carry its bytes; return its exit status. Raises SshFailure."""
    parser = argparse.ArgumentParser(prog="ssh", allow_abbrev=False)
    parser.add_argument("-t", dest="terminal", action="store_true")
    parser.add_argument("-v", dest="is_verbose", action="store_true")
    parser.add_argument("-s", dest="is_subsystem", action="store_true")
    parser.add_argument("-F", dest="config", default="")
    parser.add_argument("-J", dest="jumps", default="")
    parser.add_argument("-l", dest="user", default=None)
    parser.add_argument("-p", dest="port", type=int, default=None)
    parser.add_argument("host")
    parser.add_argument("command")
    found = parser.parse_args(arguments)
    if found.is_verbose:
        SSH_LOG.addHandler(logging.StreamHandler(sys.stderr))
        SSH_LOG.setLevel(logging.DEBUG)
    config = Config(found.config)
    jumps = parse_jumps(found.jumps) or None
    hops = config.hops(Endpoint(found.host, found.user, found.port), jumps)
    for line in config.warnings:
        print(f"warning: {NOT_HONOURED}{line}", file=sys.stderr, flush=True)
    transport = connect(hops, undo)
    try:
        channel = transport.open_session(WINDOW_BYTES, PACKET_BYTES, timeout=hops[-1].connect_seconds)
        channel.update_environment(dict(hops[-1].environment))
        if found.terminal:
            _attach_terminal(channel)
        if found.is_subsystem:
            channel.invoke_subsystem(found.command)
        else:
            channel.exec_command(found.command)
    except paramiko.ChannelException as error:
        raise SshFailure(f"Session refused by {hops[-1].host}: {error.text}") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if found.is_subsystem and transport.is_active():
            raise SshFailure("subsystem request failed on channel 0") from error
        raise SshFailure(f"Connection to {hops[-1].host} closed by remote host: {error}") from error
    return Pump(transport, channel, hops[-1]).run()


def main() -> int:
    """Run, and print on stderr what went wrong, in OpenSSH's words."""
    os.environ.pop("PYTHONSAFEPATH", None)  # it was meant for this program, not for a ProxyCommand
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.excepthook = lambda _: None  # the transport's own thread: what it meets, the session meets
    undo = ExitStack()  # never unwound: the end of the process closes all, and closing in order takes 0.1 s a hop
    try:
        try:
            status = run(sys.argv[1:], undo)
        finally:
            _restore_terminal()
    except (SshFailure, RemoteKernelError) as error:
        print(terminal_safe(str(error)), file=sys.stderr, flush=True)  # of `connect` it is the terminal
        status = FAILED
    except Exception as error:  # the last line of defence: a traceback could show a secret
        print(f"remote_kernel: the SSH client in Python failed: {type(error).__name__}", file=sys.stderr, flush=True)
        status = FAILED
    # Threads may be waiting on a pipe that nobody will ever write to.
    os._exit(status)


if __name__ == "__main__":
    main()
