"""Notice a remote path in which the shell here has put this machine's home for a `~` that nobody had quoted."""

from __future__ import annotations

import os
import shlex

from remote_kernel.options import LaunchOptions


def advice(options: LaunchOptions, message: str) -> str:
    """Give what to do where an error's message names such a path of the options; empty where it names none.

    Only of use once a path is missing there: two homes may well have one name.
    """
    home = os.path.expanduser("~")
    for flag, path in (("--python", options.python), ("--workdir", options.workdir)):
        if path.startswith(f"{home}/") and path in message:
            meant = shlex.quote(f"~{path.removeprefix(home)}")
            return f"the shell here has put this machine's home for '~': write {flag} {meant}, in quotes"
    return ""
