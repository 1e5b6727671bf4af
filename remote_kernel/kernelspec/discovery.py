"""Ask a remote host what it has for a kernel: what the options name, or everything that could run one there.

Each question is one SSH session and leaves nothing behind there.
"""

from __future__ import annotations

from typing import NamedTuple

from remote_kernel import bootstrap
from remote_kernel.handshake import ask, reading
from remote_kernel.options import LaunchOptions
from remote_kernel.typed_json import list_of, row, text


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


class Environment(NamedTuple):
    """An interpreter of the host: `kind` is conda, venv, uv, pixi, system or python.

    `python` is its absolute path; the versions of packages are empty where they are missing.
    """

    python: str
    kind: str
    name: str
    version: str
    ipykernel: str
    torch: str
    jax: str

    @property
    def is_usable(self) -> bool:
        """True if an agent's kernel can run under it: Python 3.8 or later."""
        numbers = self.version.split(".")
        return len(numbers) > 1 and (int(numbers[0]), int(numbers[1])) >= (3, 8)


class HostKernelspec(NamedTuple):
    """A kernelspec of the host whose kernel is not ipykernel."""

    name: str
    display_name: str
    language: str


class Discovery(NamedTuple):
    """What a host has; `silent` are interpreters that did not answer in time, `foreign` those that are not ours.

    `home` is the user's there, and `default` the one of the interpreters that runs where no --python is given.
    """

    host: str
    home: str
    default: str
    gpus: list[str]
    environments: list[Environment]
    kernelspecs: list[HostKernelspec]
    silent: list[str]
    foreign: list[str]

    def path_of(self, python: str) -> str:
        """Return the path there of an interpreter as --python names it, empty for the default."""
        if not python:
            return self.default
        return f"{self.home}{python[1:]}" if python.startswith("~/") else python


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
    """Install ipykernel for the options' interpreter and return the command that did it.

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


def discover(options: LaunchOptions, timeout_seconds: float = 30.0) -> Discovery:
    """Look for interpreters, environments, kernelspecs and GPUs. Raises TransportError's kinds, PythonNotFound."""
    found, _ = ask(options, "discover", bootstrap.start_settings(options, "", "", {}), timeout_seconds)
    with reading(options):
        environments = list_of(lambda said: row(Environment, said), found["environments"])
        return row(
            Discovery,
            found,
            gpus=list_of(text, found["gpus"]),
            environments=[environment for environment in environments if environment.is_usable],
            kernelspecs=list_of(lambda said: row(HostKernelspec, said), found["kernelspecs"]),
            silent=list_of(text, found["silent"]),
            foreign=list_of(text, found["foreign"]),
        )
