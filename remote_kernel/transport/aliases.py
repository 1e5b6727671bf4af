"""Read the names that an ssh config gives to hosts, without asking ssh or paramiko."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions

_DEEPEST = 4
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)([^#]*)")
_USUAL = ("~/.ssh/config", "/etc/ssh/ssh_config")


def aliases(ssh_config: str = "") -> Iterator[str]:
    """Return the names of a config's Host lines, and of the files that it includes; patterns are left out."""
    for path in [ssh_config] if ssh_config else _USUAL:
        yield from _aliases(os.path.expanduser(path), 0)


def as_the_config_has_it(options: LaunchOptions) -> Endpoint:
    """Return the endpoint that ssh is to be given: `gpu:1` is an alias if the config has such a one, and no port."""
    host, user, port = options.endpoint
    if port and f"{host}:{port}" in aliases(options.ssh_config):
        return Endpoint(f"{host}:{port}", user)
    return options.endpoint


def _aliases(path: str, depth: int) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        found = _LINE.match(line)
        keyword, words = (found[1].lower(), found[2].split()) if found else ("", [])
        if keyword == "host":
            yield from (word.strip('"') for word in words if not set(word) & set("*?!"))
        elif keyword == "include" and depth < _DEEPEST:
            import glob  # only here: the launcher imports this module before it starts ssh

            for word in words:
                pattern = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(word.strip('"')))
                for included in sorted(glob.glob(pattern)):
                    yield from _aliases(included, depth + 1)
