"""Find what could run a kernel on the remote host: interpreters, environments of every kind, kernelspecs, GPUs.

Runs there in place of the agent for `remote_kernel add --discover`. Looks into the places where conda, venv, uv, pixi
and pyenv put things, and asks each interpreter what it has installed; imports none of that. An interpreter that is
neither in PATH nor in the home may be anybody's: it is run only if nobody else can change it.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import select
import signal
import stat
import subprocess
import time

from remote_kernel.process import read_text
from remote_kernel.remote.interpreter import LOOK, is_the_systems, read_answer
from remote_kernel.remote.kernel import KernelSettings, hostname, kernel_folders, kernelspecs, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ASK_SECONDS = 4.0  # for all interpreters together
AT_A_TIME = 8
MOST = 200  # interpreters that are asked, and folders of the home that are looked into

_LONGEST = 64 << 10  # bytes that an interpreter prints

_CONDA_NAMES = ("miniconda3", "miniforge3", "anaconda3", "mambaforge", "miniconda", "anaconda", "micromamba", "conda")
_PYTHON = re.compile(r"python3(\.\d+)?\Z")


def main(_: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run in the SSH session, and return the answer."""
    return find(KernelSettings(parameters["settings"]))


def find(settings: KernelSettings) -> dict[str, Any]:
    """Return everything that was found. Takes ASK_SECONDS and a little more at most."""
    paths = list(_unique(_candidates()))[:MOST]
    owners = TrustedOwners(*_conda_roots())
    foreign = [path for path in paths if not (_is_chosen(path) or owners.have(path))]
    answers = _ask([path for path in paths if path not in foreign])
    return {
        "host": hostname(),
        "home": os.path.expanduser("~"),
        "default": _named_as(which(os.path.expanduser(settings.python)), paths),
        "gpus": _gpus(),
        "environments": [_environment(path, answers[path]) for path in paths if path in answers],
        "silent": [path for path in paths if path not in answers and path not in foreign],
        "foreign": foreign,
        "kernelspecs": [
            {"name": spec.name, "display_name": spec.display_name, "language": spec.language}
            for spec in kernelspecs(kernel_folders("")).values()
            if not spec.is_ipykernel
        ],
    }


def _is_chosen(path: str) -> bool:
    """True if the user would run it anyway, having put it in PATH or into the home."""
    folder = os.path.dirname(path)
    return folder in _path_folders() or path.startswith(os.path.join(os.path.expanduser("~"), ""))


# -- whose they are


class TrustedOwners:
    """The users whose programs this user runs anyway: themselves, root, and the owners of some folders of theirs."""

    def __init__(self, *folders: str) -> None:
        self._uids = {0, os.getuid()}
        for folder in filter(None, folders):
            try:
                self._uids.add(os.stat(folder).st_uid)
            except OSError:
                pass

    def have(self, python: str) -> bool:
        """True if nobody else can say what an interpreter of an environment does: PREFIX/bin/python."""
        folder = os.path.dirname(python)
        return all(self._own(path) for path in (os.path.dirname(folder), folder, python))

    def _own(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        if found.st_uid not in self._uids or found.st_mode & stat.S_IWOTH:
            return False
        return not found.st_mode & stat.S_IWGRP or _is_private(found.st_gid, found.st_uid)


def _is_private(gid: int, uid: int) -> bool:
    """True if a group has no member but its user, as on systems that give each user one; then umask is 002 there."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    return gid == 0 or (gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name})


# -- where they are


def _candidates() -> Iterator[str]:
    """Return paths that may be interpreters, each environment's own before the system's."""
    for prefix in _prefixes():
        yield os.path.join(prefix, "bin", "python")
    for folder in [*_path_folders(), "/usr/local/bin", "/usr/bin"]:
        for name in sorted(_listed(folder)):
            if _PYTHON.match(name):
                yield os.path.join(folder, name)
    yield from glob.glob("/opt/*/bin/python3")


def _path_folders() -> list[str]:
    return os.environ.get("PATH", os.defpath).split(os.pathsep)


def _conda_roots() -> list[str]:
    """Return the conda and mamba that the user has set up; one that a site offers may be its administrator's."""
    conda = os.environ.get("CONDA_EXE", "") or which("conda") or ""
    root = os.path.dirname(os.path.dirname(os.path.realpath(conda))) if conda else ""
    return [path for path in (os.environ.get("MAMBA_ROOT_PREFIX", ""), root) if path]


def _prefixes() -> Iterator[str]:
    home = os.path.expanduser("~")
    roots = [os.path.join(place, name) for place in (home, "/opt", "/usr/local") for name in _CONDA_NAMES]
    for root in [*roots, os.path.join(home, ".local/share/mamba"), *_conda_roots()]:
        yield root
        yield from (os.path.join(root, "envs", name) for name in sorted(_listed(os.path.join(root, "envs"))))
    yield from filter(None, map(str.strip, read_text(os.path.join(home, ".conda/environments.txt")).splitlines()))
    for folder in (".conda/envs", ".virtualenvs", ".local/share/virtualenvs", ".pyenv/versions", ".pixi/envs"):
        yield from sorted(glob.glob(os.path.join(glob.escape(os.path.join(home, folder)), "*")))
    yield from sorted(glob.glob(os.path.join(glob.escape(home), ".local/share/uv/python/*")))
    for folder in [home, *_projects(home)]:
        yield from _of_project(folder)


def _projects(home: str) -> Iterator[str]:
    """Return the folders in which projects may be: those of the home, two deep, and of a cluster's work folders."""
    tops = [home, *filter(None, (os.environ.get(name) for name in ("WORK", "SCRATCH", "PROJECT", "WORKSPACE")))]
    left = MOST
    for top in tops:
        for name in sorted(_listed(top)):
            folder = os.path.join(top, name)
            if name.startswith(".") or not os.path.isdir(folder) or os.path.islink(folder):
                continue
            yield folder
            for inner in sorted(_listed(folder)):
                path = os.path.join(folder, inner)
                if left > 0 and not inner.startswith(".") and os.path.isdir(path) and not os.path.islink(path):
                    left -= 1
                    yield path


def _of_project(folder: str) -> Iterator[str]:
    """Return the environments that a project's folder is, or holds."""
    if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) or os.path.isdir(os.path.join(folder, "conda-meta")):
        yield folder
    for name in (".venv", "venv", "env", ".env"):
        if os.path.isfile(os.path.join(folder, name, "pyvenv.cfg")):
            yield os.path.join(folder, name)
    yield from (os.path.join(folder, ".pixi/envs", name) for name in sorted(_listed(f"{folder}/.pixi/envs")))


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _unique(paths: Iterator[str]) -> Iterator[str]:
    """Leave out what does not run, and other names of what has been named: an environment is its folder."""
    seen = set()
    for path in paths:
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            continue
        identity = _identity(path)
        if identity not in seen:
            seen.add(identity)
            yield path


def _identity(path: str) -> str:
    prefix = os.path.dirname(os.path.dirname(path))
    own = os.path.isfile(os.path.join(prefix, "pyvenv.cfg")) or os.path.isdir(os.path.join(prefix, "conda-meta"))
    return os.path.realpath(prefix) if own else os.path.realpath(path)


def _named_as(python: str | None, paths: list[str]) -> str:
    """Return the one of these paths that is the same interpreter; empty where none is."""
    wanted = _identity(python) if python else ""
    return next((path for path in paths if _identity(path) == wanted), "")


# -- what they are


def _ask(paths: list[str]) -> dict[str, dict[str, Any]]:
    """Ask every interpreter what it has, a few at a time; those that do not answer in time are left out."""
    deadline = time.monotonic() + ASK_SECONDS
    answers: dict[str, dict[str, Any]] = {}
    waiting = list(paths)
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            path = waiting.pop(0)
            try:
                running[path] = subprocess.Popen(
                    [path, "-c", LOOK],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError:
                continue
        left = deadline - time.monotonic()
        outputs = [process.stdout for process in running.values() if process.stdout]
        ready = select.select(outputs, [], [], max(0.0, left))[0]
        if left <= 0:
            waiting = []
        for path, process in list(running.items()):
            if process.stdout in ready or left <= 0:
                del running[path]
                answer = read_answer(_output(process, max(0.1, left)).decode("utf-8", "replace"))
                if answer:
                    answers[path] = answer
    return answers


def _output(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return what a process printed, which ends now; one that goes on, or prints more than we ask for, is killed."""
    assert process.stdout
    deadline, output = time.monotonic() + seconds, b""
    with process.stdout as stdout:
        while len(output) < _LONGEST and select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data = os.read(stdout.fileno(), _LONGEST)
            output += data
            if not data:
                break
        else:
            output = b""
    try:
        process.wait(max(0.1, deadline - time.monotonic()) if output else 0)
        return output
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(1)
    except (OSError, subprocess.TimeoutExpired):
        pass  # it waits for a disk that does not answer
    return b""


def _environment(path: str, answer: dict[str, Any]) -> dict[str, Any]:
    prefix = os.path.dirname(os.path.dirname(path))
    kind = _kind(path, prefix, answer)
    return {
        "python": path,
        "kind": kind,
        "name": _name(path, prefix, kind),
        "version": answer["version"],
        "ipykernel": answer.get("ipykernel", ""),
        "torch": answer.get("torch", ""),
        "jax": answer.get("jax", ""),
    }


def _kind(path: str, prefix: str, answer: dict[str, Any]) -> str:
    if "/.pixi/envs/" in path:
        return "pixi"
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return "conda"
    made_by = read_text(os.path.join(prefix, "pyvenv.cfg"))
    if made_by:
        return "uv" if re.search(r"^uv\s*=", made_by, re.MULTILINE) else "venv"
    return "system" if is_the_systems(answer) else "python"


def _name(path: str, prefix: str, kind: str) -> str:
    """Return what people call it: the environment's name, or the project's that it belongs to."""
    name = os.path.basename(prefix)
    if kind == "pixi":
        project = os.path.basename(prefix[: prefix.rindex("/.pixi/envs/")])
        return project if name == "default" else f"{project} {name}"
    if kind in ("system", "python"):
        return os.path.basename(path) if kind == "system" or path.startswith("/usr") else name
    if kind == "conda" and os.path.isdir(os.path.join(prefix, "envs")):
        return f"{name} base"
    if name in (".venv", "venv", "env", ".env"):
        parent = os.path.dirname(prefix)
        return name.lstrip(".") if parent == os.path.expanduser("~") else os.path.basename(parent)
    return name


def _gpus(root: str = "/") -> list[str]:
    """Return the host's GPUs, without running anything; a driver that names none counts as one.

    Not with nvidia-smi: where the driver is unwell it hangs. `root` is where the host's files are.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(root), "proc/driver/nvidia/gpus/*/information"))):
        model = re.search(r"^Model:\s*(.+)$", read_text(path), re.MULTILINE)
        found.append(model[1].strip() if model else "NVIDIA GPU")
    if not found and which("nvidia-smi"):
        found.append("NVIDIA GPU")
    if not found and os.path.exists(os.path.join(root, "dev/kfd")):
        found.append("AMD GPU")
    return found
