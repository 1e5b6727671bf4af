"""The kernelspecs that are installed here and run remote_kernel: read, list, find."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from remote_kernel.errors import NoSuchKernelspec, UsageError
from remote_kernel.kernelspec.folders import every_folder, read_document
from remote_kernel.options import LaunchOptions, parse_launch


class Kernelspec(NamedTuple):
    """One installed kernelspec that runs remote_kernel.

    `program` is argv up to the options. `options` is None where they cannot be read, and
    `problem` then says why. `version` is that of the remote_kernel that wrote it, empty when
    the kernel.json is somebody's own. `is_link` is true for a symbolic link to a folder. `host` is the name of the host
    on which the kernel runs that `resume` made it for.
    """

    slug: str
    folder: Path
    display_name: str
    language: str
    interrupt_mode: str
    program: tuple[str, ...]
    options: LaunchOptions | None
    version: str
    problem: str
    is_link: bool
    host: str = ""

    @property
    def was_added(self) -> bool:
        """True if `add` made it, so that `edit` and `delete` may touch it."""
        return bool(self.version) and not self.is_link


def list_kernelspecs() -> list[Kernelspec]:
    """Return every installed kernelspec that runs remote_kernel, sorted by slug; unreadable ones are left out."""
    found = [spec for folder in every_folder() if (spec := read_kernelspec(folder))]
    return sorted(found, key=lambda spec: spec.slug)


def find_kernelspec(name: str) -> Kernelspec:
    """Return the kernelspec with this slug, else the one with this display name; upper and lower case are the same.

    Raises NoSuchKernelspec with the nearest names as the hint, and UsageError where two have that display name or
    where the kernelspec of that name has nothing to do with remote_kernel.
    """
    specs = list_kernelspecs()
    for spec in specs:
        if spec.slug == name.lower():
            return spec
    named = {spec.slug: spec for spec in specs if same_name(spec.display_name, name)}
    if len(named) > 1:
        raise UsageError(f"several kernelspecs are called '{name}'", f"give one of: {', '.join(named)}")
    for spec in named.values():
        return spec
    for folder in every_folder():
        if folder.name.lower() == name.lower() or same_name(shown_name(folder), name):
            message = f"the kernelspec '{folder.name}' in {folder.parent} does not run remote_kernel"
            raise UsageError(message, "use 'jupyter kernelspec' for that one")
    hint = did_you_mean(name) or "see 'remote_kernel list'"
    raise NoSuchKernelspec(f"there is no remote kernelspec '{name}'", hint)


def did_you_mean(name: str) -> str:
    """Ask whether one of the kernelspecs with a slug or display name near to this is meant; empty where none is."""
    from difflib import get_close_matches  # only here: `sync` imports this module before it starts ssh

    known = {text.casefold(): spec.slug for spec in list_kernelspecs() for text in (spec.display_name, spec.slug)}
    near = dict.fromkeys(known[text] for text in get_close_matches(name.casefold(), known, n=2))
    return f"did you mean {' or '.join(repr(text) for text in near)}?" if near else ""


def read_kernelspec(folder: Path) -> Kernelspec | None:
    """Read one kernelspec's folder; None where it does not run remote_kernel or is no kernelspec."""
    document = read_document(folder)
    argv = document.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        argv = []
    length = program_length(argv)
    metadata = document.get("metadata")
    mark = metadata.get("remote_kernel") if isinstance(metadata, dict) else None
    if not length and not isinstance(mark, dict):
        return None
    options, problem = None, "argv does not run remote_kernel"
    if length:
        try:
            options, problem = parse_launch(argv[length:]), ""
        except UsageError as error:
            problem = error.message
    return Kernelspec(
        slug=folder.name.lower(),
        folder=folder,
        display_name=str(document.get("display_name") or folder.name),
        language=str(document.get("language") or ""),
        interrupt_mode=str(document.get("interrupt_mode") or "signal"),
        program=tuple(argv[:length]),
        options=options,
        version=str(mark.get("version") or "unknown") if isinstance(mark, dict) else "",
        problem=problem,
        is_link=folder.is_symlink(),
        host=str(mark.get("host") or "") if isinstance(mark, dict) else "",
    )


def shown_name(folder: Path) -> str:
    """Return the display name of any kernelspec's folder; empty where it has none."""
    return str(read_document(folder).get("display_name") or "")


def same_name(one: str, other: str) -> bool:
    """True if a menu would show two kernelspecs of one name."""
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def program_length(argv: Sequence[str]) -> int:
    """Count the words of argv up to the options; 0 where it does not run remote_kernel."""
    if argv and os.path.basename(argv[0]) == "remote_kernel":
        return 1
    for at in range(1, len(argv) - 1):
        if argv[at] == "-m" and argv[at + 1] == "remote_kernel":
            return at + 2
    return 0
