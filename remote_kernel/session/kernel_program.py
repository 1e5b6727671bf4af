"""Find what a session's kernel is started with: any kernelspec of this machine, remote or local."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from remote_kernel.errors import NoSuchKernelspec, UsageError
from remote_kernel.kernelspec.folders import every_folder, read_document
from remote_kernel.kernelspec.installed import read_kernelspec
from remote_kernel.remote.kernel import filled_in

_SHOWN = 8  # kernelspecs in an error


class Program(NamedTuple):
    """A kernelspec as far as starting needs it.

    `host` is the endpoint of a remote one, empty for a local kernel. `folder` is where a remote kernel starts on its
    host; empty for a local one, which starts where it is told to, and for one that runs already.
    """

    kernelspec: str
    display_name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    language: str
    interrupt_mode: str
    host: str
    folder: str = ""

    def command(self, connection_file: str) -> list[str]:
        """Return the argv for this connection file."""
        words = [word.replace("{connection_file}", connection_file) for word in self.argv]
        if words[0] in ("python", "python3"):  # as jupyter_client: the interpreter that Jupyter runs in
            words[0] = sys.executable
        return words


def list_programs() -> Iterator[Program]:
    """Yield every kernelspec that a session can be made with, the strongest of each name only. Blocks on the disk."""
    seen = set()
    for folder in every_folder():
        if folder.name.lower() in seen:
            continue
        seen.add(folder.name.lower())
        with contextlib.suppress(UsageError):
            yield _read(folder)


def find_program(name: str, workdir: str = "") -> Program:
    """Return the kernelspec with this slug, else the one with this display name. Raises NoSuchKernelspec, UsageError.

    `workdir` is the folder on the host to start a remote one in, in place of its own.
    """
    for folder in every_folder():
        display_name = str(read_document(folder).get("display_name") or folder.name)
        if name.lower() in (folder.name.lower(), display_name.lower()):
            return _read(folder, workdir)
    known = list(list_programs())
    near = difflib.get_close_matches(name, [text for one in known for text in (one.kernelspec, one.display_name)], n=2)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise NoSuchKernelspec(f"there is no kernelspec '{name}'", f"{hint}{what_there_is(known)}")


def _read(folder: Path, workdir: str = "") -> Program:
    document = read_document(folder)
    argv = document.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise UsageError(f"the kernelspec '{folder.name}' in {folder} has no argv", "mend it there")
    environment = document.get("env") or {}
    if not isinstance(environment, dict):
        raise UsageError(f"the kernelspec '{folder.name}' in {folder} has an env that is no object", "mend it there")
    remote = read_kernelspec(folder)
    options = remote.options if remote else None
    if remote and options and workdir:
        if options.resume:
            raise UsageError(f"the kernel of '{folder.name}' runs already, in a folder of its own", "leave out --cwd")
        options = options._replace(workdir=workdir)
        argv = [*remote.program, *options.to_arguments()]
    return Program(
        kernelspec=folder.name,
        display_name=str(document.get("display_name") or folder.name),
        argv=tuple(word.replace("{resource_dir}", str(folder)).replace("{prefix}", sys.prefix) for word in argv),
        env=filled_in([(str(key), str(value)) for key, value in environment.items()], os.environ),
        language=str(document.get("language") or ""),
        interrupt_mode=str(document.get("interrupt_mode") or "signal"),
        host=str(options.endpoint) if options else "",
        folder=(options.workdir or "~") if options and not options.resume else "",
    )


def what_there_is(programs: Iterable[Program]) -> str:
    """Return which of these -k takes: a few of their names, and the command that lists all."""
    names = [program.kernelspec for program in programs]
    if not names:
        return "make one with 'remote_kernel add HOST', or install ipykernel for one on this machine"
    shown = ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
    return f"-k takes {shown}; 'rkernel kernelspecs' lists them"


def default_kernelspec() -> str:
    """Return the only remote kernelspec that there is. Raises UsageError where there are several, or none."""
    programs = list(list_programs())
    remote = [program.kernelspec for program in programs if program.host]
    if not remote:
        raise NoSuchKernelspec("there is no remote kernelspec yet", what_there_is(programs))
    if len(remote) > 1:
        raise UsageError("there are several kernelspecs", what_there_is(programs))
    return remote[0]
