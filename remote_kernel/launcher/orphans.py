"""End kernels whose launcher had to go and could not say so.

A front end that restarts or closes a kernel waits a few seconds for its launcher. When the network is away just
then, the launcher cannot tell the agent; when it is killed without warning, the connection may go with it, and the
agent would take the one for the other. So each launcher leaves a note when its kernel has started, and *the watcher*,
this module's `main`, tells the agents of those whose launcher is gone, as often as it takes.

One watcher at most runs for all notes of this user. It is started when a launcher loses its connection, ends unheard,
or finds at its start or end the note of one that is gone; it ends when there is nothing to watch for. A note from
before this machine was last started is dropped: the kernel of a crashed laptop is to be found by `remote_kernel ps`
and resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from remote_kernel import bootstrap, process
from remote_kernel.errors import AccountRefused, AuthenticationFailed, RemoteError, RemoteKernelError, TransportError
from remote_kernel.files import private_folder, write_private
from remote_kernel.handshake import ask, reading
from remote_kernel.launcher.state_file import VARIABLE as STATE_FILE
from remote_kernel.options import LaunchOptions, parse_launch
from remote_kernel.transport import notes
from remote_kernel.typed_json import MALFORMED, list_of, row

_SUCCESSOR_SECONDS = 5.0  # for whoever started a launcher that was killed to start another; see SucceedingLauncher
_LOOK_SECONDS = 1.0  # between two looks at the notes and their launchers
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 60.0
_REFUSED_WAIT_SECONDS = 300.0
_NOBODY = 0
_PROGRAM = "remote_kernel.launcher.orphans"
_PREFIX = "away-"


class _Note(NamedTuple):
    """What a note says. An earlier version's lacks the last fields."""

    arguments: list[str]
    folder: str
    launcher: int  # its process, _NOBODY where that has ended
    born: str
    boot: str
    pids: str
    linger: float
    lost: bool = False
    may_have_successor: bool = False
    host: str = ""
    restart: bool = False


class OrphanNote:
    """What one launcher writes down about its kernel, from when there is one, for the time when it is gone itself.

    Where there is no room for a note, or no process to spare for the watcher, the kernel ends with its lease.
    """

    def __init__(self, options: LaunchOptions, identity: str) -> None:
        self._options, self._identity = options, identity
        self.host = ""
        """Where the kernel is, once that is known; the endpoint may lead to another host later."""
        self._lost = False

    def write(self) -> None:
        """Write the note. It names the launcher, which is this process. Idempotent."""
        self._write(os.getpid(), process.birth(os.getpid()))

    def connection_lost(self) -> None:
        """Start the watcher, which waits for the end of this launcher: from now on it could not say so. Idempotent."""
        self._lost = True
        self.write()
        start_watcher()

    def connection_back(self) -> None:
        """Record that the watcher need not wait any longer. Idempotent."""
        if self._lost:
            self._lost = False
            self.write()

    def hand_over(self, *, restart: bool = False) -> None:
        """Leave it to the watcher to tell the agent, now that this launcher ends; a restart ends a kept kernel too."""
        self._write(_NOBODY, "", restart=restart)
        start_watcher()

    def remove(self) -> None:
        """Remove the note: the kernel has ended, or is kept. Idempotent."""
        self._lost = False
        _remove_note(self._identity)

    def _write(self, launcher: int, born: str, *, restart: bool = False) -> None:
        note = _Note(
            arguments=self._options.to_arguments(),
            folder=os.environ.get("REMOTE_CONN_DIR", ""),
            launcher=launcher,
            born=born,
            boot=process.boot(),
            pids=_pid_namespace(),
            linger=min(self._options.linger_seconds, 10 * 365 * 86400),
            lost=self._lost,
            may_have_successor=launcher != _NOBODY and bool(os.environ.get(STATE_FILE)),
            host=self.host,
            restart=restart,
        )
        with contextlib.suppress(OSError, TransportError):
            write_private(_note_path(self._identity), json.dumps(note._asdict()))


def watch_orphans() -> None:
    """Start the watcher if the launcher of any note is gone. Called by each launcher, after its start and at its end.

    After the start, because that goes first; at the end, because a launcher that ends sooner is the last that could.
    """
    with contextlib.suppress(OSError, TransportError):
        if any(not _has_launcher(note) for note in _to_watch().values()):
            start_watcher()


def start_watcher() -> None:
    """Start the watcher, unless one runs.

    It is nobody's child here: VS Code signals every descendant of a launcher. Not in the notebook's folder, where
    Python would look for modules.
    """
    with contextlib.suppress(OSError, TransportError):
        with _lock() as is_free:
            pass
        if is_free:
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "remote_kernel", sys.executable, "-m", _PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                check=False,
            )


def main() -> int:
    """Run the watcher, unless another one runs, until there is nothing to watch for."""
    from remote_kernel.transport import ssh_errors  # noqa: F401

    bootstrap.read_ahead("ask")  # as the import: this process may outlive an upgrade of the package
    while True:
        with _lock() as is_mine:
            if is_mine:
                _watch()
        # A launcher that found the lock taken has left the rest to this process: look again once it is free.
        if not is_mine or not _to_watch():
            return 0


def _watch() -> None:
    """Notify the agents of kernels whose launcher is gone, and wait for launchers that have lost their connection."""
    tries = _Tries()
    noticed: dict[str, float] = {}
    while watched := _to_watch():
        for identity, note in watched.items():
            if _has_launcher(note):
                noticed.pop(identity, None)
                continue
            seen_at = noticed.setdefault(identity, time.time())
            if note.may_have_successor and time.time() < seen_at + _SUCCESSOR_SECONDS:
                continue
            # The lease counts from there: the connection may have been there until then.
            until = seen_at + note.linger
            options = _options_of(note)
            if options is None or time.time() > until or _notify_agent(identity, options, note, tries):
                _remove_note(identity)
        time.sleep(_LOOK_SECONDS)


def _options_of(note: _Note) -> LaunchOptions | None:
    """Return the launcher's options; None where another version has written what this one does not know."""
    try:
        return parse_launch(note.arguments)
    except RemoteKernelError:
        return None


def _notify_agent(identity: str, options: LaunchOptions, note: _Note, tries: _Tries) -> bool:
    """Notify a kernel's agent that its front end is gone, if it is time to try; return True once it has heard.

    Kernels behind one server wait together while that cannot be reached.
    """
    way = (options.endpoint, options.jumps, options.ssh_config, options.transport)
    if not tries.is_due(way) or not tries.is_due(identity):
        return False
    try:
        notes.raise_recent_refusal(options)
        settings = {"id": identity, "do": "bye", "restart": note.restart, "folder": note.folder}
        found, _ = ask(options, "ask", settings, 30.0)
        with reading(options):
            kernels = list_of(dict, found["kernels"])
        if any("unreadable" in kernel for kernel in kernels):
            raise RemoteError(f"the agent of kernel {identity} does not answer", "try again")
        if not kernels and note.host not in ("", found.get("host")):
            raise RemoteError(f"the kernel {identity} is on {note.host}", "let the connection lead there")
    except (AccountRefused, AuthenticationFailed):
        tries.failed(way, _REFUSED_WAIT_SECONDS)
        return False
    except TransportError:
        tries.failed(way)
        return False
    except (RemoteKernelError, OSError):  # OSError: no process or descriptor to spare just now
        tries.failed(identity)
        return False
    return True


class _Tries:
    """When to try again what has failed: after _FIRST_WAIT_SECONDS, then after twice as long each time."""

    def __init__(self) -> None:
        self._due: dict[Hashable, float] = {}
        self._waits: dict[Hashable, float] = {}

    def is_due(self, what: Hashable) -> bool:
        """True if it is time to try this."""
        return time.monotonic() >= self._due.get(what, 0.0)

    def failed(self, what: Hashable, least_seconds: float = 0.0) -> None:
        """Delay the next try of this, which has failed."""
        wait = max(self._waits.get(what, _FIRST_WAIT_SECONDS), least_seconds)
        self._due[what] = time.monotonic() + wait
        self._waits[what] = min(2 * wait, max(_LONGEST_WAIT_SECONDS, least_seconds))


def _to_watch() -> dict[str, _Note]:
    """Return the notes of launchers that are gone or have lost their connection, by kernel; drop useless notes."""
    found = {}
    for name in sorted(os.listdir(private_folder())):
        if not name.startswith(_PREFIX) or name.endswith(".new"):
            continue
        identity = name.removeprefix(_PREFIX)
        note = _read_note(identity)
        if note is None or not process.is_same_boot(note.boot, process.boot()):
            _remove_note(identity)
        elif note.pids == _pid_namespace() and (note.lost or not _has_launcher(note)):
            found[identity] = note
    return found


@contextlib.contextmanager
def _lock() -> Iterator[bool]:
    """Hold the lock of this user's watcher, if no other process does; gives whether it is held.

    Containers may share the folder, and see each other's locks but not each other's processes: each has its own.
    """
    namespace = "".join(letter for letter in _pid_namespace() if letter.isdigit())
    with open(os.path.join(private_folder(), f"watcher-{namespace}.lock"), "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _pid_namespace() -> str:
    """Return what the numbers of processes here are good in: containers may share this folder and have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _has_launcher(note: _Note) -> bool:
    return note.launcher != _NOBODY and process.is_alive(note.launcher, note.born)


def _note_path(identity: str) -> str:
    return os.path.join(private_folder(), f"{_PREFIX}{identity}")


def _read_note(identity: str) -> _Note | None:
    try:
        with open(_note_path(identity), encoding="utf-8") as file:
            values = json.load(file)
        return row(_Note, values, arguments=list_of(str, values["arguments"]))
    except (OSError, RecursionError, *MALFORMED):
        return None


def _remove_note(identity: str) -> None:
    try:
        os.unlink(_note_path(identity))
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
