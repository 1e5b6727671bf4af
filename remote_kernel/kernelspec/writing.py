"""Write kernel.json: install a kernelspec, change it, remove it; each at once or not at all.

Only those that `add` made, which carry `metadata.remote_kernel`, are ever changed or removed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from remote_kernel import __version__
from remote_kernel.errors import LocalFilesError, RemoteKernelError, UsageError
from remote_kernel.kernelspec.folders import read_document
from remote_kernel.kernelspec.installed import (
    Kernelspec,
    list_kernelspecs,
    program_length,
    read_kernelspec,
    same_name,
)
from remote_kernel.kernelspec.names import check_display_name, check_free
from remote_kernel.options import LaunchOptions, find_program, parse_launch

WAY_OUT = ", or choose another folder with --prefix or LOCAL_KERNELS_DIR"
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
# jupyter_client fills these in anywhere in argv; VS Code only the first of them.
_PLACEHOLDERS = ("{connection_file}", "{resource_dir}", "{prefix}")


class Draft(NamedTuple):
    """What a kernelspec is to say. An empty `program` is the remote_kernel command of this installation.

    `host` is the name of the host on which a kernel runs that is to be resumed.
    """

    display_name: str
    options: LaunchOptions
    language: str = "python"
    interrupt_mode: str = "signal"
    program: tuple[str, ...] = ()
    host: str = ""

    def argv(self) -> list[str]:
        """Return kernel.json's argv. Raises UsageError if Jupyter would replace a part of a setting."""
        words = self.options._replace(connection_file="").to_arguments()
        settings = self.options._replace(connection_file="-").to_arguments()
        for placeholder in _PLACEHOLDERS:
            if any(placeholder in word for word in settings):
                hint = "write $prefix without braces" if placeholder == "{prefix}" else "leave it out"
                raise UsageError(f"Jupyter would replace '{placeholder}' in the settings", hint)
        return [*(self.program or program_arguments()), *words]


def program_arguments() -> tuple[str, ...]:
    """Return the start of argv that runs this installation: the command's absolute path, else `python -m`."""
    found = find_program()
    return (os.path.abspath(found),) if found else (sys.executable, "-m", "remote_kernel")


def write_kernelspec(draft: Draft, kernels: Path, *, replace: bool = False) -> Kernelspec:
    """Install a kernelspec in the folder `kernels` as a whole or not at all, and return it as it is read back.

    Raises UsageError where check_free does, RemoteKernelError where the folder cannot be written.
    """
    slug = check_free(draft.display_name, kernels, replace=replace)
    target = kernels / slug
    if replace and target.is_dir():
        return _overwrite(target, kernel_document(draft), _template(draft.language))
    with _writing(kernels, WAY_OUT):
        kernels.mkdir(parents=True, exist_ok=True)
        # One level deeper than Jupyter looks, so that it never sees half a kernelspec.
        with _hidden(kernels) as hidden:
            fresh = Path(hidden) / slug
            fresh.mkdir()
            _fill(fresh, kernel_document(draft), _template(draft.language))
            fresh.rename(target)
    return _read_back(target)


def rewrite_kernelspec(spec: Kernelspec, draft: Draft) -> Kernelspec:
    """Change a kernelspec where it is; what a person added to its kernel.json and its logos stay.

    The slug stays even if the name changes: notebooks remember it. Raises UsageError if `add` did not make it.
    """
    require_added(spec)
    if not same_name(draft.display_name, spec.display_name):
        check_display_name(draft.display_name, besides=(spec.slug,))
    document = read_document(spec.folder)
    fresh = kernel_document(draft)
    metadata = {**document.get("metadata", {}), **fresh["metadata"]}
    for name in {"debugger", "supported_encryption"} - fresh["metadata"].keys():  # what only a Python kernel has
        metadata.pop(name, None)
    changed_kind = _template(draft.language) != _template(spec.language)
    return _overwrite(
        spec.folder, {**document, **fresh, "metadata": metadata}, _template(draft.language) if changed_kind else None
    )


def replace_document(spec: Kernelspec, text: str) -> Kernelspec:
    """Write a kernel.json that a person edited, if it still describes a remote kernel; else raise and change nothing.

    The mark that `add` made is kept even if the text lacks it. Raises UsageError.
    """
    require_added(spec)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"that is not JSON: {error}", "the kernelspec is as it was") from error
    if not isinstance(document, dict) or not isinstance(document.get("metadata", {}), dict):
        raise UsageError("kernel.json and its metadata have to be JSON objects", "the kernelspec is as it was")
    argv = document.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv) or not program_length(argv):
        raise UsageError("argv does not run remote_kernel", "the kernelspec is as it was")
    for key in ("display_name", "language"):
        if not isinstance(document.get(key), str):
            raise UsageError(f"'{key}' is missing or not a string", "the kernelspec is as it was")
    if document.get("interrupt_mode", "signal") not in ("signal", "message"):
        raise UsageError("interrupt_mode is neither 'signal' nor 'message'", "the kernelspec is as it was")
    options = parse_launch(argv[program_length(argv) :])
    if options.connection_file != "{connection_file}":
        raise UsageError("argv lacks '-f {connection_file}'", "the kernelspec is as it was")
    Draft(document["display_name"], options).argv()
    if not same_name(document["display_name"], spec.display_name):
        check_display_name(document["display_name"], besides=(spec.slug,))
    document["metadata"] = {**document.get("metadata", {}), "remote_kernel": {"version": __version__}}
    return _overwrite(spec.folder, document, None)


def remove_kernelspec(spec: Kernelspec) -> None:
    """Delete the folder of a kernelspec that `add` made; symbolic links are never followed.

    Raises UsageError for any other, RemoteKernelError where the folder cannot be written.
    """
    require_added(spec)
    with _writing(spec.folder), _hidden(spec.folder.parent) as hidden:
        # Jupyter loses sight of it in one step, however long the deleting takes.
        spec.folder.rename(Path(hidden) / spec.slug)


def forget_kernel(identity: str, where: str = "") -> list[str]:
    """Remove the kernelspecs that 'resume' made for a kernel, which has ended; return their slugs. Idempotent.

    `where` is a text that names the host where the kernel was looked for: another host's kernels stay.
    """
    gone = []
    for spec in list_kernelspecs():
        if spec.was_added and spec.options and spec.options.resume == identity and (not where or spec.host in where):
            try:
                remove_kernelspec(spec)
            except RemoteKernelError:  # another launcher of the same kernel is doing it, or the disk is read-only
                continue
            gone.append(spec.slug)
    return gone


def require_added(spec: Kernelspec) -> None:
    """Raise UsageError unless `add` made this kernelspec."""
    if spec.is_link:
        raise UsageError(f"{spec.folder} is a symbolic link to {spec.folder.resolve()}", "change or remove it by hand")
    if not spec.version:
        raise UsageError(f"{spec.folder} was not made by 'remote_kernel add'", "change or remove it by hand")


def kernel_document(draft: Draft) -> dict[str, Any]:
    """Return kernel.json's object, from the template of the draft's language."""
    document: dict[str, Any] = json.loads((_template(draft.language) / "kernel.json").read_text(encoding="utf-8"))
    document["argv"] = draft.argv()
    document["display_name"] = draft.display_name
    document["language"] = draft.language
    document["interrupt_mode"] = draft.interrupt_mode
    document["metadata"]["remote_kernel"] = {"version": __version__}
    if draft.host:
        document["metadata"]["remote_kernel"]["host"] = draft.host
    return document


def _template(language: str) -> Path:
    """Return the template folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "kernelspecs"
    return (shipped if shipped.is_dir() else package.parent / "kernelspecs") / (
        "python" if language.lower() == "python" else "other"
    )


def _overwrite(folder: Path, document: dict[str, Any], template: Path | None) -> Kernelspec:
    with _writing(folder):
        _fill(folder, document, template)
    return _read_back(folder)


def _fill(folder: Path, document: dict[str, Any], template: Path | None) -> None:
    """Put the logos and then kernel.json into `folder`, each at once: a reader sees the old file or the new."""
    contents = {name: (template / name).read_bytes() for name in LOGOS} if template else {}
    contents["kernel.json"] = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
    for name, content in contents.items():
        fresh = folder / f".{name}.new"
        try:
            fresh.write_bytes(content)
            fresh.replace(folder / name)
        finally:
            fresh.unlink(missing_ok=True)


def _hidden(folder: Path) -> TemporaryDirectory[str]:
    """Make a folder in that one, for a `with` block, whose name no front end reads."""
    return TemporaryDirectory(prefix=".remote_kernel-", dir=folder)


def check_writable(kernels: Path) -> None:
    """Raise RemoteKernelError if no kernelspec can be written into this folder; makes nothing."""
    place = next(path for path in (kernels, *kernels.parents) if path.exists())
    with _writing(kernels, WAY_OUT):
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def _writing(path: Path, way_out: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see who may write there"
        raise LocalFilesError(f"cannot write {path}: {reason}", hint + way_out) from error


def _read_back(folder: Path) -> Kernelspec:
    spec = read_kernelspec(folder)
    if spec is None or spec.options is None:
        raise RemoteKernelError(f"{folder / 'kernel.json'} does not read back as it was written", "report this")
    return spec
