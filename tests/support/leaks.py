"""The leak check: what is there after a test that was not there before, here and on the remote side.

A test may leave nothing but log files. What ends by itself is waited for; a private ControlMaster, which is
meant to outlive its kernel, is told to exit first.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.isolation import SESSION_MARKER, Isolation
from tests.support.servers import Servers, is_alive, wait_ended

PATIENCE_SECONDS = 15.0

# What any ipykernel, matplotlib or shell makes in a home folder.
_USUAL_IN_HOME = (".cache", ".config", ".ipython", ".jupyter", ".local", ".matplotlib", ".zcompdump")


class Snapshot(NamedTuple):
    """What exists at one moment: processes and files, here and on the remote side."""

    processes: frozenset[psutil.Process]
    files: frozenset[Path]


def local_processes(isolation: Isolation, servers: Servers | None) -> list[psutil.Process]:
    """Give this side's living processes that the test session started: descendants, and carriers of its marker."""
    remote = _remote_side(servers)
    own = set(psutil.Process().children(recursive=True))
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid() or process in remote or not is_alive(process):
            continue
        if process in own or _is_of_session(process, isolation):
            found.append(process)
    return found


def take_snapshot(isolation: Isolation, servers: Servers | None) -> Snapshot:
    """Note what is there. Without servers only this side is looked at."""
    processes = local_processes(isolation, servers)
    files = {path for path in _below(isolation.jupyter_runtime) if not _is_log(path)}
    files.update(session_sockets(isolation.runtime))
    if servers is not None:
        processes += servers.target.processes()
        account = servers.account
        files.update(_below(account.agent_folder))
        # Somebody's real home is too large to walk for every test, and other programs write to it.
        files.update(_below(account.home) if account.is_own else account.home.iterdir())
        files = {path for path in files if not _is_usual_in_home(path, account.home)}
    return Snapshot(frozenset(processes), frozenset(files))


def find_leaks(
    before: Snapshot,
    isolation: Isolation,
    servers: Servers | None,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    allowed: Iterable[int] = (),
) -> list[str]:
    """Wait for what is on its way out, then describe whatever else is new since `before`; one line for each.

    `allowed` holds the pids that may stay.
    """
    deadline = time.monotonic() + patience_seconds
    pause = 0.01
    while True:
        now = take_snapshot(isolation, servers)
        if not any(_is_watcher(process) for process in now.processes - before.processes):  # it may be using one
            end_control_masters(isolation.runtime)  # each time: one may have been about to open its socket
        processes = {process for process in now.processes - before.processes if process.pid not in set(allowed)}
        # A process may have ended since: only those that are still there can be described, and count.
        left = [line for process in processes if (line := _describe(process))]
        left += [f"file {path}" for path in now.files - before.files]
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _is_watcher(process: psutil.Process) -> bool:
    """Whether this is the process that ends kernels whose launcher is gone."""
    with contextlib.suppress(psutil.Error):
        return "remote_kernel.launcher.orphans" in process.cmdline()
    return False


def end_control_masters(runtime: Path) -> None:
    """Tell every ssh ControlMaster whose socket is under XDG_RUNTIME_DIR's remote_kernel folder to exit."""
    for path in _below(runtime / "remote_kernel"):
        if _is_socket(path) and path not in session_sockets(runtime):
            subprocess.run(
                ["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}", "-O", "exit", "any"],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=10,
            )


def session_sockets(runtime: Path) -> list[Path]:
    """Give the sockets of the hosts of `rkernel`'s sessions."""
    return list((runtime / "remote_kernel").glob("rk-*.sock"))


def end_processes(processes: Iterable[psutil.Process]) -> None:
    """Kill what a failed test left, so that the tests after it start clean."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_ended(left)


def _remote_side(servers: Servers | None) -> set[psutil.Process]:
    if servers is None:
        return set()
    return {process for server in servers for process in (*server.processes(), *server.own_processes())}


def _is_of_session(process: psutil.Process, isolation: Isolation) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.environ().get(SESSION_MARKER) == isolation.marker:
            return True
        # An ssh ControlMaster writes its title, with its socket's path, over its environment.
        return str(isolation.runtime) in " ".join(process.cmdline())
    return False


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        if is_alive(process):
            command = " ".join(process.cmdline()) or process.name()
            return f"process {process.pid} of {process.username()}: {command[:300]}"
    return ""


def _below(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.rglob("*"))
    return []


def _is_log(path: Path) -> bool:
    return path.name.startswith("remote_kernel-") and path.suffix == ".log"


def _is_socket(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(path.lstat().st_mode)
    return False


def _is_usual_in_home(path: Path, home: Path) -> bool:
    return path.is_relative_to(home) and path.relative_to(home).parts[0].startswith(_USUAL_IN_HOME)
