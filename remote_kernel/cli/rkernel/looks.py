"""`rkernel vars`, `inspect` and `complete`: look into a kernel, also while a cell runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from remote_kernel.cli.rkernel.command import Subcommand, characters, write_json
from remote_kernel.cli.rkernel.which import add_session, find_session
from remote_kernel.session.protocol import encode
from remote_kernel.session.render.budget import DEFAULT, bounded
from remote_kernel.terminal_safe import terminal_safe

VARS_EXAMPLES = """\
examples:
  rkernel vars
  rkernel vars 'loss*' --json
"""
INSPECT_EXAMPLES = """\
examples:
  rkernel inspect model.forward
  rkernel inspect model.forward --source
"""
COMPLETE_EXAMPLES = """\
examples:
  rkernel complete 'model.par'
"""


def add_vars(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `vars`."""
    parser.description = "List the variables of a Python kernel: name, type, shape or length, and small values."
    parser.epilog = VARS_EXAMPLES
    parser.add_argument("pattern", nargs="?", default="", help="only these names, e.g. 'loss*'")
    add_session(parser)
    _add_budget(parser)
    parser.add_argument("--json", action="store_true", help="a list of objects, all of them")


def vars_(options: argparse.Namespace) -> int:
    """Run the command."""
    found = find_session(options.session).variables(options.pattern)
    if options.json:
        write_json(encode(found))
        return 0
    lines = []
    for variable in found:
        size = list(variable.shape) if variable.shape else variable.length
        parts = (variable.type, "" if size is None else str(size), variable.dtype, variable.device, variable.value)
        lines.append("  ".join(filter(None, (variable.name, *parts))))
    _show(lines, options, "a pattern such as 'loss*' shows fewer, --budget 0 all")
    return 0


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `inspect`."""
    parser.description = "Show what a kernel knows about a name: its signature and documentation."
    parser.epilog = INSPECT_EXAMPLES
    parser.add_argument("name", help="the name, e.g. 'model.forward'")
    add_session(parser)
    _add_budget(parser)
    parser.add_argument("--source", action="store_true", help="the source too, where there is one")


def inspect(options: argparse.Namespace) -> int:
    """Run the command."""
    from remote_kernel.session.render.ansi import strip

    found = find_session(options.session).inspect(options.name, detail=int(options.source))
    if not found.found:
        sys.stderr.write(f"rkernel: the kernel does not know '{options.name}'\n")
        return 1
    _show([strip(str(found.data.get("text/plain", ""))).rstrip()], options, "--budget 0 shows all")
    return 0


def add_complete(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `complete`."""
    parser.description = "List the kernel's completions of a piece of code, one on a line."
    parser.epilog = COMPLETE_EXAMPLES
    parser.add_argument("code", help="the code up to the cursor, e.g. 'model.par'")
    add_session(parser)
    _add_budget(parser)
    parser.add_argument("--json", action="store_true", help="the kernel's whole answer")


def complete(options: argparse.Namespace) -> int:
    """Run the command."""
    found = find_session(options.session).complete(options.code)
    if options.json:
        write_json(encode(found))
    else:
        _show(map(str, found.matches), options, "more of the name shows fewer, --budget 0 all")
    return 0


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        type=characters,
        metavar="N",
        help="at most N characters, head and tail; 0: all (default: 8000; a terminal: all)",
    )


def _show(lines: Iterable[str], options: argparse.Namespace, hint: str) -> None:
    """Print lines within the budget; `hint` says how to see the others."""
    limit = (0 if sys.stdout.isatty() else DEFAULT) if options.budget is None else options.budget
    sys.stdout.write(bounded("".join(f"{terminal_safe(line)}\n" for line in lines), limit, hint))


COMMANDS = {
    "vars": Subcommand(add_vars, vars_),
    "inspect": Subcommand(add_inspect, inspect),
    "complete": Subcommand(add_complete, complete),
}
