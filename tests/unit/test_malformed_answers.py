"""A remote host that answers in another form than ours: it is named, no other suffers, and nothing is a traceback."""

from __future__ import annotations

import itertools
import json
import re
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.doctor.steps import examine
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import NoSuchKernel, ProtocolMismatch, RemoteError
from remote_kernel.kept.running import RunningKernel, ask_agent, find_running, stop_kernel
from remote_kernel.kernelspec.discovery import discover, install_ipykernel, probe
from remote_kernel.launcher import launcher
from remote_kernel.link.link import CONTROL, DATA, HELLO, PROTOCOL_VERSION
from remote_kernel.options import LaunchOptions
from tests.support.kernels import write_connection_file

OPTIONS = LaunchOptions(Endpoint.parse("bad"))
STATE = {"id": "0123456789ab", "ended": False, "connected": True, "keep": False, "launchers": 1, "since": 1.0}
SURVEY = {
    "host": "h",
    "user": "u",
    "python": "/p",
    "python_version": "3.12.1",
    "ipykernel_version": "7.0",
    "is_the_systems": False,
    "kernelspec": None,
}
SPEC = {"name": "r", "display_name": "R", "language": "R", "interrupt_mode": "signal", "argv": ["R"]}
FOUND = {
    "host": "h",
    "home": "/h",
    "default": "",
    "gpus": [],
    "environments": [],
    "kernelspecs": [],
    "silent": [],
    "foreign": [],
}
ENVIRONMENT = {
    "python": "/p",
    "kind": "venv",
    "name": "p",
    "version": "3.12.1",
    "ipykernel": "",
    "torch": "",
    "jax": "",
}
WRONG: list[Any] = [None, 5, "x", [], [[]], {}, {"a": 1}, True, 1e308, "\ud800"]
"""What stands where something else belongs."""


class Host:
    """A program in the place of ssh: each host answers what it is told to, in JSON or as a Link's control messages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "ssh"
        program.write_text(
            f"""#!{sys.executable}
import os, re, sys, time
if "-G" in sys.argv or "-O" in sys.argv:
    sys.exit("-O" in sys.argv)
marker = re.search(r"remote_kernel-[0-9a-f]{{16}}", sys.argv[-1])
host = sys.argv[-2]
if not marker or not os.path.exists({str(folder)!r} + "/" + host):
    sys.exit("ssh: connect to host x port 22: Connection refused" if not marker else 255)
os.write(1, ("\\n" + marker[0] + " reads\\n").encode())
size = int(re.search(r"read[(]([0-9]+)[)]", sys.argv[-1])[1])
sys.stdin.buffer.readline()
sys.stdin.buffer.read(size + 2)
now, _, later = open({str(folder)!r} + "/" + host, "rb").read().partition(b"LATER")
os.write(1, ("\\n" + marker[0]).encode() + now)
if later:
    time.sleep(1)
    os.write(1, later)
sys.stdin.buffer.read()
"""
        )
        program.chmod(0o755)
        self.program = str(program)

    def answers(self, said: object, host: str = "bad") -> None:
        text = said if isinstance(said, str) else json.dumps(said)
        (self._folder / host).write_bytes(b" " + text.encode() + b"\n")

    def sends(self, *messages: object, host: str = "bad") -> None:
        """Send control messages, each a second after the one before."""
        lines = [json.dumps(message).encode() + b"\n" for message in messages]
        hello = json.dumps({"version": PROTOCOL_VERSION, "highest": 15, "streams": {}}).encode()
        frames = struct.pack("!BIQI", HELLO, 0, 0, len(hello)) + hello
        offsets = itertools.accumulate(map(len, lines), initial=0)
        data = [
            struct.pack("!BIQI", DATA, CONTROL, offset, len(line)) + line
            for offset, line in zip(offsets, lines, strict=False)
        ]
        (self._folder / host).write_bytes(b"\n" + frames + b"LATER".join(data))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setenv("REMOTE_KERNEL_SSH", host.program)
    return host


def _broken(good: dict[str, Any], *kept: str) -> list[dict[str, Any]]:
    """Give a good answer with one part wrong: one of each kind for every part, and without it."""
    found = []
    for key, right in good.items():
        if key in kept:
            continue
        found += [{**good, key: wrong} for wrong in WRONG if type(wrong) is not type(right)]
        found.append({name: value for name, value in good.items() if name != key})
    return found


def _kernel() -> RunningKernel:
    return RunningKernel(
        "0123456789ab", "h", OPTIONS, "", "", "", "python", "signal", "kept", False, True, 0, 1.0, 0, 1, ""
    )


COMMANDS: dict[str, tuple[Callable[[], object], list[Any]]] = {
    "probe": (
        lambda: probe(OPTIONS),
        [*_broken(SURVEY, "kernelspec"), *({**SURVEY, "kernelspec": spec} for spec in ([1], "x", *_broken(SPEC)))],
    ),
    "install": (lambda: install_ipykernel(OPTIONS), _broken({"installed_with": "pip"})),
    "discover": (
        lambda: discover(OPTIONS),
        [
            *_broken(FOUND, "gpus", "environments", "kernelspecs", "silent", "foreign"),
            *({**FOUND, name: wrong} for name in ("gpus", "environments", "silent") for wrong in (None, "x", [None])),
            *({**FOUND, "environments": [environment]} for environment in _broken(ENVIRONMENT)),
            {**FOUND, "environments": [{**ENVIRONMENT, "version": "three.twelve"}]},
        ],
    ),
    "tell": (lambda: ask_agent(_kernel(), "keep"), [{}, {"host": "h"}, {"host": "h", "kernels": "x"}]),
    "stop": (lambda: stop_kernel(_kernel()), [{"host": "h", "kernels": [5]}, {"host": 5, "kernels": []}]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_answer_of_another_form_is_named(host: Host, name: str) -> None:
    command, answers = COMMANDS[name]
    # Each is a process; a few of a kind will do.
    for answer in ["", "[]", "5", "{", "[" * 5000, *answers[:: max(1, len(answers) // 12)]]:
        host.answers(answer)
        with pytest.raises(ProtocolMismatch, match="bad answered something that cannot be read"):
            command()


@pytest.mark.parametrize(
    "said",
    [
        {"error": 5},
        {"error": ["x"]},
        {"error": "RemoteError"},
        {"error": "RemoteError", "message": " "},
        {"error": "KeyboardInterrupt", "message": ["x"]},
        {"error": "TypeError", "message": "x", "hint": {}},
    ],
    ids=json.dumps,
)
def test_error_of_another_form_is_a_malformed_answer(host: Host, said: object) -> None:
    host.answers(said)
    with pytest.raises(ProtocolMismatch, match="bad answered something that cannot be read"):
        probe(OPTIONS)


def test_error_of_a_name_that_is_unknown_here_is_told_as_it_is(host: Host) -> None:
    host.answers({"error": "KeyboardInterrupt", "message": "somebody pressed a key"})
    with pytest.raises(RemoteError, match="somebody pressed a key"):
        probe(OPTIONS)


@pytest.mark.parametrize("wrong", [{"since": 1e300}, {"launchers": "x"}, {"kernel": None}], ids=json.dumps)
def test_one_agent_that_answers_in_another_form_hides_no_other_on_its_host(host: Host, wrong: dict[str, Any]) -> None:
    host.answers({"host": "h", "kernels": [{**STATE, "id": "ffffffffffff", **wrong}, STATE]})
    running = find_running([OPTIONS])
    assert not running.silent
    assert {kernel.id: kernel.state for kernel in running.kernels} == {
        "ffffffffffff": "unreadable",
        STATE["id"]: "connected",
    }


@pytest.mark.parametrize("kernels", ["x", 5, [5], [{}], [{**STATE, "id": "../x"}]])
def test_one_host_that_answers_in_another_form_hides_no_other(host: Host, kernels: object) -> None:
    host.answers({"host": "h", "kernels": kernels})
    host.answers({"host": "g", "kernels": [STATE]}, host="good")
    running = find_running([OPTIONS, LaunchOptions(Endpoint.parse("good"))])
    assert [kernel.host for kernel in running.kernels] == ["g"]
    ((name, error),) = running.silent
    assert (name, type(error)) == ("bad", ProtocolMismatch)


def test_kernel_that_is_gone_is_no_malformed_answer(host: Host) -> None:
    host.answers({"host": "h", "kernels": []})
    with pytest.raises(NoSuchKernel):
        ask_agent(_kernel(), "keep")


@pytest.mark.parametrize("said", [{}, {"seconds": 5}, {"seconds": {"all": 0.0}, "errors": [], "disks": 5}])
def test_doctor_names_an_answer_of_another_form(host: Host, said: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_kernel.doctor.route.name_finding", lambda hops: _ok())
    monkeypatch.setattr("remote_kernel.doctor.route.greet_servers", lambda *_: ["there"])
    host.answers(said)
    failed = [finding for finding in examine(OPTIONS, start=False) if finding.state.name == "FAILED"]
    assert ["cannot be read" in finding.text for finding in failed] == [True]


def _ok() -> Any:
    from remote_kernel.doctor.finding import ok

    return ok("name", "known")


MESSAGES: list[Any] = [
    {"event": "started"},
    {"event": "started", "pid": "1", "host": "h", "folder": "/f"},
    {"event": "started", "pid": 1, "host": ["h"], "folder": "/f"},
    {"event": "started", "pid": 1, "host": "h", "folder": None},
    {"event": "started", "pid": 1, "host": "h", "folder": "/f", "warning": 5},
    {"event": "started", "pid": 1, "host": "h", "folder": "/f", "connection": "x"},
    {"event": "ready"},
    {"event": "ready", "seconds": "soon"},
    {"event": "overflow", "number": 1},
    {"event": "discarded", "number": 1, "messages": 5, "bytes": "many"},
    {"event": "failed"},
    {"event": "failed", "error": 5, "message": "m", "hint": "h"},
    {"event": "ended"},
    {"event": "ended", "output_ends": 5, "status": 0, "ready": True, "stderr": "", "why": ""},
    {"event": "ended", "output_ends": [0], "status": 0, "ready": True, "stderr": "", "why": ""},
    {"event": "ended", "output_ends": [0, 0], "status": "0", "ready": True, "stderr": "", "why": ""},
    {"event": "ended", "output_ends": [0, 0], "status": 10**9, "ready": True, "stderr": "", "why": ""},
    {"event": "ended", "output_ends": [0, 0], "status": 0, "ready": True, "stderr": 5, "why": ""},
]


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Undo what a launcher in this process does to SIGINT: what later tests start would ignore it too."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: json.dumps(message)[:60])
def test_control_message_of_another_form_ends_the_start_with_one_sentence(
    host: Host, message: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    host.sends(message)
    file = write_connection_file(tmp_path / "kernel-1.json")
    status = launcher.main(OPTIONS._replace(connection_file=str(file)).to_arguments())
    said = capfd.readouterr().err
    assert (status, "Traceback" in said) == (ProtocolMismatch.exit_status, False), said
    assert re.search("bad answered something that cannot be read", said.splitlines()[-1])


@pytest.mark.usefixtures("interrupts")
def test_kernel_behind_an_init_that_hangs_is_told(
    host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SLOW_SECONDS", 0.2)
    host.sends({"event": "started", "pid": 1, "host": "h", "folder": "/f"}, {"event": "ended"})
    file = write_connection_file(tmp_path / "kernel-1.json")
    launcher.main(OPTIONS._replace(connection_file=str(file), init="module load cuda").to_arguments())
    assert "the kernel is not ready after 0 s; --init 'module load cuda'" in capfd.readouterr().err
