"""Give the remote side of the tests an account of its own, so that nothing of this user is in reach of it.

As root every test session takes one of the system users `rkremote`, `rkremote2`, …: the first that no
other session holds, so that sessions on one machine cannot see each other's processes or folders.
Without root the remote side is this user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

_LOCKS = Path("/var/tmp") / f"remote_kernel-tests-{os.getuid()}"
_HOW_MANY = 24


class Account(NamedTuple):
    """Who the remote side is. `is_own` is true where that user exists only for the tests."""

    user: str
    uid: int
    gid: int
    home: Path
    is_own: bool

    @property
    def agent_folder(self) -> Path:
        """The folder in which agents of this user keep their sockets and files."""
        return Path(f"/tmp/remote_kernel-{self.uid}")


@contextlib.contextmanager
def remote_account() -> Iterator[Account]:
    """Give the account for one test session: fresh home, no processes; as empty again afterwards."""
    if os.getuid() != 0:
        entry = pwd.getpwuid(os.getuid())
        yield Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), is_own=False)
        return
    _LOCKS.mkdir(mode=0o755, exist_ok=True)
    for number in range(1, _HOW_MANY + 1):
        user = "rkremote" if number == 1 else f"rkremote{number}"
        with (_LOCKS / f"{user}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            account = _system_user(user)
            _empty(account)
            _make_home(account)
            try:
                yield account
            finally:
                _empty(account)
            return
    raise RuntimeError(f"{_HOW_MANY} test sessions hold the users rkremote…rkremote{_HOW_MANY} already")


def _system_user(user: str) -> Account:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        command = [
            "useradd",
            "--system",
            "--user-group",
            "--shell",
            "/bin/bash",
            "--home-dir",
            f"/var/tmp/{user}",
            user,
        ]
        subprocess.run(command, check=True, capture_output=True)
        entry = pwd.getpwnam(user)
    if entry.pw_shell != "/bin/bash":
        subprocess.run(["usermod", "--shell", "/bin/bash", user], check=True, capture_output=True)
    return Account(user, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), is_own=True)


def _make_home(account: Account) -> None:
    # 0755: the tests read it, as whatever user they are.
    account.home.mkdir(mode=0o755)
    os.chown(account.home, account.uid, account.gid)


def _empty(account: Account) -> None:
    """End what an earlier session left behind and remove its files. The user exists for the tests only."""
    left = [process for process in psutil.process_iter() if _owner(process) == account.uid]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)
    for folder in (account.home, account.agent_folder):
        shutil.rmtree(folder, ignore_errors=True)


def _owner(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.Error):
        return int(process.uids().real)
    return None
