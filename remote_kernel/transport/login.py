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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from remote_kernel.transport import choice, known_hosts, notes, openssh
from remote_kernel.transport.carrier import NOISE_LIMIT, PipeText
from remote_kernel.transport.paramiko.failure import Failure
from remote_kernel.transport.person import Person
from remote_kernel.transport.ssh_errors import NO_SESSION, explain, flooded

PERSIST_SECONDS = 12 * 3600.0  # a day's work; ssh counts from the last use

_LONGEST_LINE = 4096
_OFFENDING = re.compile(r"^Offending (?:\S+ )?key in (.+):(\d+)\r?$", re.MULTILINE)
# After a wrong password ssh says so on stderr and asks again on the terminal, often before its words can be shown here,
# and nothing tells which is first. So a question is shown behind them, where the cursor stays. ssh begins its prompt
# with a carriage return: if that comes later, it covers this, which is shorter than any "USER@HOST's password: ".
_REFUSED = "Permission denied, please try again."
_ASKS_AGAIN = "Try again: "


def log_in(options: LaunchOptions, person: Person | None, persist_seconds: float = PERSIST_SECONDS) -> str:
    """Log in and say, in one sentence, what kernels have of it. Without a person nothing is asked.

    Kernels that a refused login keeps waiting try again then. Raises TransportError's kinds.
    """
    while True:  # each turn takes an old host key off the record: there may be one for each hop
        try:
            said = _enter(options, person, persist_seconds)
            break
        except Failure as failure:
            error = explain(options, str(failure), 255, b"")
            is_agreed = (
                person is not None
                and isinstance(error, HostKeyChanged)
                and _forgets_old_key(str(failure), error.message, person)
            )
            if not is_agreed:
                raise (_told_in_person(options, error) if person else error) from None
    notes.clear(options)
    return said


def _told_in_person(options: LaunchOptions, error: RemoteKernelError) -> RemoteKernelError:
    """Give the error without the advice to log in: that is what the person has just tried."""
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


class Status(NamedTuple):
    """What a login has left for kernels, and one sentence about it."""

    is_there: bool
    text: str


def status(options: LaunchOptions) -> Status:
    """Give what a kernel's start will find. Connects to nowhere."""
    if choice.name(options) == "openssh":
        pid = openssh.master_pid(options)
        held = f"logged in: ssh, process {pid}, holds the connection that kernels share"
        return Status(bool(pid), held if pid else "not logged in")
    from remote_kernel.transport.paramiko import entry  # paramiko takes 0.2 s to import

    with _told(options):
        names = entry.stored(options)
    return Status(bool(names), f"in the keyring: {', '.join(names)}" if names else "nothing in the keyring")


def log_out(options: LaunchOptions) -> str:
    """Undo `log_in`, and say what is gone; empty when there was nothing.

    Raises UsageError where the user's own configuration shares the connection: their other sessions are on it.
    """
    if choice.name(options) == "openssh":
        pids = openssh.end_masters(options)
        if not pids and openssh.shares_already(openssh.effective_config(options)):
            raise UsageError(
                "the shared connection is that of your ssh config (ControlPath)",
                f"end it with: {openssh.end_own_command(options)}",
            )
        held = f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"
        return f"ended ssh, {held}, and the connection that kernels shared" if pids else ""
    from remote_kernel.transport.paramiko import entry

    with _told(options):
        names = entry.forget(options)
    return f"removed from the keyring: {', '.join(names)}" if names else ""


@contextmanager
def _told(options: LaunchOptions) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        raise explain(options, str(failure), 255, b"") from None


def _enter(options: LaunchOptions, person: Person | None, persist_seconds: float) -> str:
    if choice.name(options) == "openssh":
        return _enter_with_ssh(options, person, persist_seconds)
    from remote_kernel.transport.paramiko import entry

    return entry.log_in(options, person)


def _enter_with_ssh(options: LaunchOptions, person: Person | None, persist_seconds: float) -> str:
    if pid := openssh.master_pid(options):
        return f"ssh, process {pid}, holds the connection that kernels share already"
    argv = openssh.login_argv(options, persist_seconds, asks=person is not None)
    status, stderr, stdout = _attended(argv, person)
    if status < 0:
        raise flooded(options, stdout or stderr.encode())
    if status == 255:
        raise Failure(choice.in_full(options, stderr))
    if status == NO_SESSION:
        raise explain(options, stderr, status, stdout)
    pid = openssh.master_pid(options)
    if not pid:
        raise TransportError(
            f"{options.endpoint} lets you in, but ssh keeps no connection that kernels could share",
            "see what your ssh config says of ControlMaster and ControlPath",
        )
    long = f" for {print_duration(persist_seconds)} after its last use"
    own = openssh.shares_already(openssh.effective_config(options))
    return f"ssh, process {pid}, keeps the connection for kernels{'' if own else long}"


def _attended(argv: list[str], person: Person | None) -> tuple[int, str, bytes]:
    """Run ssh, which asks at the terminal by itself, and show what it says.

    Return its exit status, what it said, and what the login shell printed; the end of each where that is long. One that
    prints without end is killed.
    """
    said: deque[str] = deque(maxlen=1000)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=openssh.environment(),
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
                        behind_a_prompt = "\n" if person.is_asked() else ""
                        person.hears(f"{behind_a_prompt}{_REFUSED}\n{_ASKS_AGAIN}", end="")
                    elif person:
                        person.hears(line.rstrip())
                if raw:
                    process.kill()

        printed = PipeText(process, process.stdout)
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        status = process.wait()
        listener.join(2.0)
        return status, "".join(said), printed.text().encode()


def _forgets_old_key(stderr: str, message: str, person: Person) -> bool:
    """Take the old host key off the record if the person knows why it has changed; tell whether it is gone."""
    found = _OFFENDING.search(stderr)
    if not found:
        return False
    file, line = found[1], int(found[2])
    try:
        old = known_hosts.line_at(file, line)
    except (OSError, ValueError):
        return False
    facts = (
        f"{message[:1].upper()}{message[1:]}.\n"
        "If nobody has reinstalled the server, somebody may be between you and it: ask who runs it.\n"
        f"The old key is in {file}, line {line}."
    )
    if not person.confirms(facts, "Remove the old key, and look at the new one? (yes/no) "):
        return False
    try:
        known_hosts.forget(file, line, old)
    except (OSError, ValueError) as error:
        raise TransportError(f"cannot change {file}: {error}", "have that line removed, then log in again") from error
    return True
