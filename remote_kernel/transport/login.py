"""Log in with a person at a terminal, so that kernels, which have nobody to ask, need no one.

Over openssh the connection that this opens is the one that kernels share; over paramiko nothing can be shared, and
what was typed may be kept in the system's keyring. A host key that is unknown is shown and asked about by the
transport itself; one that has changed is asked about here, for both.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from remote_kernel.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    RemoteKernelError,
    TransportError,
    UsageError,
)
from remote_kernel.options import LaunchOptions, print_duration
from remote_kernel.transport import choice, known_hosts, masters, notes, openssh
from remote_kernel.transport.carrier import NOISE_LIMIT, PipeText
from remote_kernel.transport.ssh_config import effective_config, environment, uses_openssh
from remote_kernel.transport.ssh_errors import explain, explained, flooded
from remote_kernel.transport.ssh_messages import NO_SESSION_STATUS, Person, SshFailure

PERSIST_SECONDS = 12 * 3600.0  # a day's work; ssh counts from the last use

_LONGEST_LINE = 4096
_OFFENDING = re.compile(r"^Offending (?:\S+ )?key in (.+):(\d+)\r?$", re.MULTILINE)
# After a wrong password ssh says so on stderr and asks again on the terminal, often before its words can be shown here,
# and nothing tells which is first. So a question is shown behind them, where the cursor stays. ssh begins its prompt
# with a carriage return: if that comes later, it covers this, which is shorter than any "USER@HOST's password: ".
_REFUSED = "Permission denied, please try again."
_ASKS_AGAIN = "Try again: "


def log_in(options: LaunchOptions, person: Person | None, persist_seconds: float = PERSIST_SECONDS) -> str:
    """Log in, and return in one sentence what kernels have of it. Without a person nothing is asked.

    Kernels that a refused login keeps waiting try again then. Raises TransportError's kinds.
    """
    while True:  # each turn removes an old host key: there may be one for each hop
        try:
            said = _log_in_once(options, person, persist_seconds)
            break
        except SshFailure as failure:
            error = explain(options, str(failure), 255, b"")
            is_agreed = (
                person is not None
                and isinstance(error, HostKeyChanged)
                and _remove_old_key(str(failure), error.message, person)
            )
            if not is_agreed:
                raise (_without_login_advice(options, error) if person else error) from None
    notes.clear_refusals(options)
    return said


def _without_login_advice(options: LaunchOptions, error: RemoteKernelError) -> RemoteKernelError:
    """Return the error without the advice to log in: that is what the person has just tried."""
    hints = {
        AuthenticationFailed: "check the user name and what you typed; who runs the server knows how it lets you in",
        HostKeyUnknown: "ask who runs the server for its fingerprint, and log in again",
        HostKeyChanged: "the old key stays on record; ask who runs the server whether it has a new one",
    }
    asks_nobody = "StrictHostKeyChecking" in error.hint  # the configuration lets nobody be asked
    for kind, hint in hints.items():
        if isinstance(error, kind) and options.login_command() in error.hint and not asks_nobody:
            return kind(error.message, hint)
    return error


class LoginStatus(NamedTuple):
    """What a login has left for kernels, and one sentence about it."""

    is_there: bool
    text: str


def status(options: LaunchOptions) -> LoginStatus:
    """Return what a kernel's start will find. Connects to nowhere."""
    if uses_openssh(options):
        pid = masters.master_pid(options)
        held = f"logged in: ssh, process {pid}, holds the connection that kernels share"
        return LoginStatus(bool(pid), held if pid else "not logged in")
    with explained(options):
        names = choice.secrets_in_keyring(options)
    return LoginStatus(bool(names), f"in the keyring: {', '.join(names)}" if names else "nothing in the keyring")


def log_out(options: LaunchOptions) -> str:
    """Undo `log_in`, and return what is gone; empty when there was nothing.

    Raises UsageError where the user's own configuration shares the connection: their other sessions are on it.
    """
    if uses_openssh(options):
        pids = masters.end_masters(options)
        if not pids and masters.config_shares(effective_config(options)):
            raise UsageError(
                "the shared connection is that of your ssh config (ControlPath)",
                f"end it with: {masters.end_command(options)}",
            )
        held = f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"
        return f"ended ssh, {held}, and the connection that kernels shared" if pids else ""
    with explained(options):
        names = choice.secrets_in_keyring(options, remove=True)
    return f"removed from the keyring: {', '.join(names)}" if names else ""


def _log_in_once(options: LaunchOptions, person: Person | None, persist_seconds: float) -> str:
    if uses_openssh(options):
        return _log_in_by_ssh(options, person, persist_seconds)
    return choice.log_in_without_openssh(options, person)


def _log_in_by_ssh(options: LaunchOptions, person: Person | None, persist_seconds: float) -> str:
    if pid := masters.master_pid(options):
        return f"ssh, process {pid}, holds the connection that kernels share already"
    argv = openssh.login_argv(options, persist_seconds, asks=person is not None)
    status, stderr, stdout = _run_at_terminal(argv, person)
    if status < 0:
        raise flooded(options, stdout or stderr.encode())
    if status == 255:
        raise SshFailure(choice.complete_stderr(options, stderr))
    if status == NO_SESSION_STATUS:
        raise explain(options, stderr, status, stdout)
    pid = masters.master_pid(options)
    if not pid:
        raise TransportError(
            f"{options.endpoint} lets you in, but ssh keeps no connection that kernels could share",
            "see what your ssh config says of ControlMaster and ControlPath",
        )
    long = f" for {print_duration(persist_seconds)} after its last use"
    own = masters.config_shares(effective_config(options))
    return f"ssh, process {pid}, keeps the connection for kernels{'' if own else long}"


def _run_at_terminal(argv: list[str], person: Person | None) -> tuple[int, str, bytes]:
    """Run ssh, which asks at the terminal by itself, and show what it says.

    Returns its exit status, what it said, and what the login shell printed, or the end of each. One that prints
    without end is killed.
    """
    said: deque[str] = deque(maxlen=1000)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        bufsize=0,  # what is left in the background may hold stderr, and a buffer is not closed while it is read
    ) as process:
        assert process.stdout

        def listen() -> None:
            assert process.stderr
            count = 0
            with suppress(OSError, ValueError):  # closed
                while (raw := process.stderr.readline(_LONGEST_LINE)) and count < NOISE_LIMIT:
                    line = raw.decode("utf-8", "replace")
                    count += len(raw)
                    said.append(line)
                    if person and line.strip() == _REFUSED:
                        behind_a_prompt = "\n" if person.is_being_asked() else ""
                        person.show(f"{behind_a_prompt}{_REFUSED}\n{_ASKS_AGAIN}", end="")
                    elif person:
                        person.show(line.rstrip())
                if raw:
                    process.kill()

        printed = PipeText(process, process.stdout)
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        status = process.wait()
        listener.join(2.0)
        return status, "".join(said), printed.text().encode()


def _remove_old_key(stderr: str, message: str, person: Person) -> bool:
    """Remove the old host key if the person knows why it has changed; True if it is gone."""
    found = _OFFENDING.search(stderr)
    if not found:
        return False
    file, line = found[1], int(found[2])
    try:
        old = known_hosts.read_line(file, line)
    except (OSError, ValueError):
        return False
    facts = (
        f"{message[:1].upper()}{message[1:]}.\n"
        "If nobody has reinstalled the server, somebody may be between you and it: ask who runs it.\n"
        f"The old key is in {file}, line {line}."
    )
    if not person.confirm(facts, "Remove the old key, and look at the new one? (yes/no) "):
        return False
    try:
        known_hosts.remove_line(file, line, old)
    except (OSError, ValueError) as error:
        raise TransportError(f"cannot change {file}: {error}", "have that line removed, then log in again") from error
    return True
