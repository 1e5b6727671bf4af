"""`rkernel exec`, `wait` and `tail`: send a cell, and show what becomes of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from remote_kernel.cli.rkernel.command import Subcommand, characters
from remote_kernel.cli.rkernel.following import detached, renderer_for, show
from remote_kernel.cli.rkernel.which import add_session, find_session, session_for
from remote_kernel.errors import UsageError
from remote_kernel.session.client import Request, Session
from remote_kernel.session.events import Queued, read_done, read_journal
from remote_kernel.session.notebook.source import check_text, decode_source

_LONGEST_RANGE = 100_000  # cells

EXEC_EXAMPLES = """\
examples:
  rkernel exec -k remote_cuda --code 'import torch; torch.cuda.is_available()'
  rkernel exec -s work --file train.py --timeout 100        # detaches when the time is up: exit status 124
  rkernel exec -s work --file train.py -- --lr 0.1          # sys.argv is ['train.py', '--lr', '0.1']
  rkernel exec -s work --detach --key train-1 --file train.py
  rkernel exec -s work analysis.ipynb --from-cell 3 --output done.ipynb
  rkernel exec -s work analysis.ipynb --detach              # its cells run on, and the copy gets what they give
  rkernel exec -s work --side --code 'history[-1]'          # beside the cell that is running
  rkernel exec <<'PY'
  print("nothing here is expanded or unescaped")
  PY
"""
WAIT_EXAMPLES = """\
examples:
  rkernel wait                    # the newest cell of the only session
  rkernel wait -s work 12 --timeout 100
  rkernel wait -s work 12-19      # the cells of a notebook
"""
TAIL_EXAMPLES = """\
examples:
  rkernel tail -s work            # what the newest cell has given so far, and '--since N' for the next call
  rkernel tail -s work 12 --since 48211
"""


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a cell is shown."""
    group = parser.add_argument_group("output")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document at the end, with a version field")
    form.add_argument("--jsonl", action="store_true", help="one JSON line for each event, as it comes")
    group.add_argument(
        "--budget",
        type=characters,
        metavar="N",
        help="at most N characters, head and tail, the rest in a file; 0: all (default: 8000; a terminal: all)",
    )
    group.add_argument("--full-traceback", action="store_true", help="also the frames inside libraries")


def _seconds(text: str) -> float:
    """Return the seconds that `--timeout` has, before anything is sent. Raises UsageError."""
    from remote_kernel.options import parse_duration

    return parse_duration(text)


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout`."""
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=_seconds,
        help="stop waiting after this time, e.g. 100 or 5m; the cell goes on, and the exit status is 124",
    )


def add_exec(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `exec`."""
    parser.description = (
        "Run code in a session's kernel and show its output as it comes. Makes the session if there is none. A file "
        "runs as 'python FILE' would: what comes after '--' are its arguments, and sys.exit gives the exit status."
    )
    parser.epilog = EXEC_EXAMPLES
    code = parser.add_argument_group("code").add_mutually_exclusive_group()
    code.add_argument("-c", "--code", help="the code, e.g. 'x + 1'; taken as it is")
    code.add_argument("-f", "--file", help="a file here with the code, e.g. train.py; '-' for stdin")
    code.add_argument("path", nargs="?", metavar="FILE", help="the same, without the option")
    add_session(parser)
    parser.add_argument(
        *("-k", "--kernelspec"),
        dest="kernel",
        metavar="NAME",
        default="",
        help="a kernelspec for a new session, e.g. 'remote_cuda' or 'python3'; see 'rkernel kernelspecs'",
    )
    parser.add_argument("--kernel", dest="kernel", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its old name
    parser.add_argument(
        "--cwd",
        metavar="FOLDER",
        default="",
        help="the folder for a new session's kernel, on its host, e.g. '~/project' (default: this folder for a local "
        "kernel, else the kernelspec's --workdir or the home)",
    )
    log = parser.add_mutually_exclusive_group()
    log.add_argument("--log", metavar="PATH", help="a new session's notebook (default: rkernel-SESSION.ipynb)")
    log.add_argument("--no-log", action="store_true", help="no notebook for a new session")
    _add_timeout(parser)
    parser.add_argument("--detach", action="store_true", help="send the cell and do not wait: exit status 124")
    parser.add_argument(
        "--key",
        default="",
        help="a name for this request, e.g. 'train-1': sent again, it runs only once, and is shown when it has ended",
    )
    parser.add_argument("--side", action="store_true", help="run beside the cell that is running")
    parser.add_argument(
        "--generation", type=int, default=0, metavar="N", help="run only in the session's kernel number N, e.g. 1"
    )
    parser.add_argument("--author", default="", help="who asks, for the notebook, e.g. 'agent 2' (default: rkernel)")
    parser.add_argument("--stdin", action="store_true", help="let input() ask in this terminal")
    parser.add_argument(
        "--answer", action="append", default=[], metavar="TEXT", help="what input() gets, e.g. 'yes'; once for each"
    )
    parser.add_argument(
        "--answer-file", metavar="PATH", help="the same from a file, a line each; '-' for stdin. For what is secret"
    )
    notebook = parser.add_argument_group("notebooks")
    notebook.add_argument(
        "--from-cell", type=int, metavar="N", help="the first cell to run, e.g. 3; all cells count, from 1"
    )
    notebook.add_argument("--to-cell", type=int, metavar="N", help="the last cell to run, e.g. 7")
    notebook.add_argument(
        "--output",
        metavar="PATH",
        help="where the executed copy goes, e.g. done.ipynb (default, all cells: NAME_out.ipynb); with --from-cell the "
        "cells before it keep the outputs that they have there",
    )
    _add_output(parser)


def exec_(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.stdin and not sys.stdin.isatty():
        raise UsageError("--stdin needs a terminal", "give the answers with --answer")
    path = options.file or options.path or ""
    if options.answer_file:
        if options.answer_file == "-" and options.code is None and path in ("", "-"):
            raise UsageError("stdin cannot be both the code and the answers", "give the code with --code or --file")
        options.answer += _read(options.answer_file).splitlines()
    for text in (*options.answer, *options.arguments):
        check_text(text, "an answer or argument")
    is_script = options.code is None and path not in ("", "-") and not path.endswith(".ipynb")
    if options.arguments and not is_script:
        raise UsageError("arguments after '--' are for a script", "give it with --file")
    if path.endswith(".ipynb"):
        from remote_kernel.cli.rkernel.notebooks import run_notebook

        return run_notebook(path, _request("", options), options)
    if options.from_cell or options.to_cell or options.output:
        raise UsageError("--from-cell, --to-cell and --output are for notebooks", "give an .ipynb file")
    code = _read_code(options)
    session = session_for(options)
    script = (os.path.abspath(path), path, *options.arguments) if is_script else ()
    running = session.execute(_request(code, options)._replace(script=script))
    if options.detach and not running.has_ended:
        renderer = renderer_for(session, running, options)
        renderer.feed(next(iter(running)))  # that it was taken, which --json tells
        running.close()
        renderer.close()
        sys.stdout.flush()
        return detached(session, running.cell, "running in the background")
    return show(session, running, options)


def _request(code: str, options: argparse.Namespace) -> Request:
    """Return the request for one piece of code, as the options of `exec` say."""
    return Request(
        code,
        author=options.author,
        key=options.key,
        side=options.side,
        answers=tuple(options.answer),
        asks=options.stdin,
        generation=options.generation,
    )


def _read_code(options: argparse.Namespace) -> str:
    if options.code is not None:
        check_text(options.code, "--code")
        return str(options.code)
    path = options.file or options.path
    is_missing = path is None and sys.stdin.isatty()
    code = "" if is_missing else _read(path or "-")
    if path in (None, "-") and not code.strip():
        raise UsageError("there is no code", "give --code, --file, or the code on stdin; see 'rkernel exec --help'")
    return code


def _read(path: str) -> str:
    """Read a text file, or stdin for '-'. Raises UsageError."""
    if path == "-":
        return decode_source(sys.stdin.buffer.read(), "stdin")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        hint = "give a file that is there; code goes behind --code, or to stdin"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint) from error
    return decode_source(data, path).replace("\r\n", "\n").replace("\r", "\n")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `wait`."""
    parser.description = (
        "Wait for a cell to end, and show all its output. An ended cell is shown at once. The cells of a notebook are "
        "shown one after the other, up to the first that fails."
    )
    parser.epilog = WAIT_EXAMPLES
    _add_cell(parser)
    _add_timeout(parser)
    _add_output(parser)


def _add_cell(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "cell",
        nargs="?",
        default="",
        help="the cell's number, e.g. 12, or those of a notebook, e.g. 12-19 (default: the newest cell or notebook)",
    )
    add_session(parser)
    parser.add_argument("--since", type=int, default=0, metavar="N", help="only what came after this place, e.g. 48211")


def wait(options: argparse.Namespace) -> int:
    """Run the command."""
    session = find_session(options.session)
    numbers = _cells(options.cell) or _newest(session)
    return _show_cells(session, numbers, options)


def add_tail(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tail`."""
    parser.description = (
        "Show what a cell has given so far, and end: with the cell's exit status when it is done, else with 124 and "
        "the place to go on from."
    )
    parser.epilog = TAIL_EXAMPLES
    _add_cell(parser)
    _add_output(parser)
    parser.set_defaults(timeout=None, only_looks=True)


def tail(options: argparse.Namespace) -> int:
    """Run the command."""
    session = find_session(options.session)
    numbers = _cells(options.cell) or _going_on(session, _newest(session))
    return _show_cells(session, numbers, options)


def _show_cells(session: Session, numbers: list[str], options: argparse.Namespace) -> int:
    if len(numbers) > 1:
        from remote_kernel.cli.rkernel.notebooks import show_cells

        return show_cells(session, numbers, options)
    running = session.follow(numbers[0], options.since)
    return show(session, running.so_far() if getattr(options, "only_looks", False) else running, options)


def _cells(text: str) -> list[str]:
    """Return the numbers of the cells that an argument names: one, or those of a range such as 12-15."""
    first, dash, last = text.partition("-")
    if not dash or not (first.isdecimal() and last.isdecimal()):
        return [text] if text else []
    if not int(first) <= int(last) <= int(first) + _LONGEST_RANGE:
        raise UsageError(f"'{text}' is no range of cells", "give for example 12-15")
    return [str(number) for number in range(int(first), int(last) + 1)]


def _going_on(session: Session, numbers: list[str]) -> list[str]:
    """Return the cells of a notebook that have not ended; where all have, the last that ran."""

    ended = [read_done(session.paths.journal(number)) for number in numbers]
    left = [number for number, done in zip(numbers, ended, strict=True) if done is None]
    ran = [number for number, done in zip(numbers, ended, strict=True) if done and done.verdict != "aborted"]
    return left or ran[-1:] or numbers[:1]


def _newest(session: Session) -> list[str]:
    """Return the newest cell's number, or those of the notebook that it belongs to.

    One that was run beside a cell is not what somebody waits for.
    """
    names = os.listdir(session.paths.cells)
    numbers = sorted({int(stem) for name in names if (stem := name.partition(".")[0]).isdigit()}, reverse=True)
    if not numbers:
        raise UsageError(f"no cell has run in session '{session.name}'", "run one with 'rkernel exec'")
    queued = ((number, _queued(session, number)) for number in numbers)
    newest, how = next((one for one in queued if not (one[1] and one[1].side)), (numbers[0], None))
    return [str(number) for number in range(int(how.run or newest) if how else newest, newest + 1)]


def _queued(session: Session, number: int) -> Queued | None:
    """Return how a cell was sent; None where its journal cannot be read."""
    with contextlib.suppress(OSError):
        first = next(read_journal(session.paths.journal(str(number))), None)
        return first if isinstance(first, Queued) else None
    return None


COMMANDS = {
    "exec": Subcommand(add_exec, exec_, passes_on=True),
    "wait": Subcommand(add_wait, wait),
    "tail": Subcommand(add_tail, tail),
}
