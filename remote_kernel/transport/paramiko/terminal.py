"""Lend this terminal to a remote command: its size, its kind, and every key as it is typed, Ctrl-C among them."""

from __future__ import annotations

import os
import signal
import termios
import threading
import tty

import paramiko

_before: list[list[object]] = []  # the terminal's settings, for as long as they are changed


def lend(channel: paramiko.Channel) -> None:
    """Give a session the terminal that is on stdin; called before its command runs. See `put_back`."""
    size = os.get_terminal_size(0)
    channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
    changed = threading.Event()
    signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=_follow, args=(channel, changed), daemon=True).start()
    _before.append(termios.tcgetattr(0))
    tty.setraw(0)


def put_back() -> None:
    """Put the terminal back as it was. Idempotent."""
    while _before:
        termios.tcsetattr(0, termios.TCSADRAIN, _before.pop())  # type: ignore[arg-type]


def _follow(channel: paramiko.Channel, changed: threading.Event) -> None:
    """Tell the session of each change of size. In a thread: a signal's handler may not wait for the connection."""
    while True:
        changed.wait()
        changed.clear()
        size = os.get_terminal_size(0)
        try:
            channel.resize_pty(size.columns, size.lines)
        except (paramiko.SSHException, OSError):
            return
