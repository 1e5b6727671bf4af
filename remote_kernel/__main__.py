"""The `remote_kernel` command: a kernel's launcher when `-f` is given, the kernelspec manager otherwise."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

# Without a command in front these are the launcher's; --endpoint is here so that a forgotten `-f` is complained of.
_LAUNCH_FLAGS = {"-f", "--connection-file", "--endpoint"}


def main() -> int:
    """Run the command and give its exit status.

    The launcher is told apart before typer is imported, and `sync` too: they would pay about 150 ms for it.
    """
    arguments = sys.argv[1:]
    flags = {word.partition("=")[0] for word in arguments}
    if flags & _LAUNCH_FLAGS and arguments[0].startswith("-"):
        from remote_kernel.options import split_arguments

        own, _ = split_arguments(arguments)
        if "REMOTE_KERNEL_SUCCEEDS" in os.environ or any(word.partition("=")[0] == "--resume" for word in own):
            from remote_kernel.kept.resume import main as launch
        else:
            from remote_kernel.launcher.launcher import main as launch

        return launch(arguments)
    if arguments[:1] == ["sync"]:
        from remote_kernel.cli.sync import main as sync

        status = sync(arguments[1:])
        if status is not None:
            _leave(status)
    from remote_kernel.cli.manager import main as manage

    return manage(arguments)


def _leave(status: int) -> NoReturn:
    """End without taking apart all that was made, which would take a twentieth of a second."""
    try:
        sys.stdout.flush()
    except OSError:
        status = status or 1  # its reader is gone, or the disk that it goes to is full
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
