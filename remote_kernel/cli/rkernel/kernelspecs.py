"""`rkernel kernelspecs`: list what `-k` takes."""

from __future__ import annotations

import argparse
import json
import sys

from remote_kernel.cli.rkernel.main import Command
from remote_kernel.terminal_safe import terminal_safe


def add_kernelspecs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kernelspecs`."""
    parser.description = "List every kernelspec that -k takes: those of remote hosts, and those of this machine."
    parser.epilog = "examples:\n  rkernel kernelspecs\n  rkernel kernelspecs --json\n"
    parser.add_argument("--json", action="store_true", help="a list of objects: name, display_name, language, host")


def kernelspecs(options: argparse.Namespace) -> int:
    """Run the command."""
    from remote_kernel.session.program import list_programs, what_there_is

    programs = sorted(list_programs(), key=lambda one: (not one.host, one.kernelspec))
    if options.json:
        names = ("display_name", "language", "host")
        found = [{"name": one.kernelspec, **{name: getattr(one, name) for name in names}} for one in programs]
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    rows = [("KERNELSPEC", "HOST", "LANGUAGE", "DISPLAY NAME")]
    rows += [(one.kernelspec, one.host or "this machine", one.language or "-", one.display_name) for one in programs]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if programs else []:
        sys.stdout.write(terminal_safe("  ".join(map(str.ljust, row, widths)).rstrip() + "\n"))
    if not programs:
        sys.stderr.write(f"rkernel: there is no kernelspec; {what_there_is(programs)}\n")
    return 0


COMMANDS = {"kernelspecs": Command(add_kernelspecs, kernelspecs)}
