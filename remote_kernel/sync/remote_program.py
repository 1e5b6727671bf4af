"""Run the remote end of a sync: begin, converse, and tell why it cannot go on."""

from __future__ import annotations

import gc
import json
import os

from remote_kernel.sync import wire
from remote_kernel.sync.wire import Broken, MessageWire, SyncFailure, Violation, shown, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_GARBAGE = 100_000  # Python's collector takes long to go through ten thousand entries, and finds none


def serve(
    marker: str, folder: str, converse: Callable[[MessageWire, bytes], None], *, makes_folder: bool, may_lack: bool
) -> None:
    """Run in the SSH session, until the local end closes it. `converse` is called with what relative paths begin with.

    They start from `folder`, which is made if asked for, or `may_lack`.
    """
    gc.set_threshold(_MOST_GARBAGE)
    os.write(1, f"\n{marker} {json.dumps({})}\n".encode())
    pipe = MessageWire(0, 1)
    try:
        try:
            converse(pipe, _enter(to_bytes(folder), makes_folder, may_lack=may_lack))
        except SyncFailure as error:
            _give_up(pipe, error)
        except OSError as error:
            _give_up(pipe, SyncFailure("SyncError", f"{os.uname().nodename}: {error}"))
        except Violation as error:
            _give_up(pipe, SyncFailure("ProtocolMismatch", f"{os.uname().nodename} refused what it was sent: {error}"))
    except Broken:
        pass  # the other end knows
    os._exit(0)  # the other end waits for this, and taking ten thousand entries apart takes a while


def _give_up(pipe: MessageWire, error: SyncFailure) -> None:
    pipe.write_object(wire.ABORT, [error.name, error.message, error.hint])
    pipe.flush()


def _enter(folder: bytes, makes_folder: bool, *, may_lack: bool) -> bytes:
    """Change to where relative paths start from: the home, or a folder, made if need be and asked for.

    Return what relative paths then begin with: nothing, or the folder itself, where that `may_lack` and does.
    """
    os.chdir(os.path.expanduser(b"~"))
    if not folder:
        return b""
    path = os.path.expanduser(folder)
    try:
        if makes_folder:
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
