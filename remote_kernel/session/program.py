"""What a session's kernel is started with: any kernelspec of this machine, remote or local."""

from __future__ import annotations

import difflib
import os
import sys
from typing import NamedTuple

from remote_kernel.errors import NoSuchKernelspec, UsageError
from remote_kernel.kernelspec import every_folder, list_kernelspecs, read_document, read_kernelspec


class Program(NamedTuple):
    """A kernelspec as far as starting needs it. `host` is the endpoint of a remote one, empty for a local kernel."""

    kernelspec: str
    display_name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    language: str
    interrupt_mode: str
    host: str

    def command(self, connection_file: str) -> list[str]:
        """Give the argv for this connection file."""
        words = [word.replace("{connection_file}", connection_file) for word in self.argv]
        if words[0] in ("python", "python3"):  # as jupyter_client: the interpreter that Jupyter runs in
            words[0] = sys.executable
        return words


def find_program(name: str) -> Program:
    """Give the kernelspec with this slug, else the one with this display name. Raises NoSuchKernelspec, UsageError."""
    known: dict[str, str] = {}
    for folder in every_folder():
        document = read_document(folder)
        display_name = str(document.get("display_name") or folder.name)
        known.setdefault(folder.name, display_name)
        if name.lower() not in (folder.name.lower(), display_name.lower()):
            continue
        argv = document.get("argv")
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise UsageError(f"the kernelspec '{name}' in {folder} has no argv", "write it anew")
        environment = document.get("env")
        remote = read_kernelspec(folder)
        return Program(
            kernelspec=folder.name,
            display_name=display_name,
            argv=tuple(word.replace("{resource_dir}", str(folder)).replace("{prefix}", sys.prefix) for word in argv),
            env={str(key): os.path.expandvars(str(value)) for key, value in dict(environment or {}).items()},
            language=str(document.get("language") or ""),
            interrupt_mode=str(document.get("interrupt_mode") or "signal"),
            host=str(remote.options.endpoint) if remote and remote.options else "",
        )
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see 'remote_kernel list', or add one"
    raise NoSuchKernelspec(f"there is no kernelspec '{name}'", hint)


def default_kernelspec() -> str:
    """Give the only remote kernelspec that there is. Raises UsageError where there are several, or none."""
    slugs = [spec.slug for spec in list_kernelspecs() if spec.options]
    if not slugs:
        raise NoSuchKernelspec(
            "there is no remote kernelspec yet", "make one with 'remote_kernel add HOST', or give a local one with -k"
        )
    if len(slugs) > 1:
        raise UsageError("there are several kernelspecs", f"give one with -k: {', '.join(slugs)}")
    return slugs[0]
