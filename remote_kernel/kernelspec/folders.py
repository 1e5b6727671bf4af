"""Where kernelspecs are: Jupyter's `kernels` folders, and kernel.json in each folder of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_kernel.errors import UsageError


def kernels_folder(*, user: bool = False, sys_prefix: bool = False, prefix: str = "") -> Path:
    """Return the folder that new kernelspecs go to; it need not exist.

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
    """Return the folders in which Jupyter looks for kernelspecs, the strongest first."""
    from jupyter_core.paths import jupyter_path

    return list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in jupyter_path("kernels")))


def every_folder(extra: Path | None = None) -> Iterator[Path]:
    """Return the folders of all kernelspecs installed here and in `extra`, ours or not, the strongest first."""
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
    """Return kernel.json's object; empty where it is missing or garbage, which is not ours to report."""
    try:
        document = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _local_kernels_folder() -> Path | None:
    chosen = os.environ.get("LOCAL_KERNELS_DIR", "")
    return Path(os.path.abspath(os.path.expanduser(chosen))) if chosen else None
