"""What `add --discover` offers of what a host has: every name makes a kernelspec of its own."""

from __future__ import annotations

import pytest

from remote_kernel.cli import add_discovered
from remote_kernel.endpoint import Endpoint
from remote_kernel.kernelspec.discovery import Discovery, Environment, HostKernelspec
from remote_kernel.kernelspec.names import make_slug
from remote_kernel.options import LaunchOptions

NOTHING = Discovery("gpu1", "/home/me", "", [], [], [], [], [])


def environment(name: str, python: str, kind: str = "venv") -> Environment:
    return Environment(python=python, kind=kind, name=name, version="3.12.4", ipykernel="7.0.0", torch="", jax="")


@pytest.mark.parametrize(
    "found",
    [
        NOTHING._replace(environments=[environment("web", f"/home/me/{at}/web/bin/python") for at in ("a", "b")]),
        NOTHING._replace(environments=[environment(name, f"/home/me/{name}/bin/python") for name in ("a-b", "a_b")]),
        NOTHING._replace(environments=[environment(name, f"/home/me/{name}/bin/python") for name in ("Web", "web")]),
        NOTHING._replace(kernelspecs=[HostKernelspec(name, "Julia 1.10", "julia") for name in ("julia", "julia-8")]),
    ],
    ids=["two folders", "a dash", "a capital", "two kernelspecs"],
)
def test_what_would_have_one_slug_is_told_apart(found: Discovery) -> None:
    offers = add_discovered._offers(found, LaunchOptions(Endpoint("gpu1")))
    assert len({make_slug(offer.draft.display_name) for offer in offers}) == 2
