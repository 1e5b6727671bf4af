"""Speak with the person at the command line, and end in one line and a status whatever happens.

Nothing slow is imported here: `sync` runs without typer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from remote_kernel.errors import RemoteKernelError
from remote_kernel.harmless import harmless, harmless_json

INTERRUPTED = 130


def ended(program: str, action: Callable[[], object]) -> int:
    """Run `action` and give the exit status: what it gives if that is one, else that of what it raised.

    0 done, 1 an error of its own kind or a bug, 130 interrupted, else the error's status. Never a traceback.
    """
    try:
        result = action()
    except RemoteKernelError as error:
        complain(program, str(error))
        return error.exit_status
    except KeyboardInterrupt:
        result = INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except BrokenPipeError:
        # The reader of `list | head` is gone; keep the interpreter from flushing into nothing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("REMOTE_KERNEL_DEBUG"):
            raise
        complain(program, f"unexpected {type(error).__name__}: {error}; REMOTE_KERNEL_DEBUG=1 shows where")
        return 1
    if result == INTERRUPTED:  # newer typers turn KeyboardInterrupt into this result themselves
        if sys.stderr.isatty():
            note("")  # the terminal has just shown ^C
        complain(program, "interrupted")
    return result if isinstance(result, int) else 0


def complain(program: str, text: str) -> None:
    """Print one line on stderr, whatever line ends and control characters the text holds."""
    line = " ".join(filter(None, map(str.strip, text.splitlines())))
    print(f"{program}: {harmless(line)}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a result on stdout. Whoever wrote what is in it cannot steer the terminal."""
    print(harmless(text))


def say_json(value: object) -> None:
    """Print a result on stdout as JSON."""
    print(harmless_json(json.dumps(value, indent=2, ensure_ascii=False)))


def note(text: str) -> None:
    """Print progress or an aside on stderr, where it does not mix with a result. As harmless as `say`."""
    print(harmless(text), file=sys.stderr, flush=True)
