"""Find what on the remote host could keep a kernel from starting there, or from staying.

Runs there in place of the agent for `remote_kernel doctor`, once for all questions, and leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
import time

from remote_kernel.remote.folder import bases, make_folder, remove_folder
from remote_kernel.remote.kernel import KernelCommand, KernelSettings, StartError, with_init
from remote_kernel.remote.logout import in_session_scope, kills_at_logout, lingers
from remote_kernel.remote.survey import INIT_SECONDS, no_end, run_program, survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRIAL_BYTES = 64 << 10


def main(_: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run in the SSH session, and return the answer."""
    return check_up(KernelSettings(parameters["settings"]))


def check_up(settings: KernelSettings) -> dict[str, Any]:
    """Look at everything; `errors` holds what went wrong, by the step in which it did."""
    found: dict[str, Any] = {"clock": time.time(), "errors": {}, "seconds": {}}
    began = time.monotonic()
    for step, look in _LOOKS.items():
        begun = time.monotonic()
        try:
            found.update(look(settings, found))
        except StartError as error:
            named = "kernelspec" if error.name == "RemoteKernelspecNotFound" else step
            found["errors"][named] = (error.name, error.message, error.hint)
        found["seconds"][step] = round(time.monotonic() - begun, 4)
    found["seconds"]["all"] = time.monotonic() - began
    return found


def _look_at_init(settings: KernelSettings, _: dict[str, Any]) -> dict[str, Any]:
    """Run the code of --init by itself: behind it a kernel starts whether or not it has worked."""
    if not settings.init:
        return {}
    status, _said, errors = run_program([with_init(settings.init, [])[0], "-lc", settings.init], INIT_SECONDS)
    return {"init": (status, (errors.strip().splitlines() or [""])[-1].strip())}


def _look_at_python(settings: KernelSettings, found: dict[str, Any]) -> dict[str, Any]:
    if found.get("init", (0,))[0] == 124:
        raise no_end(settings)
    return {"survey": survey(settings)}


def _look_at_workdir(settings: KernelSettings, found: dict[str, Any]) -> dict[str, Any]:
    if "survey" in found:
        KernelCommand(settings, "kernel.json")
    return {}


def _look_at_sockets(settings: KernelSettings, _: dict[str, Any]) -> dict[str, Any]:
    folder = make_folder(settings.folder, f"doctor-{os.getpid()}", {})
    remove_folder(folder)
    return {"folder": folder}


def _look_at_disks(settings: KernelSettings, _: dict[str, Any]) -> dict[str, Any]:
    # For connection files and sockets, for waiting output, and the home.
    wanted = [os.path.dirname(bases(settings.folder)[0]), "/var/tmp", os.path.expanduser("~")]
    places = list(dict.fromkeys(wanted))
    refused = {place: reason for place in places if (reason := _write_error(place))}
    return {"disks": [(place, free) for place in places if (free := _free(place)) is not None], "refused": refused}


def _look_at_logout(_: KernelSettings, __: dict[str, Any]) -> dict[str, Any]:
    return {
        "scope": in_session_scope(),
        "kills": kills_at_logout(),
        "lingers": lingers(),
        "systemd": os.path.isdir("/run/systemd/system"),
    }


# By the doctor's steps, each with what it learns; a later one sees what the ones before have found.
_LOOKS = {
    "init": _look_at_init,
    "python": _look_at_python,
    "folder": _look_at_workdir,
    "sockets": _look_at_sockets,
    "disk": _look_at_disks,
    "logout": _look_at_logout,
}


def _free(place: str) -> int | None:
    """Return the bytes that this user can still write there; None where there is no such place."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _write_error(place: str) -> str:
    """Return why nothing can be written there, such as a quota or a read-only disk; empty where it can."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_TRIAL_BYTES))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
