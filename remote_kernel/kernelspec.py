"""Keep the kernelspecs of remote kernels: write, list, find, change and remove kernel.json.

A kernelspec is a folder `SLUG/` with kernel.json and logos inside one of Jupyter's `kernels`
folders. Its argv is a LaunchOptions written out, and the only record of the settings. Those
that `add` wrote carry `metadata.remote_kernel`; only they are ever changed or removed here.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_kernel import __version__
from remote_kernel.errors import NoSuchKernelspec, RemoteKernelError, UsageError
from remote_kernel.options import LaunchOptions, find_program, parse_launch

LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
_LONGEST_NAME = 100
# VS Code leaves out a kernelspec that looks like a local interpreter's own: by its folder
# (`isDefaultPythonKernelSpecName` in vscode-jupyter) or by its display name.
_HIDDEN_FOLDER = re.compile(r"python(3|\d*.?\d*$)")
_HIDDEN_NAME = re.compile(r"python\s*[\d.]*(\s*\((ipykernel|local)\))?", re.IGNORECASE)
# jupyter_client fills these in anywhere in argv; VS Code only the first of them.
_PLACEHOLDERS = ("{connection_file}", "{resource_dir}", "{prefix}")


@dataclass(frozen=True)
class Kernelspec:
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
        """Tell whether `add` made it, so that `edit` and `delete` may touch it."""
        return bool(self.version) and not self.is_link


@dataclass(frozen=True)
class Draft:
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
        """Give kernel.json's argv. Raises UsageError if Jupyter would replace a part of a setting."""
        words = self.options._replace(connection_file="").to_arguments()
        for placeholder in _PLACEHOLDERS:
            if any(placeholder in word for word in words[:-1]):
                hint = "write $prefix without braces" if placeholder == "{prefix}" else "leave it out"
                raise UsageError(f"Jupyter would replace '{placeholder}' in the settings", hint)
        return [*(self.program or program_arguments()), *words]


def program_arguments() -> tuple[str, ...]:
    """Give the start of argv that runs this installation: the command's absolute path, else `python -m`."""
    found = find_program()
    return (os.path.abspath(found),) if found else (sys.executable, "-m", "remote_kernel")


# Where kernelspecs are


def kernels_folder(*, user: bool = False, sys_prefix: bool = False, prefix: str = "") -> Path:
    """Give the folder that new kernelspecs go to; it need not exist.

    Without an option LOCAL_KERNELS_DIR decides, else it is the user's: `jupyter --data-dir` plus `kernels`.
    """
    if sum((user, sys_prefix, bool(prefix))) > 1:
        raise UsageError("more than one of --user, --sys-prefix and --prefix is given", "give one")
    if sys_prefix or prefix:
        return Path(os.path.abspath(os.path.expanduser(prefix or sys.prefix))) / "share" / "jupyter" / "kernels"
    if not user and (chosen := _local_kernels_folder()):
        return chosen
    from jupyter_core.paths import jupyter_data_dir

    return Path(os.path.abspath(jupyter_data_dir())) / "kernels"


def jupyter_folders() -> list[Path]:
    """Give the folders in which Jupyter looks for kernelspecs, the strongest first."""
    from jupyter_core.paths import jupyter_path

    return list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in jupyter_path("kernels")))


def list_kernelspecs() -> list[Kernelspec]:
    """Give every installed kernelspec that runs remote_kernel, sorted by slug; unreadable ones are left out."""
    found = [spec for folder in every_folder() if (spec := read_kernelspec(folder))]
    return sorted(found, key=lambda spec: spec.slug)


def find_kernelspec(name: str) -> Kernelspec:
    """Give the kernelspec with this slug, else the one with this display name; upper and lower case are the same.

    Raises NoSuchKernelspec with the nearest names as the hint, and UsageError where two have that display name or
    where the kernelspec of that name has nothing to do with remote_kernel.
    """
    specs = list_kernelspecs()
    for spec in specs:
        if spec.slug == name.lower():
            return spec
    named = {spec.slug: spec for spec in specs if _same_name(spec.display_name, name)}
    if len(named) > 1:
        raise UsageError(f"several kernelspecs are called '{name}'", f"give one of: {', '.join(named)}")
    for spec in named.values():
        return spec
    for folder in every_folder():
        if folder.name.lower() == name.lower() or _same_name(_display_name(folder), name):
            message = f"the kernelspec '{folder.name}' in {folder.parent} does not run remote_kernel"
            raise UsageError(message, "'jupyter kernelspec' looks after that one")
    known = {text.casefold(): spec.slug for spec in specs for text in (spec.display_name, spec.slug)}
    near = dict.fromkeys(known[text] for text in difflib.get_close_matches(name.casefold(), known, n=2))
    hint = f"did you mean {' or '.join(repr(text) for text in near)}?" if near else "see 'remote_kernel list'"
    raise NoSuchKernelspec(f"there is no remote kernelspec '{name}'", hint)


def read_kernelspec(folder: Path) -> Kernelspec | None:
    """Read one kernelspec's folder; None where it does not run remote_kernel or is no kernelspec."""
    document = read_document(folder)
    argv = document.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        argv = []
    length = _program_length(argv)
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


# What kernelspecs are called


def make_slug(display_name: str) -> str:
    """Give the folder's name: lower case, spaces and dashes to underscores, letters without accents, nothing else.

    The result matches Jupyter's `[a-z0-9._-]+`, holds no `..`, and is not one that VS Code hides. A name without any
    Latin letter or digit gives a checksum.
    """
    plain = unicodedata.normalize("NFKD", display_name.casefold())
    text = "".join(sign for sign in plain if not unicodedata.combining(sign))
    slug = re.sub(r"_+", "_", re.sub(r"[^a-z0-9.]", "_", text))
    slug = re.sub(r"_?\.[._]*", ".", slug).strip("._")
    if not slug and any(sign.isalnum() for sign in text):
        slug = f"remote_{zlib.crc32(text.encode()):08x}"  # a name in another script, for example Chinese
    if not slug:
        raise UsageError(f"the name '{display_name}' has no letter or digit", "give another --name")
    return f"remote_{slug}" if _HIDDEN_FOLDER.match(slug) else slug


def check_display_name(display_name: str, kernels: Path | None = None, *, besides: Sequence[str] = ()) -> str:
    """Give the name back, spaces tidied, if a new kernelspec can have it; needs no connection.

    `kernels` is a folder to look into as well as Jupyter's. `besides` are the slugs of kernelspecs that are about to go
    or change. Raises UsageError for a name that is empty, too long or not printable, that VS Code would hide, or that
    another kernelspec has.
    """
    name = " ".join(display_name.split())
    if not name or not name.isprintable():
        raise UsageError("a display name has to have visible characters", 'write for example --name "Remote CUDA"')
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"the display name has {len(name)} characters", f"give at most {_LONGEST_NAME}")
    if _HIDDEN_NAME.fullmatch(name):
        raise UsageError(f"VS Code hides kernels called '{name}'", f'write for example --name "Remote {name}"')
    for folder in every_folder(kernels):
        if folder.name.lower() not in besides and _same_name(_display_name(folder), name):
            message = f"the kernelspec '{folder.name.lower()}' is called '{name}' already"
            # VS Code shows one kernel per display name and program, so two of a name lose one.
            raise UsageError(message, "give another --name, or delete that one first")
    return name


def check_free(display_name: str, kernels: Path, *, replace: bool) -> str:
    """Give the slug under which `display_name` can be written into the folder `kernels`; needs no connection.

    Called before the remote host is asked anything and again by write_kernelspec. Raises UsageError where the slug or
    the name is taken; with `replace`, one in the same folder that `add` made does not count.
    """
    slug = make_slug(display_name)
    target = kernels / slug
    taken = [folder for folder in every_folder(kernels) if folder.name.lower() == slug]
    if os.path.lexists(target) and target not in taken:
        taken.append(target)
    for folder in taken:
        spec = read_kernelspec(folder)
        if spec is None or not spec.was_added:
            raise UsageError(f"{folder} was not made by 'remote_kernel add'", "give another --name")
        if folder.parent.resolve() != kernels.resolve():
            hint = "delete it first, or give another --name"
            raise UsageError(f"there is a kernelspec '{slug}' in {folder.parent}", hint)
        if not replace:
            hint = "add --replace, give another --name, or use 'remote_kernel edit'"
            raise UsageError(f"the kernelspec '{slug}' exists already", hint)
    check_display_name(display_name, kernels, besides=(slug,) if replace else ())
    return slug


def unseen_by_vs_code(spec: Kernelspec) -> tuple[str, str]:
    """Say why VS Code's kernel menu leaves this kernelspec out, and what to do; two empty texts where it shows it.

    It shows one kernel per display name and program, and none that looks like a local interpreter's own.
    """
    rename = f"give it another name: remote_kernel edit {spec.slug} --name NAME"
    if _HIDDEN_FOLDER.match(spec.slug):  # `edit` keeps the folder
        hint = f"add it again with --name, then: remote_kernel delete {spec.slug}"
        return f"it takes the folder name '{spec.slug}' for a local Python's", hint
    if _HIDDEN_NAME.fullmatch(spec.display_name):
        return f"it hides kernels called '{spec.display_name}'", rename
    for other in list_kernelspecs():
        same = other.program == spec.program and _same_name(other.display_name, spec.display_name)
        if same and other.folder.resolve() != spec.folder.resolve():
            return f"it shows one of two kernels called '{spec.display_name}', and '{other.slug}' is another", rename
    kernels = spec.folder.parent
    if kernels.resolve() not in [folder.resolve() for folder in jupyter_folders()]:
        hint = f"set JUPYTER_PATH={kernels.parent}" if kernels.name == "kernels" else "name the folder 'kernels'"
        return f"Jupyter does not look into {kernels}", hint
    return "", ""


# Writing


def write_kernelspec(draft: Draft, kernels: Path, *, replace: bool = False) -> Kernelspec:
    """Install a kernelspec in the folder `kernels` as a whole or not at all, and give it as it is read back.

    Raises UsageError where check_free does, RemoteKernelError where the folder cannot be written.
    """
    slug = check_free(draft.display_name, kernels, replace=replace)
    target = kernels / slug
    if replace and target.is_dir():
        return _overwrite(target, kernel_document(draft), _template(draft.language))
    with _writing(kernels):
        kernels.mkdir(parents=True, exist_ok=True)
        # One level deeper than Jupyter looks, so that it never sees half a kernelspec.
        with tempfile.TemporaryDirectory(prefix=".remote_kernel-", dir=kernels) as hidden:
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
    if not _same_name(draft.display_name, spec.display_name):
        check_display_name(draft.display_name, besides=(spec.slug,))
    document = read_document(spec.folder)
    fresh = kernel_document(draft)
    metadata = {**document.get("metadata", {}), **fresh["metadata"]}
    if "debugger" not in fresh["metadata"]:
        metadata.pop("debugger", None)
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
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv) or not _program_length(argv):
        raise UsageError("argv does not run remote_kernel", "the kernelspec is as it was")
    for key in ("display_name", "language"):
        if not isinstance(document.get(key), str):
            raise UsageError(f"'{key}' is missing or not a string", "the kernelspec is as it was")
    if document.get("interrupt_mode", "signal") not in ("signal", "message"):
        raise UsageError("interrupt_mode is neither 'signal' nor 'message'", "the kernelspec is as it was")
    options = parse_launch(argv[_program_length(argv) :])
    if options.connection_file != "{connection_file}":
        raise UsageError("argv does not end in '-f {connection_file}'", "the kernelspec is as it was")
    Draft(document["display_name"], options).argv()
    if not _same_name(document["display_name"], spec.display_name):
        check_display_name(document["display_name"], besides=(spec.slug,))
    document["metadata"] = {**document.get("metadata", {}), "remote_kernel": {"version": __version__}}
    return _overwrite(spec.folder, document, None)


def remove_kernelspec(spec: Kernelspec) -> None:
    """Delete the folder of a kernelspec that `add` made; symbolic links are never followed.

    Raises UsageError for any other, RemoteKernelError where the folder cannot be written.
    """
    require_added(spec)
    with _writing(spec.folder), tempfile.TemporaryDirectory(prefix=".remote_kernel-", dir=spec.folder.parent) as hidden:
        # Jupyter loses sight of it in one step, however long the deleting takes.
        spec.folder.rename(Path(hidden) / spec.slug)


def forget_kernel(identity: str, where: str = "") -> list[str]:
    """Remove the kernelspecs that 'resume' made for a kernel, which has ended; give their slugs. Idempotent.

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
    """Give kernel.json's object, from the template of the draft's language."""
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
    """Give the template folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RemoteKernelError(
            f"cannot write {path}: {reason}", "make room there, or choose a folder with --prefix or LOCAL_KERNELS_DIR"
        ) from error


# Reading


def _local_kernels_folder() -> Path | None:
    chosen = os.environ.get("LOCAL_KERNELS_DIR", "")
    return Path(os.path.abspath(os.path.expanduser(chosen))) if chosen else None


def every_folder(extra: Path | None = None) -> Iterator[Path]:
    """Give the folders of all kernelspecs installed here and in `extra`, ours or not, the strongest first."""
    chosen = [folder for folder in (_local_kernels_folder(), extra) if folder]
    places = [*chosen, *jupyter_folders(), kernels_folder(sys_prefix=True)]
    seen: set[Path] = set()
    for kernels in places:
        if (real := kernels.resolve()) in seen:
            continue
        seen.add(real)
        try:
            folders = sorted(kernels.iterdir())
        except OSError:
            continue
        yield from (folder for folder in folders if (folder / "kernel.json").is_file())


def read_document(folder: Path) -> dict[str, Any]:
    """Give kernel.json's object; empty where it is missing or garbage, which is not ours to report."""
    try:
        document = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_back(folder: Path) -> Kernelspec:
    spec = read_kernelspec(folder)
    if spec is None or spec.options is None:
        raise RemoteKernelError(f"{folder / 'kernel.json'} does not read back as it was written", "report this")
    return spec


def _display_name(folder: Path) -> str:
    return str(read_document(folder).get("display_name") or "")


def _same_name(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _program_length(argv: Sequence[str]) -> int:
    """Count the words of argv up to the options; 0 where it does not run remote_kernel."""
    if argv and os.path.basename(argv[0]) == "remote_kernel":
        return 1
    for at in range(1, len(argv) - 1):
        if argv[at] == "-m" and argv[at + 1] == "remote_kernel":
            return at + 2
    return 0
