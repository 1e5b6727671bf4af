"""`remote_kernel list`: the remote kernelspecs on this machine, for people or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remote_kernel.cli.edge import note, say_json
from remote_kernel.cli.settings import JsonOption
from remote_kernel.cli.table import print_rows
from remote_kernel.endpoint import Endpoint, print_jumps
from remote_kernel.kernelspec.installed import Kernelspec, list_kernelspecs
from remote_kernel.options import LaunchOptions, print_duration, print_size
from remote_kernel.transport.ssh_config import transport_name

COLUMNS = ("SLUG", "NAME", "ENDPOINT", "JUMP HOSTS", "RUNS", "LOCATION")
EXAMPLES = """\b
Examples:
  remote_kernel list
  remote_kernel list --json

JSON is a list of objects with the keys slug, display_name, endpoint, jump_hosts, python, kernel, env, workdir, init,
transport, ssh_config, linger, keep, spool, forward, on_start, resume, language, folder, made_by_add, problem. Where
kernel.json cannot be understood, problem says why and the settings are null.
"""


def list_(
    as_json: JsonOption = False,
) -> None:
    """List the kernelspecs that run on remote hosts."""
    specs = list_kernelspecs()
    if as_json:
        say_json([_as_object(spec) for spec in specs])
        return
    if not specs:
        note("there are no remote kernelspecs yet; add one with 'remote_kernel add HOST'")
        return
    print_rows(COLUMNS, [_as_row(spec) for spec in specs])
    for spec in specs:
        if spec.problem:
            note(f"note: {spec.slug}: {spec.problem}")
        elif not spec.was_added:
            reason = "is a symbolic link" if spec.is_link else "was not made by 'remote_kernel add'"
            note(f"note: {spec.slug} {reason}; edit and delete leave it alone")


def _as_row(spec: Kernelspec) -> tuple[str, ...]:
    options = spec.options
    location = _short(spec.folder.parent)
    if options is None:
        return (spec.slug, spec.display_name, "?", "?", "?", location)
    runs = f"kernel {options.kernel}" if options.kernel else options.remote_python()
    if options.resume:
        runs = f"running kernel {options.resume}"
    return (spec.slug, spec.display_name, str(options.endpoint), print_jumps(options.jumps) or "-", runs, location)


def _short(folder: Path) -> str:
    """Return the path with the home folder as `~`; the slug completes it to the kernelspec's folder."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def _as_object(spec: Kernelspec) -> dict[str, Any]:
    options = spec.options or LaunchOptions(Endpoint("unknown"))
    settings = {
        "endpoint": str(options.endpoint),
        "jump_hosts": [str(jump) for jump in options.jumps],
        "python": options.remote_python(),
        "kernel": options.kernel,
        "env": dict(options.env),
        "workdir": options.workdir,
        "init": options.init,
        "transport": transport_name(options),
        "ssh_config": options.ssh_config,
        "linger": print_duration(options.linger_seconds),
        "keep": options.keep,
        "spool": print_size(options.spool_bytes),
        "forward": [str(forward) for forward in options.forward],
        "on_start": options.on_start,
        "resume": options.resume,
    }
    return {
        "slug": spec.slug,
        "display_name": spec.display_name,
        **(settings if spec.options else dict.fromkeys(settings)),
        "language": spec.language,
        "folder": str(spec.folder),
        "made_by_add": spec.was_added,
        "problem": spec.problem,
    }
