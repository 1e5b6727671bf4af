"""Keep the developer's machine out of the tests: folders, agents and settings of Jupyter and SSH."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SESSION_MARKER = "RK_TEST_SESSION"

ORIGINAL_ENVIRON = dict(os.environ)
"""The environment as pytest was given it, for what needs the user's own: pip's settings, pyenv."""

_FOREIGN = ("SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_CONNECTION", "IPYTHONDIR", "MPLBACKEND", "MPLCONFIGDIR")
_FOREIGN_PREFIXES = ("JUPYTER", "JPY_", "REMOTE_KERNEL", "RKERNEL", "XDG_")


class Isolation(NamedTuple):
    """The private folders of one test session, and the marker that its processes carry in their environment."""

    marker: str
    home: Path
    runtime: Path
    """XDG_RUNTIME_DIR: 0700 and short, because a Unix socket's path ends at about 107 bytes."""
    jupyter_runtime: Path


@contextlib.contextmanager
def isolated_environment() -> Iterator[Isolation]:
    """Point HOME, Jupyter's and XDG's folders to new ones and drop what would leak in, for this process."""
    before = dict(os.environ)
    top = Path(tempfile.mkdtemp(prefix="rkt-", dir="/tmp"))
    folders = {name: top / name for name in ("home", "run", "data", "runtime", "config", "path")}
    try:
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        for name in list(os.environ):
            if name in _FOREIGN or name.startswith(_FOREIGN_PREFIXES):
                del os.environ[name]
        marker = uuid.uuid4().hex
        pyenv = Path(before.get("HOME", "/")) / ".pyenv"
        if pyenv.is_dir():
            os.environ.setdefault("PYENV_ROOT", str(pyenv))  # else its shims look for it in the new HOME
        os.environ.update(
            HOME=str(folders["home"]),
            XDG_RUNTIME_DIR=str(folders["run"]),
            JUPYTER_DATA_DIR=str(folders["data"]),
            JUPYTER_RUNTIME_DIR=str(folders["runtime"]),
            JUPYTER_CONFIG_DIR=str(folders["config"]),
            JUPYTER_PATH=str(folders["path"]),
            JUPYTER_PLATFORM_DIRS="1",  # jupyter_core warns about the change of folders without it
            **{SESSION_MARKER: marker},
        )
        yield Isolation(marker, folders["home"], folders["run"], folders["runtime"])
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(top, ignore_errors=True)
