"""Find the session that a command of `rkernel` means."""

from __future__ import annotations

import argparse
import os
import sys

from remote_kernel.errors import UsageError
from remote_kernel.session.client import NoSuchSession, Session
from remote_kernel.session.place import Place, session_names

VARIABLE = "RKERNEL_SESSION"


def add_session(parser: argparse.ArgumentParser) -> None:
    """Add `-s`."""
    parser.add_argument(
        "-s",
        "--session",
        metavar="NAME",
        default="",
        help="the session, e.g. 'work'; else RKERNEL_SESSION, else the only one",
    )


def find_session(name: str) -> Session:
    """Give the session of this name, else RKERNEL_SESSION's, else the only one. Raises NoSuchSession, UsageError."""
    name = name or os.environ.get(VARIABLE, "")
    if not name:
        names = session_names()
        if len(names) > 1:
            raise UsageError("there are several sessions", f"give one with -s: {', '.join(names)}")
        if not names:
            raise NoSuchSession("there is no session", "'rkernel exec -k KERNELSPEC ...' makes one")
        name = names[0]
    session = Session(name)
    if not session.place.exists():
        others = ", ".join(session_names())
        hint = f"there are: {others}" if others else "'rkernel exec -k KERNELSPEC ...' makes one"
        raise NoSuchSession(f"there is no session '{name}'", hint)
    return session


def find_or_make(name: str, kernelspec: str, log: str | None) -> Session:
    """Give the session that `exec` means, made if need be: by its name, by the kernelspec's, or the only one."""
    name = name or os.environ.get(VARIABLE, "")
    if not name and not kernelspec:
        names = session_names()
        if len(names) == 1:
            return _existing(names[0], "", log)
        if names:
            raise UsageError("there are several sessions", f"give one with -s: {', '.join(names)}")
    if name and Place(name).exists():
        return _existing(name, kernelspec, log)
    if not kernelspec:
        from remote_kernel.session.program import default_kernelspec

        kernelspec = default_kernelspec()
    if not name:
        from remote_kernel.session.program import find_program

        name = find_program(kernelspec).kernelspec
        if Place(name).exists():
            return _existing(name, kernelspec, log)
    session = Session.open(name, kernelspec=kernelspec, log=log)
    _announce(session)
    return session


def _announce(session: Session) -> None:
    """Say that there is a new session: a name that was mistyped makes one too, and nothing is in it."""
    from remote_kernel.session.record import read_record

    record = read_record(session.place)
    where = f" on {record.host}" if record.host else ""
    log = f"; all that runs is logged to {record.log}" if record.log else ""
    sys.stderr.write(f"rkernel: made session '{session.name}' with a kernel of {record.kernelspec}{where}{log}\n")


def _existing(name: str, kernelspec: str, log: str | None) -> Session:
    """Give a session that there is, and see that it is what the options ask for, where they say. Raises UsageError."""
    session = Session(name)
    if not kernelspec and log is None:
        return session
    from remote_kernel.session.record import read_record

    record = read_record(session.place)
    if kernelspec and kernelspec.lower() not in (record.kernelspec.lower(), record.display_name.lower()):
        raise UsageError(
            f"the session '{name}' has a kernel of '{record.kernelspec or record.connection_file}'",
            "leave out -k, or give another name with -s",
        )
    if log is not None and (log and os.path.abspath(log)) != record.log:
        raise UsageError(
            f"the session '{name}' logs to {record.log or 'no notebook'}",
            "leave out --log and --no-log, or give another name with -s",
        )
    return session
