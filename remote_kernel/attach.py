"""Reach an agent that runs already: hand it a new SSH session, or ask it something.

Runs on the remote host in place of a new agent. Python 3.8, standard library: this file is shipped there.
"""

from __future__ import annotations

import array
import json
import os
import socket

from remote_kernel.folder import AGENT_SOCKET, bases, remove_folder
from remote_kernel.kernel import hostname
from remote_kernel.link import PROTOCOL_VERSION
from remote_kernel.ssh_session import session_server
from remote_kernel.usage import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ASK_SECONDS = 5.0


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Run in the SSH session. `attach` returns when the agent lets go of it, the rest after one line of JSON."""
    settings = parameters["settings"]
    if parameters["mode"] == "attach":
        told = attach(settings, marker)
        if told is None:
            os._exit(0)
    else:
        told = ask(settings)
    os.write(1, f"\n{marker} {json.dumps(told)}\n".encode())
    os._exit(0)


def attach(settings: dict[str, Any], marker: str) -> dict[str, object] | None:
    """Hand this session's descriptors to the agent and wait until it closes them; else say why not."""
    request = {
        "do": "attach",
        "marker": marker,
        "version": PROTOCOL_VERSION,
        "link": settings["link"],
        "resume": settings["resume"],
        "server": session_server(),
    }
    for folder in find(settings["folder"], settings["id"]):
        connection = _connect(folder)
        if connection is None:
            continue
        fds = array.array("i", [0, 1, 2])
        connection.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())])
        answer = _receive(connection)
        if not answer:
            return None
        told: dict[str, object] = json.loads(answer)
        if "error" in told:
            return told
        version = told.get("version")
        return {
            "error": "ProtocolMismatch",
            "message": f"the kernel's agent on {hostname()} speaks protocol {version}, this version {PROTOCOL_VERSION}",
            "hint": f"end it with 'remote_kernel stop {settings['id']}' or use the version that started it",
        }
    return {
        "error": "KernelGone",
        "message": f"the kernel {settings['id']} is no longer on {hostname()}",
        "hint": "start a new one",
    }


def ask(settings: dict[str, Any]) -> dict[str, object]:
    """Ask every agent of this user, or the one named, and give their answers; clean up after dead ones."""
    answers: list[dict[str, Any]] = []
    for folder in find(settings["folder"], settings["id"]):
        connection = _connect(folder)
        if connection is None:
            remove_folder(folder)  # its agent and its guard were killed together, or the host was restarted
            continue
        try:
            connection.settimeout(_ASK_SECONDS)
            connection.sendall(json.dumps({"do": settings["do"]}).encode())
            answers.append(json.loads(_receive(connection)))
        except (OSError, ValueError) as error:
            answers.append({"id": os.path.basename(folder), "folder": folder, "unreadable": str(error)})
        finally:
            connection.close()
    if settings["do"] == "status":
        used = measure(int(answer["pid"]) for answer in answers if answer.get("pid"))
        for answer in answers:
            answer["memory"], answer["busy"] = used.get(answer.get("pid", 0), (0, False))
    return {"host": hostname(), "kernels": answers}


def _receive(connection: socket.socket) -> bytes:
    answer = b""
    while True:
        data = connection.recv(64 << 10)
        if not data:
            return answer
        answer += data


def find(chosen: str, identity: str) -> list[str]:
    """Name the folders of this user's agents, or of the one with that id."""
    found = []
    for base in bases(chosen):
        try:
            if os.lstat(base).st_uid == os.getuid():
                found += [os.path.join(base, name) for name in sorted(os.listdir(base)) if identity in ("", name)]
        except OSError:
            continue
    return found


def _connect(folder: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.path.join(folder, AGENT_SOCKET))
    except OSError:
        connection.close()
        return None
    return connection
