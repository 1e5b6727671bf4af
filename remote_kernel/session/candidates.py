"""Find the kernels that are open on this machine, by their connection files."""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.jupyter.connection_file import read_connection_file, runtime_folder


class Candidate(NamedTuple):
    """A connection file behind which something listens.

    `notebook` is the path of the notebook that it was started for, which Jupyter servers write into the file as
    `jupyter_session`; empty where it is not known. `modified` is Unix time in seconds.
    """

    path: str
    kernel_name: str
    notebook: str
    modified: float


def list_candidates() -> list[Candidate]:
    """Return the open kernels, the newest first. A file whose kernel is gone is left out."""
    found = []
    for entry in os.scandir(runtime_folder()):
        if not entry.name.startswith("kernel-") or not entry.name.endswith(".json"):
            continue
        try:
            connection = read_connection_file(entry.path)
            if connection.transport == "tcp":
                socket.create_connection((connection.ip, connection.ports["shell"]), timeout=2).close()
            elif not os.path.exists(f"{connection.ip}-{connection.ports['shell']}"):
                continue
            name, notebook = (str(connection.values.get(key) or "") for key in ("kernel_name", "jupyter_session"))
            found.append(Candidate(entry.path, name, notebook, entry.stat().st_mtime))
        except (RemoteKernelError, OSError):
            continue
    return sorted(found, key=lambda one: -one.modified)


def find_candidate(text: str) -> str:
    """Return the connection file at this path, or that of the only open kernel with `text` in its name.

    Its name is that of the file, or its notebook's path.

    Raises UsageError, which lists the candidates where there are several.
    """
    is_notebook = text.endswith(".ipynb")
    if text and os.path.exists(text) and not is_notebook:
        return os.path.abspath(text)
    if os.sep in text and not is_notebook:
        raise UsageError(
            f"there is no file {text}", "give the connection file of a running kernel, or a part of its name"
        )
    part = os.path.normpath(text) if is_notebook else text
    fitting = [one for one in list_candidates() if part in os.path.basename(one.path) or part in one.notebook]
    if len(fitting) == 1:
        return fitting[0].path
    if not fitting:
        what = (
            f"no open kernel has '{text}' in its notebook's path or its connection file's name"
            if text
            else "no kernel is open on this machine"
        )
        raise UsageError(what, "open a notebook in JupyterLab or VS Code, or give the connection file's path")
    lines = "".join(
        f"\n  {os.path.basename(one.path)}  {one.kernel_name or '?'}  "
        f"{time.strftime('%d %b %H:%M', time.localtime(one.modified))}  {one.notebook}".rstrip()
        for one in fitting
    )
    raise UsageError("several kernels are open", f"give a part of one's file name or notebook:{lines}")
