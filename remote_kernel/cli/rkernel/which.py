"""Find the session that a command of `rkernel` means."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from remote_kernel.errors import NoSuchKernelspec, UsageError
from remote_kernel.session.client import NoSuchSession, Session
from remote_kernel.session.paths import Paths, session_names

if TYPE_CHECKING:
    from remote_kernel.session.kernel_program import Program
    from remote_kernel.session.notebook.run import WantedKernel

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
    """Return the session of this name, else RKERNEL_SESSION's, else the only one. Raises NoSuchSession, UsageError."""
    name = name or os.environ.get(VARIABLE, "")
    if not name:
        names = session_names()
        if len(names) > 1:
            raise UsageError("there are several sessions", f"give one with -s: {', '.join(names)}")
        if not names:
            raise NoSuchSession("there is no session", "'rkernel exec -k KERNELSPEC ...' makes one")
        name = names[0]
    session = Session(name)
    if not session.paths.exists():
        others = ", ".join(session_names())
        hint = f"there are: {others}" if others else "'rkernel exec -k KERNELSPEC ...' makes one"
        raise NoSuchSession(f"there is no session '{name}'", hint)
    return session


class NewSession(NamedTuple):
    """What `exec` asks of a session, should it have to be made: the kernelspec, the notebook and the kernel's folder.

    `log` is None for the usual notebook, and empty for none.
    """

    kernelspec: str = ""
    log: str | None = None
    cwd: str = ""


def session_for(options: argparse.Namespace, wanted: WantedKernel | None = None) -> Session:
    """Return the session that `exec` means, made if need be: by its name, by the kernelspec's, or the only one.

    `wanted` is what a notebook says of its kernel. Raises UsageError for a kernel of another language.
    """
    new = NewSession(options.kernel, "" if options.no_log else options.log, options.cwd)
    name = options.session or os.environ.get(VARIABLE, "")
    if not name and not new.kernelspec:
        names = session_names()
        if len(names) == 1:
            return _existing(names[0], new, wanted)
        if names:
            raise UsageError("there are several sessions", f"give one with -s: {', '.join(names)}")
    if name and Paths(name).exists():
        return _existing(name, new, wanted)
    program = _choose(new.kernelspec, wanted)
    if not name:
        name = program.kernelspec
        if Paths(name).exists():
            return _existing(name, new, wanted)
    session = Session.open(name, kernelspec=program.kernelspec, log=new.log, workdir=new.cwd)
    _announce(session)
    return session


def _choose(kernelspec: str, wanted: WantedKernel | None) -> Program:
    """Return a new session's kernelspec: the one that is named, else a notebook's own, else the only remote one."""
    from remote_kernel.session.kernel_program import default_kernelspec, find_program

    if not kernelspec and wanted and wanted.kernelspec:
        with contextlib.suppress(NoSuchKernelspec):
            kernelspec = find_program(wanted.kernelspec).kernelspec
    program = find_program(kernelspec or default_kernelspec())
    if wanted and not wanted.fits(program.language):
        raise _other_language(f"the kernelspec '{program.kernelspec}'", program.language, wanted)
    return program


def _other_language(what: str, language: str, wanted: WantedKernel) -> UsageError:
    from remote_kernel.session.kernel_program import list_programs

    fitting = [one.kernelspec for one in list_programs() if one.language and wanted.fits(one.language)]
    hint = (
        f"give a new session's name with -s, and -k with one of: {', '.join(fitting)}"
        if fitting
        else "no kernelspec here is of that language: see 'rkernel kernelspecs'"
    )
    return UsageError(
        f"the notebook's language is {' or '.join(sorted(wanted.languages))}, {what} is of {language}", hint
    )


def _announce(session: Session) -> None:
    """Write that there is a new session: a name that was mistyped makes one too, and nothing is in it."""
    from remote_kernel.session.record import read_record

    record = read_record(session.paths)
    where = f" on {record.host}" if record.host else ""
    log = f"; all that runs is logged to {record.log}" if record.log else ""
    folder = f", in {record.folder}" if record.folder else ""
    what = f"a kernel of {record.kernelspec}{where}{folder}"
    sys.stderr.write(f"rkernel: made session '{session.name}' with {what}{log}\n")


def _existing(name: str, new: NewSession, wanted: WantedKernel | None) -> Session:
    """Return a session that there is, and check that it is what the options ask for. Raises UsageError."""
    session = Session(name)
    if wanted and wanted.languages:
        language = session.status().language
        if not wanted.fits(language):
            raise _other_language(f"the kernel of session '{name}'", language, wanted)
    if new == NewSession():
        return session
    from remote_kernel.session.record import read_record

    record = read_record(session.paths)
    if new.kernelspec and new.kernelspec.lower() not in (record.kernelspec.lower(), record.display_name.lower()):
        raise UsageError(
            f"the session '{name}' has a kernel of '{record.kernelspec or record.connection_file}'",
            "leave out -k, or give another name with -s",
        )
    if new.log is not None and (new.log and os.path.abspath(new.log)) != record.log:
        raise UsageError(
            f"the session '{name}' logs to {record.log or 'no notebook'}",
            "leave out --log and --no-log, or give another name with -s",
        )
    if new.cwd and record.workdir not in (new.cwd, os.path.abspath(os.path.expanduser(new.cwd))):
        raise UsageError(
            f"the kernel of session '{name}' was started in {record.folder or 'a folder that is not known'}",
            "leave out --cwd, or give another name with -s",
        )
    return session
