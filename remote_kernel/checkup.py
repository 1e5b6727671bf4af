"""Say what on the remote host could keep a kernel from starting there, or from staying.

Runs there in place of the agent for `remote_kernel doctor`, once for all questions, and leaves nothing behind.
Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import json
import os
import sys
import time

from remote_kernel.folder import bases, make_folder, remove_folder
from remote_kernel.kernel import Command, Settings, StartError
from remote_kernel.logout import in_session_scope, kills_at_logout, lingers
from remote_kernel.survey import run_program, survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CURVE = "import zmq; print('curve' if zmq.has('curve') else 'no')"


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Run in the SSH session: print one line of JSON behind the marker and end."""
    os.write(1, f"\n{marker} {json.dumps(check_up(Settings(parameters['settings'])))}\n".encode())
    sys.exit(0)


def check_up(settings: Settings) -> dict[str, Any]:
    """Look at everything; `errors` holds what went wrong, by the step in which it did."""
    found: dict[str, Any] = {"clock": time.time(), "errors": {}}
    try:
        found["survey"] = survey(settings)
    except StartError as error:
        step = "kernelspec" if error.name == "RemoteKernelspecNotFound" else "python"
        found["errors"][step] = _told(error)
    else:
        _, said, _ = run_program([found["survey"]["python"], "-c", _CURVE], 20)
        found["curve"] = said.strip() if not settings.init and not settings.kernel else ""
        try:
            Command(settings, "kernel.json")
        except StartError as error:
            found["errors"]["folder"] = _told(error)
    try:
        folder = make_folder(settings.folder, f"doctor-{os.getpid()}", {})
    except StartError as error:
        found["errors"]["sockets"] = _told(error)
    else:
        found["folder"] = folder
        remove_folder(folder)
    found["disks"] = [(place, free) for place in _places(settings) if (free := _free(place)) is not None]
    found["scope"], found["kills"], found["lingers"] = in_session_scope(), kills_at_logout(), lingers()
    found["systemd"] = os.path.isdir("/run/systemd/system")
    return found


def _told(error: StartError) -> tuple[str, str, str]:
    return error.name, error.message, error.hint


def _places(settings: Settings) -> list[str]:
    """Name the folders whose disks matter: for connection files and sockets, waiting output, and the home."""
    places = [os.path.dirname(bases(settings.folder)[0]), "/var/tmp", os.path.expanduser("~")]
    return list(dict.fromkeys(places))


def _free(place: str) -> int | None:
    """Give the bytes that this user can still write there; None where there is no such place."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
