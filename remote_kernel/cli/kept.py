"""`remote_kernel ps`, `stop`, `keep`, `logs` and `resume`: the kernels that run on the remote hosts right now."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from remote_kernel.cli import completion
from remote_kernel.cli.edge import complain, note, say, say_json
from remote_kernel.cli.settings import JsonOption, YesOption
from remote_kernel.cli.table import print_rows
from remote_kernel.errors import NoSuchKernel, RemoteKernelError, UsageError
from remote_kernel.handshake import reading
from remote_kernel.jupyter.connection_file import runtime_folder
from remote_kernel.kept.running import RunningKernel, RunningKernels, ask_agent, find_running, hosts_to_ask, stop_kernel
from remote_kernel.kernelspec.folders import kernels_folder
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.names import check_free
from remote_kernel.kernelspec.writing import Draft, write_kernelspec
from remote_kernel.link.link import PROTOCOL_VERSION
from remote_kernel.options import print_size
from remote_kernel.typed_json import list_of, text

COLUMNS = ("ID", "HOST", "KERNELSPEC", "STATE", "CPU", "SINCE", "MEMORY")
PS_EXAMPLES = """\b
Examples:
  remote_kernel ps
  remote_kernel ps gpu1 --json

\b
STATE   connected: a front end is attached
        away: a front end lost its connection and may come back
        kept: no front end is expected
        ended: the kernel has ended, and its front end does not know yet
        unreadable: its agent gives no answer, or none that can be read
CPU     busy: its processes use more than 5 % of a core right now. A cell that
        sleeps, waits for input or computes only on a GPU shows as idle.
MEMORY  of all its processes; memory that they share is counted for each.

JSON is a list of objects with the keys id, host, endpoint, jump_hosts, slug, display_name, kernel, language, state,
busy, keep, launchers, since, memory, version, launched_by.
"""
STOP_EXAMPLES = """\b
Examples:
  remote_kernel stop 3fa2c1
  remote_kernel stop --all gpu1 --yes
"""
KEEP_EXAMPLES = """\b
Example:
  remote_kernel keep 3fa2c1
"""
LOGS_EXAMPLES = """\b
Example:
  remote_kernel logs 3fa2c1 -n 50
"""
RESUME_EXAMPLES = """\b
Examples:
  remote_kernel resume 3fa2c1
  remote_kernel resume 3fa2c1 --name "Monday's training"
"""

IdArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The kernel's id from 'ps', or at least its first four characters, e.g. 3fa2."),
]


def ps(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KERNELSPEC|HOST]...",
            help="Ask only these hosts, or those of these kernelspecs, e.g. gpu1.",
            autocompletion=completion.targets,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the kernels that are alive on the remote hosts.

    Asks the hosts of all kernelspecs at once. A host that does not answer within 10 seconds is named on stderr; the
    exit status is 0 if at least one host answered.
    """
    running = _running(hosts or [])
    if as_json:
        say_json([_as_object(kernel) for kernel in running.kernels])
    elif running.kernels:
        print_rows(COLUMNS, [_as_row(kernel) for kernel in running.kernels])
    elif not running.silent:
        note("no kernel runs there" if running.asked else "there are no remote kernelspecs, so no host to ask")
    for kernel in running.kernels:
        if kernel.version != PROTOCOL_VERSION:
            note(
                f"note: {kernel.id} was started by another version of remote_kernel (protocol {kernel.version}); "
                "that version can resume it, and 'stop' ends it"
            )


def stop_(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID...", help="Kernels, by id, e.g. 3fa2c1; with --all the kernelspecs or hosts to ask."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="End every kernel, on every host or those named.")] = False,
    yes: YesOption = False,
) -> int:
    """End kernels, and wait until they have ended.

    If an id is unknown, nothing is ended. --all asks once, if there is a terminal; it also ends kernels whose front
    ends are attached.
    """
    if bool(names) == everything and not everything:
        raise UsageError("no kernel is given", "give ids that 'remote_kernel ps' shows, or --all")
    running = _running((names or []) if everything else [], complete=not everything)
    if everything:
        chosen = running.kernels
        if not chosen:
            note("no kernel runs there")
    else:
        chosen = list({kernel.id: kernel for kernel in map(running.find, names or [])}.values())
    if everything and chosen and not yes and sys.stdin.isatty():
        print_rows(COLUMNS, [_as_row(kernel) for kernel in chosen])
        if not typer.confirm(f"end {'it' if len(chosen) == 1 else f'these {len(chosen)}'}?", err=True):
            note("nothing was ended")
            return 1
    status = 0
    for kernel in chosen:
        try:
            stop_kernel(kernel)
        except NoSuchKernel:
            say(f"{kernel.id} on {kernel.host} had ended already")
        except RemoteKernelError as error:  # the others are still to be ended
            complain("remote_kernel", str(error))
            status = error.exit_status
        else:
            say(f"ended {kernel.id} on {kernel.host}")
    return status or (running.silent[0][1].exit_status if everything and running.silent else 0)


def keep(identity: IdArgument) -> None:
    """Let a running kernel outlive its front end.

    From now on it keeps running when its notebook is closed, until 'stop' ends it or it ends by itself.
    """
    kernel = _running([]).find(identity)
    ask_agent(kernel, "keep")
    say(f"{kernel.id} on {kernel.host} is kept; 'remote_kernel resume {kernel.id}' attaches to it")


def logs(
    identity: IdArgument,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=1, help="How many of the last lines to show of each, e.g. 50.")
    ] = 20,
) -> None:
    """Show output that no notebook received.

    That is: the end of its own stdout and stderr (what C code, child processes and a crash print, at most 8 KiB of
    each), and what its cells printed, as text, while no front end was attached (at most 256 KiB). Recording begins
    when the loss is noticed: at once when a front end closes, up to 15 seconds late when a network goes silent. Names
    the launcher's log as well where this machine has it.
    """
    kernel = _running([]).find(identity)
    state = ask_agent(kernel, "logs")
    with reading(kernel.way):
        stdout, stderr = list_of(text, state["logs"])
    for name, printed in (("stdout", stdout), ("stderr", stderr)):
        say(f"==> {name} of {kernel.id} on {kernel.host} <==")
        _show_end(printed, lines)
    if state.get("diary"):
        say(f"==> cells of {kernel.id} while no front end was attached <==")
        _show_end(str(state["diary"]), lines)
    for path in sorted(Path(runtime_folder()).glob("remote_kernel-*.log")):
        if f"/{kernel.id}" in path.read_text(encoding="utf-8", errors="replace"):
            note(f"the launcher's log: {path}")


def _show_end(text: str, lines: int) -> None:
    """Show the last lines of what a kernel printed: with its colours on a terminal, as plain text elsewhere."""
    from remote_kernel.session.render.ansi import PlainText, TerminalText

    fit = TerminalText(moves=False) if sys.stdout.isatty() else PlainText()
    shown = (fit.feed(text) + fit.finish()).rstrip("\n")
    for line in shown.split("\n")[-lines:] if shown else ():
        typer.echo(line)


def resume(
    identity: IdArgument,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help='What kernel menus show for this kernel, e.g. "My training".'),
    ] = None,
) -> None:
    """Put a running kernel, with its variables, into kernel menus.

    A notebook that picks it is attached to the running kernel; several front ends may be attached at a time. The
    kernel is kept from then on. The entry is removed when the kernel ends; 'delete' removes it earlier, without ending
    the kernel.
    """
    kernel = _running([]).find(identity)
    if kernel.state in ("ended", "unreadable"):
        raise NoSuchKernel(f"the kernel {kernel.id} on {kernel.host} cannot be resumed: {kernel.state}", "see 'ps'")
    for spec in list_kernelspecs():
        if spec.options and spec.options.resume == kernel.id and name is None:
            say(f"'{spec.display_name}' ({spec.slug}) is there already")
            return
    title = name or f"{kernel.display_name or f'{kernel.kernel or kernel.language} on {kernel.host}'} ({kernel.id[:6]})"
    draft = Draft(
        " ".join(title.split()),
        kernel.way._replace(resume=kernel.id, on_start=_pushed_folder(kernel)),
        kernel.language or "python",
        "message" if kernel.interrupt_mode == "message" else "signal",
        host=kernel.host,
    )
    folder = kernels_folder()
    check_free(draft.display_name, folder, replace=False)
    if not kernel.keep:
        ask_agent(kernel, "keep")
    spec = write_kernelspec(draft, folder)
    if ask_agent(kernel, "logs").get("diary"):
        note(f"its cells printed something while no front end was attached: remote_kernel logs {kernel.id}")
    say(f"added '{spec.display_name}' as {spec.slug}: pick it for a notebook to go on in kernel {kernel.id}")


def _pushed_folder(kernel: RunningKernel) -> str:
    """Return the folder here that is copied before a kernel of this kernelspec starts, as at a restart."""
    found = [spec.options.on_start for spec in list_kernelspecs() if spec.slug == kernel.slug and spec.options]
    return found[0] if found else ""


def _running(hosts: list[str], *, complete: bool = False) -> RunningKernels:
    """Ask the hosts, and name those that do not answer. Raises the first error if none does."""
    running = find_running(hosts_to_ask(hosts))
    if not complete:
        running.check()
    for _, error in running.silent:
        complain("remote_kernel", str(error))
    return running


def _as_row(kernel: RunningKernel) -> tuple[str, ...]:
    since = datetime.fromtimestamp(kernel.since, timezone.utc).astimezone()
    endpoint = str(kernel.way.endpoint)
    return (
        kernel.id,
        endpoint if endpoint == kernel.host else f"{endpoint} ({kernel.host})",
        kernel.slug or kernel.kernel or "-",
        kernel.state,
        "busy" if kernel.busy else "idle",
        since.strftime("%d %b %H:%M"),
        print_size(kernel.memory >> 20 << 20),
    )


def _as_object(kernel: RunningKernel) -> dict[str, Any]:
    return {
        "id": kernel.id,
        "host": kernel.host,
        "endpoint": str(kernel.way.endpoint),
        "jump_hosts": [str(jump) for jump in kernel.way.jumps],
        "slug": kernel.slug or None,
        "display_name": kernel.display_name or None,
        "kernel": kernel.kernel or None,
        "language": kernel.language,
        "state": kernel.state,
        "busy": kernel.busy,
        "keep": kernel.keep,
        "launchers": kernel.launchers,
        "since": datetime.fromtimestamp(kernel.since, timezone.utc).isoformat(timespec="seconds"),
        "memory": kernel.memory,
        "version": kernel.version,
        "launched_by": kernel.launched_by,
    }
