"""Ask a remote host for everything that could run a kernel there, in one SSH session."""

from __future__ import annotations

from typing import NamedTuple

from remote_kernel import bootstrap
from remote_kernel.handshake import reading
from remote_kernel.options import LaunchOptions
from remote_kernel.probe import ask
from remote_kernel.typed_json import list_of, row, text


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
