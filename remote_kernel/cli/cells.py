"""`rkernel exec`, `wait` and `tail`: send a cell, and show what becomes of it."""

from __future__ import annotations

import argparse
import os
import sys

from remote_kernel.cli.following import detached, renderer_for, show
from remote_kernel.cli.rkernel import Command
from remote_kernel.cli.which import add_session, find_or_make, find_session
from remote_kernel.errors import UsageError
from remote_kernel.session.client import Request, Session

EXEC_EXAMPLES = """\
examples:
  rkernel exec -k remote_cuda --code 'import torch; torch.cuda.is_available()'
  rkernel exec -s work --file train.py --timeout 100        # detaches when the time is up: exit status 124
  rkernel exec -s work --detach --key train-1 --file train.py
  rkernel exec -s work analysis.ipynb --from-cell 3 --output done.ipynb
  rkernel exec -s work --side --code 'history[-1]'          # beside the cell that is running
  rkernel exec <<'PY'
  print("nothing here is expanded or unescaped")
  PY
"""
WAIT_EXAMPLES = """\
examples:
  rkernel wait                    # the newest cell of the only session
  rkernel wait -s work 12 --timeout 100
"""
TAIL_EXAMPLES = """\
examples:
  rkernel tail -s work            # what the newest cell has given so far, and '--since N' for the next call
  rkernel tail -s work 12 --since 48211
"""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a cell is shown."""
    group = parser.add_argument_group("output")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document at the end, with a version field")
    form.add_argument("--jsonl", action="store_true", help="one JSON line for each event, as it comes")
    group.add_argument(
        "--budget",
        type=_characters,
        metavar="N",
        help="at most N characters, head and tail, the rest in a file; 0: all (default: 8000; a terminal: all)",
    )
    group.add_argument("--full-traceback", action="store_true", help="also the frames inside libraries")


def _characters(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of characters")
    return int(text)


def _seconds(text: str) -> float:
    """Read `--timeout`, before anything is sent. Raises UsageError."""
    from remote_kernel.options import parse_duration

    return parse_duration(text)


def add_timeout(parser: argparse.ArgumentParser) -> None:
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
        "Run code in a session's kernel and show its output as it comes. Makes the session if there is none."
    )
    parser.epilog = EXEC_EXAMPLES
    code = parser.add_argument_group("code").add_mutually_exclusive_group()
    code.add_argument("-c", "--code", help="the code, e.g. 'x + 1'; taken as it is")
    code.add_argument("-f", "--file", help="a file with the code, e.g. train.py; '-' for stdin")
    code.add_argument("path", nargs="?", metavar="FILE", help="the same, without the option")
    add_session(parser)
    parser.add_argument(
        *("-k", "--kernelspec"), dest="kernel", metavar="NAME", default="", help="for a new session, e.g. 'remote_cuda'"
    )
    parser.add_argument("--kernel", dest="kernel", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its old name
    log = parser.add_mutually_exclusive_group()
    log.add_argument("--log", metavar="PATH", help="a new session's notebook (default: rkernel-SESSION.ipynb)")
    log.add_argument("--no-log", action="store_true", help="no notebook for a new session")
    add_timeout(parser)
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
        help="where the executed copy goes, e.g. done.ipynb (default, all cells: NAME_out.ipynb)",
    )
    add_output(parser)


def exec_(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.stdin and not sys.stdin.isatty():
        raise UsageError("--stdin needs a terminal", "give the answers with --answer")
    path = options.file or options.path or ""
    if options.answer_file:
        if options.answer_file == "-" and options.code is None and path in ("", "-"):
            raise UsageError("stdin cannot be both the code and the answers", "give the code with --code or --file")
        options.answer += _read(options.answer_file).splitlines()
    if path.endswith(".ipynb"):
        from remote_kernel.cli.notebooks import run_notebook

        return run_notebook(path, options)
    if options.from_cell or options.to_cell or options.output:
        raise UsageError("--from-cell, --to-cell and --output are for notebooks", "give an .ipynb file")
    code = _read_code(options)
    session = session_for(options)
    running = session.execute(request_for(code, options))
    if options.detach and not running.has_ended:
        renderer = renderer_for(session, running, options)
        renderer.feed(next(iter(running)))  # that it was taken, which --json tells
        running.close()
        renderer.close()
        sys.stdout.flush()
        return detached(session, running.cell, "running in the background")
    return show(session, running, options)


def session_for(options: argparse.Namespace) -> Session:
    """Give the session that the options of `exec` mean, made if need be."""
    return find_or_make(options.session, options.kernel, "" if options.no_log else options.log)


def request_for(code: str, options: argparse.Namespace) -> Request:
    """Give the request for one piece of code, as the options of `exec` say."""
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
        return str(options.code)
    path = options.file or options.path
    if path is None or path == "-":
        if path is None and sys.stdin.isatty():
            raise UsageError("there is no code", "give --code, --file, or the code on stdin; see 'rkernel exec --help'")
        path = "-"
    return _read(path)


def _read(path: str) -> str:
    """Read a text file, or stdin for '-'. Raises UsageError."""
    if path == "-":
        return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        hint = "give a file that is there; code goes behind --code, or to stdin"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint) from error


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `wait`."""
    parser.description = "Wait for a cell to end, and show all its output. An ended cell is shown at once."
    parser.epilog = WAIT_EXAMPLES
    parser.add_argument("cell", nargs="?", default="", help="the cell's number, e.g. 12 (default: the newest)")
    add_session(parser)
    add_timeout(parser)
    parser.add_argument("--since", type=int, default=0, metavar="N", help="only what came after this place, e.g. 48211")
    add_output(parser)


def wait(options: argparse.Namespace) -> int:
    """Run the command."""
    session = find_session(options.session)
    running = session.follow(options.cell or _newest(session), options.since)
    return show(session, running, options)


def add_tail(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tail`."""
    parser.description = (
        "Show what a cell has given so far, and end: with the cell's exit status when it is done, else with 124 and "
        "the place to go on from."
    )
    parser.epilog = TAIL_EXAMPLES
    parser.add_argument("cell", nargs="?", default="", help="the cell's number, e.g. 12 (default: the newest)")
    add_session(parser)
    parser.add_argument("--since", type=int, default=0, metavar="N", help="only what came after this place, e.g. 48211")
    add_output(parser)
    parser.set_defaults(timeout=None, only_looks=True)


def tail(options: argparse.Namespace) -> int:
    """Run the command."""
    session = find_session(options.session)
    running = session.follow(options.cell or _newest(session), options.since)
    return show(session, running.so_far(), options)


def _newest(session: Session) -> str:
    """Give the newest cell's number. One that was run beside a cell is not what somebody waits for."""
    names = os.listdir(session.place.cells)
    numbers = sorted({int(stem) for name in names if (stem := name.partition(".")[0]).isdigit()}, reverse=True)
    if not numbers:
        raise UsageError(f"no cell has run in session '{session.name}'", "run one with 'rkernel exec'")
    return str(next((number for number in numbers if not _is_side(session, number)), numbers[0]))


def _is_side(session: Session, number: int) -> bool:
    with open(session.place.journal(str(number)), "rb") as file:
        return b'"side": true' in file.readline().rpartition(b'"author"')[2]


COMMANDS = {
    "exec": Command(add_exec, exec_),
    "wait": Command(add_wait, wait),
    "tail": Command(add_tail, tail),
}
