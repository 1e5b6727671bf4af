"""Keep one kernel's folder on the remote host, with a lock of its owner's, and see that nothing of it is left.

The folder (0700) is `/tmp/remote_kernel-UID/ID`, or is in `remote_kernel-UID` in the folder that the user has chosen
or the first of a few places that can be written. It holds the connection file (0600), the kernel's sockets, the
agent's own, and the note of whose it is. Whatever has another name is not ours, there and in `remote_kernel-UID`, and
is left alone.

That nobody answers at its socket is no proof that an agent is dead. It may be about to make the socket. Or its folder
is in a home that several hosts share: a socket there refuses whoever is on another host. So a folder holds a note of
the host and the process that made it, and that process holds a lock on the note until it ends. Only what this host
can be sure of counts: the note is its own, the lock is free, and the process is gone, or was one of before the host
was restarted.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
import time
from enum import Enum

from remote_kernel.process import birth, boot, is_alive, is_same_boot, read_text
from remote_kernel.remote.kernel import SSH_AGENT_LINK, StartError, hostname, kill_session
from remote_kernel.remote.ssh_session import to_null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT_SOCKET = "a"
NOTE = "owner"
CONNECTION_FILE = "kernel.json"
KERNEL_SOCKET = "k"
_TRIAL_SOCKET = "t"
_OUR_FOLDERS = re.compile(r"[0-9a-f]{12}|doctor-\d+")
_OUR_FILES = re.compile(
    rf"{AGENT_SOCKET}|{CONNECTION_FILE}|{KERNEL_SOCKET}-\d|{_TRIAL_SOCKET}|{NOTE}|{SSH_AGENT_LINK}(\.new)?"
)
_MAKING_SECONDS = 3600.0  # far more than it takes to write the note, and than the clocks of two hosts differ
_SOCKET_PATH_BYTES = 100  # a Unix socket's path has 103 (macOS) to 107 (Linux)


def bases(chosen: str) -> list[str]:
    """Return the folders that may hold agents' folders, best first.

    Not XDG_RUNTIME_DIR: it goes when the user logs out, and the kernel is to stay.
    """
    places = ["/tmp", os.environ.get("TMPDIR", ""), "/var/tmp", "/dev/shm", os.path.expanduser("~/.cache")]
    if chosen:
        places = [os.path.abspath(os.path.expanduser(chosen))]
    return list(dict.fromkeys(os.path.join(p, f"remote_kernel-{os.getuid()}") for p in places if p))


def make_folder(chosen: str, identity: str, connection: dict[str, Any]) -> str:
    """Make a kernel's folder in the first place that takes a connection file and a socket. Raises StartError."""
    refused = []
    for base in bases(chosen):
        folder = os.path.join(base, identity)
        try:
            if len(os.fsencode(folder)) > _SOCKET_PATH_BYTES - len("/k-5"):
                raise OSError("the path is too long for a Unix socket")
            _make_private(base, folder)
            try:
                lock_folder(folder)
                write_connection_file(folder, connection)
                with socket.socket(socket.AF_UNIX) as trial:
                    trial.bind(os.path.join(folder, _TRIAL_SOCKET))
                os.unlink(os.path.join(folder, _TRIAL_SOCKET))
            except OSError:
                remove_folder(folder)
                raise
        except OSError as error:
            refused.append(f"{base}: {error.strerror or error}")
            continue
        return folder
    raise StartError(
        "RemoteFolderError",
        f"no folder on {hostname()} takes the connection file ({'; '.join(refused)})",
        "free some space there, or name another folder in REMOTE_CONN_DIR",
    )


def _make_private(base: str, folder: str) -> None:
    """Make a kernel's folder, and the common one where it is missing. Raises OSError."""
    for last in (False, False, True):
        try:
            os.makedirs(base, 0o700)
        except FileExistsError:
            pass
        _check_private(base)
        try:
            os.mkdir(folder, 0o700)
            return
        except FileNotFoundError:  # the last kernel has just ended, and taken the common folder along
            if last:
                raise


def _check_private(base: str) -> None:
    found = os.lstat(base)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError("it is not a folder")
    if found.st_uid != os.getuid():
        raise OSError("it belongs to somebody else")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(base, 0o700)


def find_folders(chosen: str, identity: str) -> list[str]:
    """Return the folders of this user's kernels, or of the one with that id."""
    found = []
    for base in bases(chosen):
        try:
            if _is_our_folder(base):
                found += [os.path.join(base, name) for name in sorted(os.listdir(base)) if identity in ("", name)]
        except OSError:
            continue
    return [path for path in found if _OUR_FOLDERS.fullmatch(os.path.basename(path)) and _is_our_folder(path)]


def _is_our_folder(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def write_connection_file(folder: str, connection: dict[str, Any]) -> str:
    """Write the remote side's connection file, mode 0600, and give its path."""
    path = os.path.join(folder, CONNECTION_FILE)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(connection, file)
        file.flush()
        os.fsync(fd)  # a full disk may say so only now
    return path


def link_ssh_agent(folder: str, socket_path: str) -> None:
    """Point the kernel's SSH_AUTH_SOCK to the ssh agent that the newest connection forwards, if it forwards one."""
    link = os.path.join(folder, SSH_AGENT_LINK)
    try:
        if socket_path:
            os.symlink(socket_path, f"{link}.new")
            os.rename(f"{link}.new", link)
    except OSError:
        pass  # the disk is full: what needs the agent fails, and says so


def remove_folder(folder: str) -> None:
    """Remove a kernel's folder, and the agents' common one when it was the last. Idempotent.

    A folder that holds anything else than our files stays, and so does what is in it.
    """
    try:
        for name in filter(_OUR_FILES.fullmatch, os.listdir(folder)):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
        os.rmdir(os.path.dirname(folder))
    except OSError:
        pass


class Guard:
    """A forked process that ends the kernel and removes the folder if the agent is killed."""

    def __init__(self, folder: str) -> None:
        reading, self._fd = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reading)
            return
        try:
            os.setsid()
            os.close(self._fd)
            to_null(2)
            os.closerange(3, reading)
            os.closerange(reading + 1, 256)
            self._wait(reading, folder)
        finally:
            os._exit(0)

    @staticmethod
    def _wait(reading: int, folder: str) -> None:
        received = b""
        while True:
            data = os.read(reading, 64)
            if not data:
                break
            received += data
        if not received.endswith(b"bye"):
            for pid in received.split()[-1:]:
                if int(pid):
                    kill_session(int(pid))
            remove_folder(folder)

    def watch(self, pid: int) -> None:
        """Set the kernel's process, in place of one before; 0 for none, as its number may be another's soon."""
        self._send(f"{pid} ".encode())

    def stop(self) -> None:
        """End it: all is cleaned up."""
        self._send(b"bye")
        os.close(self._fd)

    def _send(self, word: bytes) -> None:
        try:
            os.write(self._fd, word)
        except BrokenPipeError:
            pass  # it was killed: the agent cleans up by itself


# -- the owner


class OwnerState(Enum):
    """What is known of a folder's owner."""

    HELD = "held"  # it lives, or it may be writing its note just now
    ELSEWHERE = "elsewhere"  # it is a process of another host, which alone can tell
    ABANDONED = "abandoned"  # it was a process of this host and is no more, or the folder is gone


def lock_folder(folder: str) -> None:
    """Write the owner's note for this process and lock it until that ends. Raises OSError."""
    # Never closed: the lock is to last as long as the process; what is started from here has no part in it.
    fd = os.open(os.path.join(folder, NOTE), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass  # a file system without locks: the process has to tell
    pid = os.getpid()
    note = {"host": _host(), "boot": boot(), "pid": pid, "born": birth(pid)}
    os.write(fd, json.dumps(note).encode())


def owner_state(folder: str) -> OwnerState:
    """Return whether a folder's owner lives. What cannot be told counts as held."""
    try:
        fd = os.open(os.path.join(folder, NOTE), os.O_RDWR | os.O_NOFOLLOW)  # NFS locks only what may be written
    except FileNotFoundError:
        return _without_note(folder)
    except OSError:
        return OwnerState.HELD
    try:
        note = _read(fd)
        if note is None:
            return _without_note(folder)
        if note["host"] != _host():
            return OwnerState.ELSEWHERE
        if _is_locked(fd):
            return OwnerState.HELD
        lives = is_same_boot(note["boot"], boot()) and is_alive(int(note["pid"]), note["born"])
        return OwnerState.HELD if lives else OwnerState.ABANDONED
    finally:
        os.close(fd)


def owner_host(folder: str) -> str:
    """Return the host whose folder it is; empty where that is not written there."""
    try:
        with open(os.path.join(folder, NOTE), "rb") as file:
            note = _read(file.fileno())
    except OSError:
        return ""
    return note["host"].partition(" ")[0] if note else ""


def _without_note(folder: str) -> OwnerState:
    try:
        age = time.time() - os.stat(folder).st_mtime
    except FileNotFoundError:
        return OwnerState.ABANDONED
    except OSError:
        return OwnerState.HELD
    return OwnerState.ABANDONED if age > _MAKING_SECONDS else OwnerState.HELD


def _read(fd: int) -> dict[str, str] | None:
    """Read a note; None for one that is not whole (yet)."""
    try:
        note = json.loads(os.pread(fd, 4096, 0))
        return {name: str(note[name]) for name in ("host", "boot", "pid", "born")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _host() -> str:
    """Return this host's name and id: containers and cloud machines may have one name."""
    return f"{hostname()} {read_text('/etc/machine-id').strip()}"
