"""`rkernel ls`, `kernelspecs`, `status`, `interrupt`, `attach`, `restart`, `refresh`, `close`: look after sessions."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from remote_kernel.cli.rkernel.command import Subcommand, write_json, write_table
from remote_kernel.cli.rkernel.which import add_session, find_session
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.session.client import NoSuchSession, Session
from remote_kernel.session.paths import session_names
from remote_kernel.session.protocol import encode
from remote_kernel.terminal_safe import terminal_safe

if TYPE_CHECKING:
    from remote_kernel.session.questions import Interrupted, SessionStatus

_LIST_SECONDS = 5.0  # for a host to answer
_MOST_NUMBERS = 20  # of cells that are shown


def add_ls(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ls`."""
    parser.description = "List every session on this machine. A session whose host was killed gets one again."
    parser.epilog = "examples:\n  rkernel ls\n  rkernel ls --json\n"
    parser.add_argument("--json", action="store_true", help="a list of objects")


def ls(options: argparse.Namespace) -> int:
    """Run the command."""
    found = [_status_of(name) for name in session_names()]
    if options.json:
        write_json([_document(one) for one in found])
        return 0
    rows = [("SESSION", "KERNELSPEC", "HOST", "STATE", "CELL", "LOG")]
    rows += [
        (
            one.session,
            one.kernelspec or "(attached)",
            one.host or "-",
            _state(one),
            one.running.cell if one.running else "-",
            one.log or "-",
        )
        for one in found
    ]
    if found:
        write_table(rows)
    else:
        sys.stderr.write("rkernel: there is no session; 'rkernel exec -k KERNELSPEC ...' makes one\n")
    for one in found:
        if one.state == "unknown":
            sys.stderr.write(terminal_safe(f"rkernel: {one.trouble}\n"))
    return 0


def _status_of(name: str) -> SessionStatus:
    """Return a session's status; without a `version` where its host does not tell."""
    from remote_kernel.session.questions import SessionStatus

    session = Session(name)
    try:
        session.check(_LIST_SECONDS)
        return session.status()
    except RemoteKernelError as error:
        return SessionStatus(name, trouble=str(error))


def _document(status: SessionStatus) -> object:
    if status.version:
        return encode(status)
    return {"session": status.session, "state": status.state, "trouble": status.trouble}


def _state(status: SessionStatus) -> str:
    return f"{status.state}, away" if status.connected is False else status.state


def add_kernelspecs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kernelspecs`."""
    parser.description = "List every kernelspec that -k takes: those of remote hosts, and those of this machine."
    parser.epilog = "examples:\n  rkernel kernelspecs\n  rkernel kernelspecs --json\n"
    parser.add_argument("--json", action="store_true", help="a list of objects: name, display_name, language, host")


def kernelspecs(options: argparse.Namespace) -> int:
    """Run the command."""
    from remote_kernel.session.kernel_program import list_programs, what_there_is

    programs = sorted(list_programs(), key=lambda one: (not one.host, one.kernelspec))
    if options.json:
        names = ("display_name", "language", "host")
        found = [{"name": one.kernelspec, **{name: getattr(one, name) for name in names}} for one in programs]
        write_json(found)
        return 0
    rows = [("KERNELSPEC", "HOST", "LANGUAGE", "DISPLAY NAME")]
    rows += [(one.kernelspec, one.host or "this machine", one.language or "-", one.display_name) for one in programs]
    if programs:
        write_table(rows)
    else:
        sys.stderr.write(f"rkernel: there is no kernelspec; {what_there_is(programs)}\n")
    return 0


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `status`."""
    parser.description = "Say what a session's kernel does: busy or idle, the running cell, the queue, its memory."
    parser.epilog = "examples:\n  rkernel status\n  rkernel status -s work --json\n"
    _add_name(parser)
    parser.add_argument("--json", action="store_true", help="one object")


def status(options: argparse.Namespace) -> int:
    """Run the command."""
    session = _named(options)
    found = session.status(memory=True)
    if options.json:
        write_json(encode(found))
        return 0
    where = f"on {found.host or 'this machine'}"
    if found.attached:
        where = f"attached to {os.path.basename(found.connection_file)}"
    lines = [f"session {found.session}: {_state(found)}, {where}, kernel generation {found.generation}"]
    if found.connected is False:
        lines.append("away      the connection is lost; the kernel and what runs in it go on there")
        lines += [f"          {found.away_for}"] if found.away_for else []
    if running := found.running:
        seconds = time.time() - running.since if running.since else 0.0  # none while the connection is away
        code = running.code.strip().splitlines() or [""]
        by = f" by {running.author}" if running.author else ""
        lines.append(f"running   cell {running.cell}{by} for {seconds:.0f} s: {code[0][:80]}")
    if found.queued:
        lines.append(f"queued    cells {_few(found.queued)}")
    if found.memory_bytes:
        lines.append(f"memory    {found.memory_bytes / 1e6:,.0f} MB")
    if found.folder:
        lines.append(f"folder    {found.folder}, in which the kernel was started")
    lines.append(f"log       {found.log or 'none'}")
    if found.log_trouble:
        lines.append(f"log       {found.log_trouble}")
    if found.trouble:
        lines.append(f"trouble   {found.trouble}")
    sys.stdout.write(terminal_safe("\n".join(lines) + "\n"))
    return 0


def add_interrupt(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `interrupt`."""
    parser.description = "Stop the running cell, as Ctrl-C would; a cell that waits is taken out of the queue."
    parser.epilog = (
        "examples:\n  rkernel interrupt\n  rkernel interrupt -s work 12\n  rkernel interrupt -s work --all\n"
    )
    parser.add_argument("cell", nargs="?", default="", help="the cell's number, e.g. 12 (default: what runs)")
    add_session(parser)
    parser.add_argument("--all", action="store_true", help="also take every waiting cell out of the queue")


def interrupt(options: argparse.Namespace) -> int:
    """Run the command."""
    session = find_session(options.session)
    found = session.interrupt(options.cell, every=options.all)
    if not found.stopped:
        raise RemoteKernelError(
            f"{_which_cell(found)} does not stop",
            f"'rkernel restart {session.name}' ends the kernel and all that is in it",
        )
    dropped = found.dropped
    done = [f"cell {_few(dropped)} {'was' if len(dropped) == 1 else 'were'} taken out of the queue"] if dropped else []
    if found.ended:
        done.append(f"cell {options.cell} has ended already")
    elif found.idle:
        done.append("nothing runs")
    elif options.cell not in dropped:
        done.append(f"stopped {_which_cell(found)}")
    sys.stderr.write(terminal_safe(f"rkernel: {'; '.join(done)}\n"))
    return 0


def _which_cell(found: Interrupted) -> str:
    """Return which cell was interrupted: its number and first line, as others may run than the one that was meant."""
    cell = found.interrupted
    if not cell:
        return "the cell"
    name = f"cell {cell.cell}" if cell.cell.isdigit() else "a cell of another front end"
    first = (cell.code.strip().splitlines() or [""])[0][:60]
    return f"{name}: {first}" if first else name


def _few(numbers: Sequence[str]) -> str:
    shown = ", ".join(numbers[:_MOST_NUMBERS])
    return f"{shown} and {len(numbers) - _MOST_NUMBERS} more" if len(numbers) > _MOST_NUMBERS else shown


def add_attach(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `attach`."""
    parser.description = (
        "Make a session of a kernel that is already open on this machine, such as a notebook's in JupyterLab or VS "
        "Code. Without a file, the only candidate; where there are several they are listed."
    )
    parser.epilog = (
        "examples:\n  rkernel attach\n  rkernel attach analysis.ipynb -s shared\n  rkernel attach kernel-5f0e.json\n"
    )
    parser.add_argument(
        "file",
        nargs="?",
        default="",
        help="the open notebook, e.g. analysis.ipynb, or the connection file, or a part of either's name",
    )
    parser.add_argument("-s", "--session", metavar="NAME", default="attached", help="the session's name, e.g. 'shared'")
    parser.add_argument("--log", metavar="PATH", help="its notebook (default: rkernel-SESSION.ipynb)")
    parser.add_argument("--no-log", action="store_true", help="no notebook")


def attach(options: argparse.Namespace) -> int:
    """Run the command."""
    from remote_kernel.session.candidates import find_candidate

    path = find_candidate(options.file)
    session = Session(options.session)
    if session.paths.exists():
        raise UsageError(f"there is a session '{session.name}' already", "give another name with -s, or close that one")
    Session.open(options.session, connection_file=path, log="" if options.no_log else options.log)
    sys.stdout.write(f"session {session.name} uses the kernel of {path}\n")
    return 0


def add_restart(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `restart`."""
    parser.description = "End a session's kernel and start a fresh one. Its variables are lost."
    parser.epilog = "examples:\n  rkernel restart\n  rkernel restart work\n"
    _add_name(parser)


def restart(options: argparse.Namespace) -> int:
    """Run the command."""
    session = _named(options)
    found = session.restart()
    sys.stdout.write(f"kernel {found.generation} of session {session.name} is ready\n")
    _note_killed(found.killed)
    return 0


def _note_killed(names: Sequence[str]) -> None:
    if names:
        sys.stderr.write(terminal_safe(f"rkernel: killed what the kernel had started and did not end: {_few(names)}\n"))


def add_refresh(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `refresh`."""
    parser.description = (
        "Replace a session's host process, after an update say, or where it hangs. The kernel and its variables stay."
    )
    parser.epilog = "examples:\n  rkernel refresh work\n"
    _add_name(parser)


def refresh(options: argparse.Namespace) -> int:
    """Run the command."""
    session = _named(options)
    session.refresh()
    found = session.status()
    sys.stdout.write(f"session {session.name} has a host of version {found.version}\n")
    return 0


def add_close(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `close`."""
    parser.description = (
        "End sessions, their kernels (not an attached one) and their files. The notebooks stay. Processes that a "
        "Python kernel has started get 1.5 seconds to end, and are killed then, which is told."
    )
    parser.epilog = "examples:\n  rkernel close work\n  rkernel close --all\n"
    parser.add_argument("names", nargs="*", metavar="SESSION", help="the sessions, e.g. 'work'")
    parser.add_argument("-s", "--session", metavar="NAME", action="append", default=[], help="the same, as elsewhere")
    parser.add_argument("--all", action="store_true", help="every session of yours on this machine")


def close(options: argparse.Namespace) -> int:
    """Run the command."""
    names = session_names() if options.all else list(dict.fromkeys([*options.names, *options.session]))
    if not names and not options.all:
        raise UsageError("no session is named", "give names, or --all")
    for name in names:
        if not os.path.isdir(Session(name).paths.folder):
            raise NoSuchSession(f"there is no session '{name}'", "see 'rkernel ls'")
    status = 0
    for name in names:
        try:
            killed = Session(name).close()
            sys.stdout.write(f"closed {name}\n")
            _note_killed(killed)
        except RemoteKernelError as error:  # the others are closed all the same
            sys.stderr.write(terminal_safe(f"rkernel: {name}: {error}\n"))
            status = error.exit_status
    return status


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default="", metavar="SESSION", help="the session, e.g. 'work' (default: as -s says)"
    )
    add_session(parser)


def _named(options: argparse.Namespace) -> Session:
    """Return the session that is named, with or without -s: both are natural, and an error for one helps nobody."""
    if options.name and options.session and options.name != options.session:
        raise UsageError(f"two sessions are named: '{options.name}' and '{options.session}'", "give one")
    return find_session(options.name or options.session)


COMMANDS = {
    "ls": Subcommand(add_ls, ls),
    "kernelspecs": Subcommand(add_kernelspecs, kernelspecs),
    "status": Subcommand(add_status, status),
    "interrupt": Subcommand(add_interrupt, interrupt),
    "attach": Subcommand(add_attach, attach),
    "restart": Subcommand(add_restart, restart),
    "refresh": Subcommand(add_refresh, refresh),
    "close": Subcommand(add_close, close),
}
