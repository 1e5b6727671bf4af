"""Print to the person at the command line, and end in one line and an exit status whatever happens.

Nothing slow is imported here: `sync` runs without typer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TypeGuard

from remote_kernel.errors import LocalFilesError, RemoteKernelError
from remote_kernel.terminal_safe import terminal_safe, terminal_safe_json

INTERRUPTED = 130


def ended(program: str, action: Callable[[], object]) -> int:
    """Run `action` and return the exit status: what it returns if that is one, else that of what it raised.

    0 done, 1 an error of its own kind or a bug, 130 interrupted, else the error's status. Never a traceback. All that
    was printed has left when it returns: an interpreter that ends complains of a pipe that is closed.
    """
    _settle_streams()
    try:
        result = _status_of(program, action)
        sys.stdout.flush()
        return result
    except BrokenPipeError:  # the reader of `list | head` is gone
        _drop_output()
        return 1
    except OSError as error:
        if not _is_of_the_output(error):
            raise
        _drop_output()
        complain(program, f"cannot write the output: {(error.strerror or str(error)).lower()}; see where it goes")
        return 1


def _status_of(program: str, action: Callable[[], object]) -> int:
    try:
        result = action()
    except RemoteKernelError as error:
        complain(program, str(error))
        return error.exit_status
    except KeyboardInterrupt:
        result = INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except Exception as error:
        if _is_of_local_files(error):
            complain(program, str(LocalFilesError.of(error)))
            return LocalFilesError.exit_status
        if _is_of_the_output(error) or os.environ.get("REMOTE_KERNEL_DEBUG"):
            raise
        complain(program, f"unexpected {type(error).__name__}: {error}; REMOTE_KERNEL_DEBUG=1 shows where")
        return 1
    if result == INTERRUPTED:  # newer typers turn KeyboardInterrupt into this result themselves
        if sys.stderr.isatty():
            note("")  # the terminal has just shown ^C
        complain(program, "interrupted")
    return result if isinstance(result, int) else 0


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _is_of_the_output(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EPIPE, *_FULL) and not error.filename


def _is_of_local_files(error: Exception) -> TypeGuard[OSError]:
    if not isinstance(error, OSError):
        return False
    if error.filename:
        return error.errno in (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS)
    return error.errno == errno.ENOENT


def _settle_streams() -> None:
    """Open the standard streams that the caller has closed; let those for output take any letter."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  for as long as there is a process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as there is a process
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a display name in a terminal of few letters


def _drop_output() -> None:
    """Keep the interpreter from flushing what is left into nothing at exit, which it would complain of."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(program: str, text: str) -> None:
    """Print one line on stderr, whatever line ends and control characters the text holds."""
    line = " ".join(filter(None, map(str.strip, text.splitlines())))
    print(f"{program}: {terminal_safe(line)}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a result on stdout. Whoever wrote what is in it cannot steer the terminal."""
    print(terminal_safe(text))


def say_json(value: object) -> None:
    """Print a result on stdout as JSON: in UTF-8, or in ASCII where stdout is in another encoding."""
    in_unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print(terminal_safe_json(json.dumps(value, indent=2, ensure_ascii=not in_unicode)))


def note(text: str, *, end: str = "\n") -> None:
    """Print progress or an aside on stderr, where it does not mix with a result. As safe as `say`."""
    print(terminal_safe(text), end=end, file=sys.stderr, flush=True)
