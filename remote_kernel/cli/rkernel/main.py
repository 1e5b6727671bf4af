"""The `rkernel` command: kernels for agents, scripts and terminals.

argparse in place of typer: an agent calls `rkernel exec` hundreds of times, and typer's import alone takes five times
as long as the rest of such a call. For the same reason only the command that is asked for is built, and what it needs
is imported where it is used.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from remote_kernel.cli.rkernel.command import COMMANDS, HELP, find_command, parse
from remote_kernel.errors import LocalFilesError, RemoteKernelError, UsageError
from remote_kernel.terminal_safe import terminal_safe

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_PIPE_BROKEN = 128 + 13  # as if SIGPIPE had ended it


def main() -> NoReturn:
    """Run the command line of this process, and end it with the exit status.

    It ends at once: taking the interpreter apart would be a tenth of a short call.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever has started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as there is a process
    os._exit(_run_and_report())


def _run_and_report() -> int:
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
        return status
    except RemoteKernelError as error:
        sys.stderr.write(terminal_safe(f"rkernel: {error}\n"))  # it may have a kernel's last words in it
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("rkernel: interrupted\n")
        return 130
    except BrokenPipeError:  # the reader of `rkernel ... | head` is gone
        return _PIPE_BROKEN
    except OSError as error:
        if error.errno in _UNWRITABLE and not error.filename:  # of what was shown, the cell has no part in it
            sys.stderr.write(f"rkernel: cannot write the output: {error.strerror}; 'rkernel wait' shows it again\n")
            return UsageError.exit_status
        sys.stderr.write(f"rkernel: {LocalFilesError.of(error)}\n")
        return LocalFilesError.exit_status


def run(arguments: Sequence[str]) -> int:
    """Run one command. Raises RemoteKernelError, UsageError among them."""
    if "_RKERNEL_COMPLETE" in os.environ:  # the shell asks, when Tab is pressed
        from remote_kernel.cli.rkernel.completion import answer

        return answer()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    if arguments[0] in ("-v", "--version"):
        from remote_kernel import __version__

        sys.stdout.write(f"rkernel {__version__}\n")
        return 0
    if arguments[0] in ("--install-completion", "--show-completion") and len(arguments) <= 2:
        from remote_kernel.cli.completion import set_up

        return set_up(*arguments, program="rkernel")
    name = arguments[0]
    command = find_command(name)
    if command is None:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'rkernel --help'"
        raise UsageError(f"there is no command '{name}'", hint)
    return command.run(parse(name, command, arguments[1:]))


if __name__ == "__main__":
    main()
