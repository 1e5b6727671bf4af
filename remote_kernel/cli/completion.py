"""Complete kernelspecs and hosts in the shell. Connects to nothing: a key press is not to wait for a network."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from remote_kernel.kernelspec import list_kernelspecs

_DEEPEST = 4


def slugs(incomplete: str) -> list[str]:
    """Give the slugs that begin so."""
    return [spec.slug for spec in list_kernelspecs() if spec.slug.startswith(incomplete.lower())]


def hosts(incomplete: str) -> list[str]:
    """Give the hosts that begin so: of kernelspecs, and the aliases of the ssh config; behind `user@` as well."""
    user, at, _ = incomplete.rpartition("@")
    known = [str(spec.options.endpoint) for spec in list_kernelspecs() if spec.options]
    known += [f"{user}{at}{host}" for host in _aliases(Path.home() / ".ssh" / "config", 0)]
    return [host for host in dict.fromkeys(known) if host.startswith(incomplete)]


def targets(incomplete: str) -> list[str]:
    """Give the slugs and the hosts that begin so."""
    return list(dict.fromkeys([*slugs(incomplete), *hosts(incomplete)]))


def _aliases(config: Path, depth: int) -> Iterator[str]:
    """Give the names of a config's Host lines, but for patterns, and those of the files that it includes."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, *words = line.replace("=", " ", 1).split() or [""]
        if keyword.lower() == "host":
            yield from (word.strip('"') for word in words if not set(word) & set("*?!"))
        elif keyword.lower() == "include" and depth < _DEEPEST:
            for word in words:
                pattern = os.path.join(Path.home(), ".ssh", os.path.expanduser(word.strip('"')))
                for found in sorted(glob.glob(pattern)):
                    yield from _aliases(Path(found), depth + 1)
