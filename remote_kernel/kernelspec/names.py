"""What a kernelspec can be called: its slug, its display name, and what VS Code's menu does with them."""

from __future__ import annotations

import os
import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

from remote_kernel.errors import UsageError
from remote_kernel.kernelspec.folders import every_folder, jupyter_folders
from remote_kernel.kernelspec.installed import Kernelspec, list_kernelspecs, read_kernelspec, same_name, shown_name

_LONGEST_NAME = 100
# VS Code leaves out a kernelspec that looks like a local interpreter's own: by its folder
# (`isDefaultPythonKernelSpecName` in vscode-jupyter) or by its display name.
_HIDDEN_FOLDER = re.compile(r"python(3|\d*.?\d*$)")
_HIDDEN_NAME = re.compile(r"python\s*[\d.]*(\s*\((ipykernel|local)\))?", re.IGNORECASE)


def make_slug(display_name: str) -> str:
    """Return the folder's name: lower case, spaces and dashes to underscores, letters without accents, nothing else.

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
    """Return the name back, spaces tidied, if a new kernelspec can have it; needs no connection.

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
        if folder.name.lower() not in besides and same_name(shown_name(folder), name):
            message = f"the kernelspec '{folder.name.lower()}' is called '{name}' already"
            # VS Code shows one kernel per display name and program, so two of a name lose one.
            raise UsageError(message, "give another --name, or delete that one first")
    return name


def check_free(display_name: str, kernels: Path, *, replace: bool) -> str:
    """Return the slug under which `display_name` can be written into the folder `kernels`; needs no connection.

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
    """Return why VS Code's kernel menu leaves this kernelspec out, and what to do; two empty texts where it shows it.

    It shows one kernel per display name and program, and none that looks like a local interpreter's own.
    """
    rename = f"give it another name: remote_kernel edit {spec.slug} --name NAME"
    if _HIDDEN_FOLDER.match(spec.slug):  # `edit` keeps the folder
        hint = f"add it again with --name, then: remote_kernel delete {spec.slug}"
        return f"it takes the folder name '{spec.slug}' for a local Python's", hint
    if _HIDDEN_NAME.fullmatch(spec.display_name):
        return f"it hides kernels called '{spec.display_name}'", rename
    for other in list_kernelspecs():
        same = other.program == spec.program and same_name(other.display_name, spec.display_name)
        if same and other.folder.resolve() != spec.folder.resolve():
            return f"it shows one of two kernels called '{spec.display_name}', and '{other.slug}' is another", rename
    kernels = spec.folder.parent
    if kernels.resolve() not in [folder.resolve() for folder in jupyter_folders()]:
        hint = f"set JUPYTER_PATH={kernels.parent}" if kernels.name == "kernels" else "name the folder 'kernels'"
        return f"Jupyter does not look into {kernels}", hint
    return "", ""
