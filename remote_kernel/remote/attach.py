"""Connect to an agent that runs already: hand it a new SSH session, or ask it something.

Also measures what kernels use, for `ps`: the memory of all their processes, and whether they use the CPU right now.

Runs on the remote host in place of a new agent.
"""

from __future__ import annotations

import array
import json
import os
import socket
import time

from remote_kernel.link.link import PROTOCOL_VERSION
from remote_kernel.process import processes
from remote_kernel.remote.folder import (
    AGENT_SOCKET,
    OwnerState,
    find_folders,
    owner_host,
    owner_state,
    remove_folder,
)
from remote_kernel.remote.kernel import hostname
from remote_kernel.remote.ssh_session import session_server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

SAMPLE_SECONDS = 0.25
BUSY_SHARE = 0.05  # of one core; an idle ipykernel needs far less
_ASK_SECONDS = 5.0
_LONGEST = 4 << 20  # bytes of an answer; that with a text log is the longest
_LISTEN_SECONDS = 10.0  # for an agent that is just starting: asking systemd for a scope may take five


def main(marker: str, parameters: dict[str, Any]) -> dict[str, object] | None:
    """Run in the SSH session, and return the answer; `attach` has none when the agent has used the session."""
    settings = parameters["settings"]
    return attach(settings, marker) if parameters["mode"] == "attach" else ask(settings)


def attach(settings: dict[str, Any], marker: str) -> dict[str, object] | None:
    """Hand this session's descriptors to the agent and wait until it closes them; else say why not."""
    request = {
        "do": "attach",
        "marker": marker,
        "version": PROTOCOL_VERSION,
        "link": settings["link"],
        "resume": settings["resume"],
        "server": session_server(),
        "ssh_agent": os.environ.get("SSH_AUTH_SOCK", ""),
    }
    folders = find_folders(settings["folder"], settings["id"])
    for folder in folders:
        connection = _connect(folder, _LISTEN_SECONDS)
        if connection is None:
            continue
        fds = array.array("i", [0, 1, 2])
        with connection:
            connection.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())])
            data = _receive(connection)
        if not data:
            return None
        answer: dict[str, object] = json.loads(data)
        if "error" in answer:
            return answer
        version = answer.get("version")
        return {
            "error": "ProtocolMismatch",
            "message": f"the kernel's agent on {hostname()} speaks protocol {version}, this version {PROTOCOL_VERSION}",
            "hint": f"end it with 'remote_kernel stop {settings['id']}' or use the version that started it",
        }
    return _missing(settings["id"], folders, settings.get("host", ""))


def _missing(identity: str, folders: list[str], host: str) -> dict[str, object]:
    """Return why no agent of that id, which was started on `host`, answers. Only KernelGone is final."""
    here = hostname()
    for folder in folders:
        owner = owner_state(folder)
        if owner is OwnerState.HELD:
            message = f"the agent of kernel {identity} on {here} does not answer"
            return {"error": "RemoteError", "message": message, "hint": "try again"}
        if owner is OwnerState.ELSEWHERE:
            there = owner_host(folder)
            return {
                "error": "RemoteError",
                "message": f"the kernel {identity} is on {there}, and this is {here}, which shares its folder",
                "hint": f"give {there} as the host, so that every connection leads there",
            }
    if host not in ("", here):
        return {
            "error": "RemoteError",
            "message": f"the kernel {identity} was started on {host}, and this is {here}",
            "hint": f"let the connection lead to {host} again, or restart the kernel",
        }
    return {
        "error": "KernelGone",
        "message": f"the kernel {identity} is no longer on {here}",
        "hint": "start a new one",
    }


def ask(settings: dict[str, Any]) -> dict[str, object]:
    """Ask every agent of this user on this host, or the one named, and give their answers; clean up after dead ones."""
    answers: list[dict[str, Any]] = []
    for folder in find_folders(settings["folder"], settings["id"]):
        connection = _connect(folder, _LISTEN_SECONDS if settings["id"] else 0.0)
        if connection is None:
            owner = owner_state(folder)
            if owner is OwnerState.ABANDONED:
                remove_folder(folder)  # its agent and its guard were killed together, or the host was restarted
            elif settings["id"]:  # who means this one is not to take it for gone
                where = (
                    f"it is on {owner_host(folder)}" if owner is OwnerState.ELSEWHERE else "its agent does not answer"
                )
                answers.append({"id": os.path.basename(folder), "folder": folder, "unreadable": where})
            continue
        try:
            connection.settimeout(_ASK_SECONDS)
            request = {"do": settings["do"], "restart": settings.get("restart", False)}
            connection.sendall(json.dumps(request).encode())
            told = dict(json.loads(_receive(connection)))
            answers.append(dict(told, id=os.path.basename(folder), pid=int(told.get("pid") or 0)))
        except (OSError, RecursionError, TypeError, ValueError) as error:
            answers.append({"id": os.path.basename(folder), "folder": folder, "unreadable": str(error)})
        finally:
            connection.close()
    if settings["do"] == "status":
        used = measure(answer["pid"] for answer in answers if answer.get("pid"))
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
        if len(answer) > _LONGEST:
            raise ValueError("its answer is too long")


def _connect(folder: str, seconds: float) -> socket.socket | None:
    """Connect to the folder's agent; one that lives and does not listen (yet) has so many seconds for it."""
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(os.path.join(folder, AGENT_SOCKET))
            return connection
        except OSError:
            connection.close()
        if time.monotonic() >= deadline or owner_state(folder) is not OwnerState.HELD:
            return None
        time.sleep(0.05)


def measure(sessions: Iterable[int]) -> dict[int, tuple[int, bool]]:
    """Return for each session's id the bytes that its processes hold in memory, and whether they use the CPU.

    Pages that processes share count for each of them. Takes SAMPLE_SECONDS.
    """
    wanted = set(sessions)
    if not wanted:
        return {}
    before, begun = {pid: cpu for pid, _, _, _, cpu in processes()}, time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    after, took = list(processes()), time.monotonic() - begun
    found = {}
    for sid in wanted:
        its = [(pid, memory, cpu) for pid, _, session, memory, cpu in after if session == sid]
        used = sum(cpu - before[pid] for pid, _, cpu in its if pid in before)
        found[sid] = (sum(memory for _, memory, _ in its), used > BUSY_SHARE * took)
    return found
