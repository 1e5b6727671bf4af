"""The remote end's program: send or receive, as the local end asks.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import json
import os

from remote_kernel.sync import wire
from remote_kernel.sync.receiver import Receiver, Wishes
from remote_kernel.sync.sender import Sender, find_source, shown
from remote_kernel.sync.wire import Broken, SyncFailure, Wire, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Run in the SSH session, until the local end closes it."""
    settings = parameters["settings"]
    os.write(1, f"\n{marker} {json.dumps({})}\n".encode())
    pipe = Wire(0, 1)
    try:
        try:
            is_sender = settings["role"] == "send"
            may_be_made = not is_sender and not settings["wishes"]["dry_run"]
            start = _enter(to_bytes(settings["folder"]), may_be_made, may_lack=not is_sender)
            if is_sender:
                _send(pipe, settings)
            else:
                _receive(pipe, settings, start)
        except SyncFailure as error:
            _give_up(pipe, error)
        except OSError as error:
            _give_up(pipe, SyncFailure("SyncError", f"{os.uname().nodename}: {error}"))
    except Broken:
        pass  # the other end knows
    os._exit(0)  # the other end waits for this, and taking ten thousand entries apart takes a while


def _give_up(pipe: Wire, error: SyncFailure) -> None:
    pipe.write_object(wire.ABORT, [error.name, error.message, error.hint])
    pipe.flush()


def _enter(folder: bytes, may_be_made: bool, *, may_lack: bool) -> bytes:
    """Go where relative paths start from: the home, or a folder, made if need be and allowed.

    Give what relative paths then begin with: nothing, or the folder itself, where that `may_lack` and does.
    """
    os.chdir(os.path.expanduser(b"~"))
    if not folder:
        return b""
    path = os.path.expanduser(folder)
    try:
        if may_be_made:
            os.makedirs(path, exist_ok=True)
        elif may_lack and not os.path.lexists(path):
            return path
        os.chdir(path)
    except OSError as error:
        raise SyncFailure(
            "SyncError",
            f"cannot use the workdir {shown(folder)} on {os.uname().nodename}: {error.strerror}",
            "check the spelling of --workdir",
        ) from error
    return b""


def _send(pipe: Wire, settings: dict[str, Any]) -> None:
    path = os.path.expanduser(to_bytes(settings["path"])) or b"."
    excludes = [to_bytes(line) for line in settings["excludes"]]
    source = find_source(path, excludes, settings["gitignore"], settings["wishes"]["checksum"])
    wishes = Wishes(**settings["wishes"])
    sender = Sender(pipe, source, lambda moved, files: None, wishes.rsync)
    sender.offer()
    sender.deliver(wishes.dry_run)


def _receive(pipe: Wire, settings: dict[str, Any], start: bytes) -> None:
    """Receive as often as the local end begins: it may watch a folder."""
    path = os.path.join(start, os.path.expanduser(to_bytes(settings["path"])))
    while not pipe.at_end():
        receiver = Receiver(pipe, path, Wishes(**settings["wishes"]), lambda moved, files: None)
        receiver.ask(receiver.consider())
        receiver.receive()
