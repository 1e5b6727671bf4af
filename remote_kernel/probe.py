"""Ask a remote host what it has for a kernel: one SSH session, nothing left behind there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

from remote_kernel import bootstrap
from remote_kernel.errors import AuthenticationFailed, ConnectTimeout, RemoteShellNoise, by_name
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import breaker, choice
from remote_kernel.transport.openssh import to_paste
from remote_kernel.transport.verdict import explain


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
    `ipykernel_version` is empty when it has none; `kernelspec` is None unless the options name one; `noise` is what
    the login shell printed by itself.
    """

    host: str
    user: str
    python: str
    python_version: str
    ipykernel_version: str
    is_the_systems: bool
    kernelspec: RemoteKernelspec | None
    noise: str


def probe(options: LaunchOptions, timeout_seconds: float = 30.0) -> Probe:
    """Look for the interpreter, ipykernel and kernelspec that the options name.

    Raises TransportError's kinds when the host cannot be reached, PythonNotFound, RemoteKernelspecNotFound.
    A person asks, so a login that was refused a moment ago is tried again.
    """
    found, noise = ask(options, "survey", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    spec = found["kernelspec"]
    return Probe(
        host=found["host"],
        user=found["user"],
        python=found["python"],
        python_version=found["python_version"],
        ipykernel_version=found["ipykernel_version"],
        is_the_systems=found["is_the_systems"],
        kernelspec=RemoteKernelspec(**{**spec, "argv": tuple(spec["argv"])}) if spec else None,
        noise=noise,
    )


def install_ipykernel(options: LaunchOptions, timeout_seconds: float = 600.0) -> str:
    """Install ipykernel for the options' interpreter and give the command that did it.

    Raises KernelNotInstalled when that fails or the interpreter is the system's own, and what `probe` raises.
    """
    found, _ = ask(options, "install", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    return str(found["installed_with"])


def ask(
    options: LaunchOptions, mode: str, settings: Mapping[str, object], timeout_seconds: float
) -> tuple[dict[str, Any], str]:
    """Run a short program on the host; give its answer and what the login shell printed before it.

    Raises TransportError's kinds, and the error that the program names.
    """
    marker = f"remote_kernel-{os.urandom(8).hex()}"
    program = bootstrap.program(marker, mode, settings)
    argv = choice.carrier_argv(options, bootstrap.remote_command(options.remote_python(), len(program)))
    try:
        done = subprocess.run(
            argv,
            input=program,
            capture_output=True,
            timeout=timeout_seconds,
            env=choice.environment(options),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectTimeout(
            f"{options.endpoint} does not answer within {timeout_seconds:.0f} s",
            f"see how long this takes, and whether it asks something: {to_paste(options)}",
        ) from error
    noise, found, rest = done.stdout.partition(f"\n{marker} ".encode())
    if not found:
        stderr = choice.in_full(options, done.stderr.decode("utf-8", "replace"))
        failed = explain(options, stderr, done.returncode, done.stdout)
        if isinstance(failed, AuthenticationFailed):
            breaker.trip(options, failed)
        raise failed
    breaker.clear(options)
    try:
        answer = json.loads(rest.partition(b"\n")[0])
    except ValueError as error:
        raise RemoteShellNoise(f"{options.endpoint} answered something that cannot be read", "try again") from error
    if "error" in answer:
        raise by_name(answer["error"], answer["message"], answer["hint"])
    return answer, noise.decode("utf-8", "replace").strip()
