"""End kernels whose launcher had to go and could not say so.

A front end that restarts or closes a kernel waits a few seconds for its launcher. When the network is away just
then, the launcher cannot tell the agent, so it leaves a note and a process that tries until it has: this module's
`main`. A launcher that is killed without warning has left its note already, when the kernel was started: the
connection may be gone by then without a sign, and the agent would take the one for the other. The next launcher on
this machine finds the note. A note from before this machine was last started is dropped: the kernel of a crashed
laptop is to be found by `remote_kernel ps` and resumed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

from remote_kernel import process
from remote_kernel.errors import AuthenticationFailed, RemoteError, RemoteKernelError, TransportError
from remote_kernel.options import LaunchOptions, parse_launch
from remote_kernel.transport import breaker
from remote_kernel.transport.private import private_folder, write_private

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 60.0
_REFUSED_WAIT_SECONDS = 300.0
_DEATH_SECONDS = 5.0
_NOBODY = 0
_PROGRAM = "remote_kernel.undertaker"
_FIELDS = {
    "arguments",
    "folder",
    "launcher",
    "born",
    "boot",
    "pids",
    "linger",
}  # a note that lacks one was not written by this version


class Undertaker:
    """What one launcher arranges for its kernel, from when there is one."""

    def __init__(self, options: LaunchOptions, identity: str) -> None:
        self._options, self._identity = options, identity
        self._fd = -1  # of the pipe whose end tells the process that it is its turn, or that it is not needed

    def remember(self) -> None:
        """Leave the note. It names the launcher, which is this process. Idempotent."""
        self._write(os.getpid(), process.birth(os.getpid()))

    def _write(self, launcher: int, born: str) -> None:
        """Write the note; where there is no room for it, the kernel ends with its lease."""
        note = {
            "arguments": self._options.to_arguments(),
            "folder": os.environ.get("REMOTE_CONN_DIR", ""),
            "launcher": launcher,
            "born": born,
            "boot": process.boot(),
            "pids": _pid_namespace(),
            "linger": min(self._options.linger_seconds, 10 * 365 * 86400),
        }
        with contextlib.suppress(OSError, TransportError):
            write_private(_note(self._identity), json.dumps(note))

    def hire(self) -> None:
        """Have the process at hand: it acts once this launcher has ended, however that happens. Idempotent.

        Where there is no process or descriptor to spare for it, the next launcher finds the note.
        """
        if self._fd >= 0:
            return
        with contextlib.suppress(OSError):
            reading, self._fd = os.pipe()
            try:
                _start(self._identity, reading)
            finally:
                os.close(reading)

    def forget(self) -> None:
        """Call it off: the kernel has ended, or is kept. Idempotent."""
        _forget(self._identity)
        self.dismiss()

    def dismiss(self) -> None:
        """Let the process go: the connection is back. The note stays. Idempotent."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                # In words: when it reads the mere end it may find the note of the next loss, and believe that.
                os.write(self._fd, b"not needed")
            os.close(self._fd)
            self._fd = -1

    def bury(self) -> None:
        """Let it act now: this launcher ends."""
        self._write(_NOBODY, "")
        self.hire()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _start(identity: str, stdin: int) -> None:
    """Start the process for a kernel; it waits for the end of `stdin`.

    It is nobody's child here: VS Code signals every descendant of a launcher. Not in the notebook's folder, where
    Python would look for modules.
    """
    subprocess.run(
        # A background process's stdin is /dev/null but for the detour over descriptor 3.
        ["/bin/sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "remote_kernel", sys.executable, "-m", _PROGRAM, identity],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        check=False,
    )


def take_over_the_dead() -> None:
    """Bury the kernels whose launcher was killed. Called by each new launcher, which lives on if that cannot be."""
    with contextlib.suppress(OSError, TransportError):
        for name in os.listdir(private_folder()):
            if name.startswith("away-") and not name.endswith(".new"):
                _take_over(name.removeprefix("away-"))


def _take_over(identity: str) -> None:
    note = _read(identity)
    if note is None or not process.is_same_boot(str(note["boot"]), process.boot()):
        _forget(identity)
    elif note["pids"] == _pid_namespace() and not _has_launcher(note):
        _start(identity, subprocess.DEVNULL)


def main() -> int:
    """Wait for the launcher's end, then act; see `serve`."""
    return serve(0)


def serve(stdin: int) -> int:
    """Try until the agent has been told, the kernel's lease is over, or somebody else took the note.

    Nothing is done before the end of `stdin`, nor when it held a word; nor while the note's launcher lives.
    """
    identity = sys.argv[1]
    if os.read(stdin, 64):
        return 0
    deadline = time.monotonic() + _DEATH_SECONDS
    while (note := _read(identity)) is not None and _has_launcher(note):
        if time.monotonic() > deadline:
            return 0
        time.sleep(0.02)  # a process that was killed closes its files first
    if note is None or not _claim(identity, note):
        return 0
    from remote_kernel.probe import ask

    options = parse_launch([str(word) for word in list(note["arguments"])])  # type: ignore[call-overload]
    settings = {"id": identity, "do": "bye", "folder": note["folder"]}
    wait = _FIRST_WAIT_SECONDS
    until = time.time() + float(str(note["linger"]))  # the connection may have been there until now
    while time.time() < until and _read(identity) is not None:
        try:
            breaker.check(options)
            found, _ = ask(options, "ask", settings, 30.0)
            if any("unreadable" in kernel for kernel in found["kernels"]):
                raise RemoteError(f"the agent of kernel {identity} does not answer", "try again")
        except AuthenticationFailed:
            time.sleep(_REFUSED_WAIT_SECONDS)
        except (RemoteKernelError, OSError):  # OSError: no process or descriptor to spare just now
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        else:
            break
    _forget(identity)
    return 0


def _pid_namespace() -> str:
    """Name what the numbers of processes here are good in: containers may share this folder and have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _has_launcher(note: dict[str, object]) -> bool:
    pid = int(str(note["launcher"]))
    return pid != _NOBODY and process.is_alive(pid, str(note["born"]))


def _claim(identity: str, note: dict[str, object]) -> bool:
    """Put this process in the launcher's place in the note, unless another has just done so."""
    found = _read(identity)
    if found is None or found["launcher"] != note["launcher"]:
        return False
    mine = {**note, "launcher": os.getpid(), "born": process.birth(os.getpid())}
    write_private(_note(identity), json.dumps(mine))
    return True


def _note(identity: str) -> str:
    return os.path.join(private_folder(), f"away-{identity}")


def _read(identity: str) -> dict[str, object] | None:
    try:
        with open(_note(identity), encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.keys() >= _FIELDS else None


def _forget(identity: str) -> None:
    try:
        os.unlink(_note(identity))
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
