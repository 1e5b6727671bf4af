"""The Link and the reactor under every Python from 3.8 to 3.13 that this machine has."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.interpreters import NEWEST, OLDEST, interpreters

REPOSITORY = Path(__file__).parents[3]
MODULES = ("tests.unit.link.test_link", "tests.unit.link.test_reactor")
FOUND = interpreters()


def test_interpreters_are_here() -> None:
    missing = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1) if (3, minor) not in FOUND]
    assert FOUND, "no Python from 3.8 to 3.13: the remote side's code was tested under none"
    if missing:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # a machine need not have them all, but the run should say so
            warnings.warn(f"the remote side's code was not tested under Python {', '.join(missing)}", stacklevel=1)


def versions() -> Iterator[ParameterSet]:
    """Give the oldest and the newest; those between are the nightly run's."""
    for version in FOUND:
        is_between = min(FOUND) < version < max(FOUND)
        yield pytest.param(version, id="{}.{}".format(*version), marks=[pytest.mark.nightly] if is_between else [])


@pytest.mark.parametrize("version", list(versions()))
def test_link_and_reactor_under(version: tuple[int, int]) -> None:
    command = [str(FOUND[version]), "-I", "-W", "error", str(REPOSITORY / "tests/unit/remote/run.py"), str(REPOSITORY)]
    done = subprocess.run([*command, *MODULES], capture_output=True, text=True, timeout=100, cwd="/")
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    assert done.stdout.split()[3].startswith("{}.{}.".format(*version))
    assert count >= 60
