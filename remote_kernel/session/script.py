"""Run a file's code as `python FILE ARGUMENTS` would: its arguments, its folder, and its exit status.

What a Python kernel needs for it goes there as a request of its own, right before the code, which stays as it is. The
kernel takes it back when the code has ended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from remote_kernel.session.record import Record

# What Python makes of a SystemExit that holds no number: it is known here by its text only.
_NO_NUMBERS = {"": 0, "None": 0, "False": 0, "True": 1}

# `exit` and `quit` are IPython's, which end the kernel. Its advice on how to leave is not for a script that has ended.
_PREPARE = """\
def prepare(argv, here, below, is_here):
    import os, sys, warnings
    from IPython import get_ipython
    shell = get_ipython()
    getattr(shell, '_remote_kernel_script', lambda: None)()
    there = os.path.join(os.getcwd(), below)
    path = here if is_here or (os.path.exists(here) and not os.path.exists(there)) else there
    names = {'__file__': path, 'exit': sys.exit, 'quit': sys.exit}
    before = {name: shell.user_ns[name] for name in names if name in shell.user_ns}
    folder, argv_before = os.path.dirname(path), sys.argv
    warnings.filterwarnings('ignore', 'To exit: use', UserWarning)
    warning = warnings.filters[0]
    sys.argv = argv
    sys.path.insert(0, folder)
    shell.user_ns.update(names)
    def restore(*_):
        shell.events.unregister('post_run_cell', restore)
        del shell._remote_kernel_script
        sys.argv = argv_before
        if folder in sys.path:
            sys.path.remove(folder)
        if warning in warnings.filters:
            warnings.filters.remove(warning)
        for name in names:
            shell.user_ns.pop(name, None)
        shell.user_ns.update(before)
    shell._remote_kernel_script = restore
    shell.events.register('post_run_cell', restore)
"""


def preparation(script: Sequence[str], record: Record) -> dict[str, Any]:
    """Return the content of the execute_request that comes before the code of a script.

    `script` is the file's path on this machine, and then sys.argv. For a kernel of this machine `__file__` is that
    path. On another the file is taken to lie below the kernel's folder as it lies here below the session's, unless
    only the same path exists there.
    """
    path, *argv = script
    below = os.path.relpath(path, record.cwd)
    if below.startswith(os.pardir):
        below = os.path.basename(path)
    is_here = not record.host and not record.is_attached
    arguments = f"{argv!r}, {path!r}, {below!r}, {is_here!r}"
    return {
        "code": f"(lambda ns: (exec({_PREPARE!r}, ns), ns['prepare']({arguments})))({{}})",
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def exit_status(value: str) -> int | None:
    """Return the exit status that Python makes of a SystemExit with this text; None for a message, which means 1."""
    if value in _NO_NUMBERS:
        return _NO_NUMBERS[value]
    return int(value) & 0xFF if value.removeprefix("-").isdecimal() else None
