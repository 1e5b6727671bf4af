"""End kernels whose launcher had to go while the connection was lost.

A front end that restarts or closes a kernel waits a few seconds for its launcher. When the network is away just
then, the launcher cannot tell the agent, so it leaves a note and a process that tries until it has: this module's
`main`. A launcher that is killed without warning while the connection is lost has left its note already; the next
launcher on this machine finds it. A note from before this machine was last started is dropped: the kernel of a
crashed laptop is to be found by `remote_kernel ps` and resumed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from remote_kernel.errors import AuthenticationFailed, RemoteKernelError
from remote_kernel.options import LaunchOptions, parse_launch
from remote_kernel.transport import breaker
from remote_kernel.transport.private import private_folder

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 60.0
_REFUSED_WAIT_SECONDS = 300.0


def remember(options: LaunchOptions, identity: str) -> None:
    """Leave the note of a kernel whose connection is lost. It names the launcher, which is this process."""
    note = {
        "arguments": options.to_arguments(),
        "folder": os.environ.get("REMOTE_CONN_DIR", ""),
        "launcher": os.getpid(),
        "boot": _boot(),
        "until": time.time() + min(options.linger_seconds, 10 * 365 * 86400),
    }
    path = _note(identity)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(note, file)
    os.rename(path + ".new", path)


def forget(identity: str) -> None:
    """Remove the note: the connection is back, or the kernel has ended. Idempotent."""
    try:
        os.unlink(_note(identity))
    except OSError:
        pass


def bury(identity: str) -> None:
    """Start the process that ends the kernel as soon as its host can be reached, and leave it to itself.

    It is nobody's child here: VS Code signals every descendant of a launcher.
    """
    subprocess.run(
        ["/bin/sh", "-c", '"$@" &', "remote_kernel", sys.executable, "-m", "remote_kernel.undertaker", identity],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )


def take_over_the_dead() -> None:
    """Bury the kernels whose launcher was killed while the connection was lost. Called by each new launcher."""
    for entry in os.scandir(private_folder()):
        if not entry.name.startswith("away-") or entry.name.endswith(".new"):
            continue
        identity = entry.name.removeprefix("away-")
        note = _read(identity)
        if note is None or note["boot"] != _boot():
            forget(identity)
        elif not _alive(int(str(note["launcher"]))):
            bury(identity)


def main() -> int:
    """Try until the agent has been told, the kernel's lease is over, or somebody else took the note."""
    identity = sys.argv[1]
    note = _read(identity)
    if note is None or not _claim(identity, note):
        return 0
    from remote_kernel.probe import ask

    options = parse_launch([str(word) for word in list(note["arguments"])])  # type: ignore[call-overload]
    settings = {"id": identity, "do": "bye", "folder": note["folder"]}
    wait = _FIRST_WAIT_SECONDS
    while time.time() < float(str(note["until"])) and _read(identity) is not None:
        try:
            breaker.check(options)
            ask(options, "ask", settings, 30.0)
        except AuthenticationFailed:
            time.sleep(_REFUSED_WAIT_SECONDS)
        except RemoteKernelError:
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        else:
            break
    forget(identity)
    return 0


def _claim(identity: str, note: dict[str, object]) -> bool:
    """Put this process in the launcher's place in the note, unless another has just done so."""
    path = _note(identity)
    mine = f"{path}.{os.getpid()}.new"
    with open(mine, "w", encoding="utf-8") as file:
        json.dump({**note, "launcher": os.getpid()}, file)
    found = _read(identity)
    if found is None or found["launcher"] != note["launcher"]:
        os.unlink(mine)
        return False
    os.rename(mine, path)
    return True


def _note(identity: str) -> str:
    return os.path.join(private_folder(), f"away-{identity}")


def _read(identity: str) -> dict[str, object] | None:
    try:
        with open(_note(identity), encoding="utf-8") as file:
            note: dict[str, object] = json.load(file)
    except (OSError, ValueError):
        return None
    return note


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _boot() -> str:
    """Tell one start of this machine from the next."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return str(round((time.time() - time.monotonic()) / 60))


if __name__ == "__main__":
    sys.exit(main())
