"""`remote_kernel login` and `logout`: answer what a server asks once, so that kernels need no one to ask."""

from __future__ import annotations

import getpass
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from remote_kernel.cli.edge import note, say
from remote_kernel.cli.settings import WAY_THERE, GivenSettings, TargetArgument, takes
from remote_kernel.errors import UsageError
from remote_kernel.kept.running import hosts_to_ask
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug, way_of
from remote_kernel.options import LaunchOptions, parse_duration
from remote_kernel.terminal_safe import terminal_safe
from remote_kernel.transport import login as transport_login
from remote_kernel.transport.ssh_messages import Person

LOGIN_EXAMPLES = """\b
Examples:
  remote_kernel login gpu1
  remote_kernel login me@gpu1:2222 -J me@gate
  remote_kernel login gpu1 --status
"""
LOGOUT_EXAMPLES = """\b
Example:
  remote_kernel logout gpu1
"""


@takes(*WAY_THERE)
def login(
    host: TargetArgument,
    given: GivenSettings,
    persist: Annotated[
        str,
        typer.Option(
            "--for", metavar="TIME", help="How long the connection stays open after its last use, e.g. 90m, 3d."
        ),
    ] = "12h",
    show: Annotated[
        bool,
        typer.Option(
            "--status", help="Only show what kernels can use, a connection or stored secrets; exit status 1 if nothing."
        ),
    ] = False,
) -> int:
    """Log in to a host, and answer in the terminal what it asks.

    Passwords, passphrases, second factors, and whether an unknown host key is correct. Kernels cannot prompt, so they
    use what you did here. With ssh, the connection stays open, and kernels share it. Without ssh (--transport paramiko)
    no connection is shared; passwords and passphrases can be kept in the system's keyring.

    Without a terminal nothing is asked: if the server asks something, that is an error.
    """
    persist_seconds = parse_duration(persist)
    if not 0 < persist_seconds <= 30 * 86400:
        raise UsageError(f"a connection cannot wait for '{persist}'", "give --for a time of up to 30d")
    found = 0
    for way in _ways(host, given):
        if show:
            status = transport_login.status(way)
            say(f"{way.endpoint}: {status.text}")
            found += status.is_there
            continue
        with perhaps_a_slug(host), person_here() as person:
            said = transport_login.log_in(way, person, persist_seconds)
        say(f"logged in to {way.endpoint}: {said}")
    return 1 if show and not found else 0


@takes(*WAY_THERE)
def logout(
    host: TargetArgument,
    given: GivenSettings,
) -> None:
    """Undo what 'login' has left for kernels.

    Closes the connection that kernels share, and removes this host's secrets from the keyring. Running kernels lose the
    connection and keep running; they reconnect at the next login, or by themselves if the server asks nothing.
    """
    for way in _ways(host, given):
        said = transport_login.log_out(way)
        say(f"{way.endpoint}: {said or 'there was nothing to undo'}")


def _ways(host: str, given: GivenSettings) -> list[LaunchOptions]:
    """Return the ways to log in on: those of the kernelspecs of that name, or the one that the options say."""
    if given.any():
        return [given.applied_to(way_of(find_target(host, other_way=True).options))]
    unique = {way._replace(python=""): None for way in hosts_to_ask([host])}
    return list(unique)


class TerminalPerson:
    """A person at this terminal. Questions and what there is to know go to stderr."""

    def ask(self, prompt: str, *, echo: bool) -> str:
        """Show a prompt and return the answer."""
        if not echo:
            return getpass.getpass(terminal_safe(prompt))
        typer.echo(terminal_safe(prompt), nl=False, err=True)
        return self._line()

    def confirm(self, facts: str, question: str) -> bool:
        """Show facts and a question; true only for a whole `yes`."""
        if facts:
            self.show(facts)
        while True:
            typer.echo(terminal_safe(question), nl=False, err=True)
            answer = self._line().strip().lower()
            if answer in ("yes", "no", ""):
                return answer == "yes"
            self.show("Please write yes or no.")

    def is_being_asked(self) -> bool:
        """True if somebody is asking for a secret at the terminal now: its echo is off."""
        return not termios.tcgetattr(sys.stdin.fileno())[3] & termios.ECHO

    def show(self, text: str, *, end: str = "\n") -> None:
        """Show something, without what could steer the terminal: it may come from a server that nobody trusts yet."""
        note(text, end=end)

    def _line(self) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


@contextmanager
def person_here() -> Iterator[Person | None]:
    """Return the person at the terminal, None where there is none; put the terminal back as it was.

    A password is asked for in another thread than the one that Ctrl-C ends, with the echo off.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty() and _has_terminal()):
        yield None
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield TerminalPerson()
    except EOFError:
        raise UsageError("the terminal is gone", "log in again") from None
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
