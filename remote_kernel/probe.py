"""Ask a remote host what it has for a kernel: one SSH session, nothing left behind there."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from remote_kernel import bootstrap
from remote_kernel.errors import AuthenticationFailed
from remote_kernel.handshake import Handshake, answer_of, raise_told, reading, wait_for_answer
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, notes
from remote_kernel.transport.carrier import PipeText
from remote_kernel.transport.ssh_errors import explain, flooded
from remote_kernel.typed_json import list_of, row, text

_END_SECONDS = 2.0
_CHATTER = ("debug1: ", "Authenticated ", "Transferred: ", "Bytes per second: ")


class RemoteKernelspec(NamedTuple):
    """A kernelspec that the remote host has; `interrupt_mode` is `signal` or `message`."""

    name: str
    display_name: str
    language: str
    interrupt_mode: str
    argv: tuple[str, ...]


class Probe(NamedTuple):
    """What a host has for a kernel's options.

    `python` is the interpreter's absolute path there, `is_the_systems` where its packages are not ours to change;
    `new_environment` is a path there, as `~/NAME`, that does not exist, where one can be made;
    `ipykernel_version` is empty when it has none; `kernelspec` is None unless the options name one; `noise` is what
    the login shell printed by itself.
    """

    host: str
    user: str
    python: str
    python_version: str
    ipykernel_version: str
    is_the_systems: bool
    new_environment: str
    kernelspec: RemoteKernelspec | None
    noise: str


def probe(options: LaunchOptions, timeout_seconds: float = 30.0) -> Probe:
    """Look for the interpreter, ipykernel and kernelspec that the options name.

    Raises TransportError's kinds when the host cannot be reached, PythonNotFound, RemoteKernelspecNotFound.
    A person asks, so a login that was refused a moment ago is tried again.
    """
    found, noise = ask(options, "survey", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    with reading(options):
        spec = found["kernelspec"]
        known = row(RemoteKernelspec, spec, argv=tuple(list_of(text, spec["argv"]))) if spec else None
        return row(Probe, found, kernelspec=known, noise=noise)


def install_ipykernel(options: LaunchOptions, timeout_seconds: float = 600.0) -> str:
    """Install ipykernel for the options' interpreter and give the command that did it.

    Raises KernelNotInstalled when that fails or the interpreter is the system's own, and what `probe` raises.
    """
    found, _ = ask(options, "install", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    with reading(options):
        return text(found["installed_with"])


def make_environment(options: LaunchOptions, timeout_seconds: float = 600.0) -> str:
    """Make a new environment on the host, with ipykernel, from the options' interpreter; return its interpreter's path.

    Raises KernelNotInstalled when that fails, and what `probe` raises.
    """
    found, _ = ask(options, "environment", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    with reading(options):
        return text(found["python"])


class Answer(NamedTuple):
    """What a short program on the host answered; `noise` is what the login shell printed, `stderr` what ssh did."""

    found: dict[str, Any]
    noise: str
    stderr: str


def ask(
    options: LaunchOptions, mode: str, settings: Mapping[str, object], timeout_seconds: float
) -> tuple[dict[str, Any], str]:
    """Run a short program on the host; give its answer and what the login shell printed before it.

    Raises TransportError's kinds, and the error that the program names.
    """
    answer = hear(options, mode, settings, timeout_seconds)
    raise_told(answer.found)
    return answer.found, answer.noise


def hear(
    options: LaunchOptions,
    mode: str,
    settings: Mapping[str, object],
    timeout_seconds: float,
    *,
    chatter: list[str] | None = None,
) -> Answer:
    """Run a short program on the host and give its answer, which may be an error. Raises TransportError's kinds.

    `chatter` is for what the transport says of its work, line by line, also when it fails.
    """
    marker = bootstrap.new_marker()
    handshake = Handshake(options, marker)
    program = bootstrap.program(marker, mode, settings)
    stderr, status = _run(options, handshake, program, marker, timeout_seconds, chatter)
    if handshake.told is None:
        failed = explain(options, choice.in_full(options, stderr), status, handshake.end())
        if isinstance(failed, AuthenticationFailed):
            notes.trip(options, failed)
        raise failed
    notes.clear(options)
    answer = answer_of(options, handshake.told)
    return Answer(answer, handshake.noise.decode("utf-8", "replace").strip(), stderr)


def _run(
    options: LaunchOptions,
    handshake: Handshake,
    program: bytes,
    marker: str,
    timeout_seconds: float,
    chatter: list[str] | None,
) -> tuple[str, int | None]:
    """Run the program there; return what ssh printed for a person, and its status, None where it was killed."""
    command = bootstrap.remote_command(options.remote_python(), len(program), marker)
    argv = choice.carrier_argv(options, command)
    stderr = ""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv if chatter is None else choice.talkative(options, argv),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=choice.environment(options),
        bufsize=0,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        stdin = process.stdin
        errors = PipeText(process, process.stderr)

        def send(data: bytes = program) -> None:
            with suppress(OSError):  # why, the end of stdout tells
                stdin.write(data)

        try:
            send(bootstrap.FIRST_LINE)
            wait_for_answer(options, process.stdout.fileno(), handshake, send, timeout_seconds)
        except BaseException:
            process.kill()
            raise
        finally:
            stdin.close()
            status = _status(process)
            stderr, said = _parted(errors.text())
            if chatter is not None:
                chatter += said
    if errors.is_flood:
        raise flooded(options, stderr.encode())
    return stderr, status


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for ssh, which has nothing more to carry, and return its exit status."""
    try:
        status = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:  # a program that an rc file has started holds the session open
        process.kill()
        status = process.wait()
    return status if status >= 0 else None


def _parted(stderr: str) -> tuple[str, list[str]]:
    """Part what ssh says for a person from what it says of its work."""
    lines = stderr.splitlines(keepends=True)
    chatter = [line.strip() for line in lines if line.startswith(_CHATTER)]
    return "".join(line for line in lines if line.strip() not in chatter), chatter
