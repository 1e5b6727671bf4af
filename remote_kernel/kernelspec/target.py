"""Find the remote kernel that a person means by one word: a kernelspec's slug or name, or a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import NoSuchKernelspec, UnknownHost
from remote_kernel.kernelspec.installed import Kernelspec, did_you_mean, find_kernelspec, list_kernelspecs
from remote_kernel.options import LaunchOptions


class Target(NamedTuple):
    """The settings to use, and the kernelspecs that they may be of: one, or for a mere host none or several."""

    options: LaunchOptions
    kernelspecs: tuple[Kernelspec, ...]
    is_host: bool = True


def find_target(name: str, *, other_way: bool = False) -> Target:
    """Return what a name stands for: a kernelspec's slug or display name, else a host, as `add` takes it.

    A host with one kernelspec stands for that; one with several only for the way there; and for none where the command
    line has an `other_way` there. Raises UsageError.
    """
    try:
        spec = find_kernelspec(name)
    except NoSuchKernelspec:
        if " " in name:  # no host, but a display name
            raise
        return Target(LaunchOptions(Endpoint.parse(name)), ()) if other_way else _host(name)
    if spec.options is None:
        raise NoSuchKernelspec(
            f"the settings of '{spec.slug}' cannot be read: {spec.problem}", "correct its kernel.json"
        )
    return Target(spec.options, (spec,), is_host=False)


@contextmanager
def perhaps_a_slug(name: str) -> Iterator[None]:
    """Add to an error of the block which kernelspec may be meant by a `name` that no server has."""
    try:
        yield
    except UnknownHost as error:
        raise UnknownHost(error.message, hint_for(name, error.hint)) from error


def hint_for(name: str, hint: str) -> str:
    """Return the hint for a host that has no address; it may be a mistyped slug."""
    meant = "" if _hosts(name) else did_you_mean(name)
    return f"{meant} Else {hint}" if meant else hint


def _host(name: str) -> Target:
    specs = _hosts(name)
    if not specs:
        return Target(LaunchOptions(Endpoint.parse(name)), ())
    options = specs[0].options
    assert options
    return Target(options if len(specs) == 1 else way_of(options), specs)


def way_of(options: LaunchOptions) -> LaunchOptions:
    """Return only how to get there, which kernelspecs of one host share."""
    return LaunchOptions(options.endpoint, options.jumps, transport=options.transport, ssh_config=options.ssh_config)


def _hosts(name: str) -> tuple[Kernelspec, ...]:
    """Return the kernelspecs of a host; those for a single running kernel are not meant."""
    return tuple(
        spec
        for spec in list_kernelspecs()
        if spec.options and not spec.options.resume and name in (str(spec.options.endpoint), spec.options.endpoint.host)
    )
