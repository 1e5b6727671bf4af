"""The package itself: it loads nothing, and gives programs `Session` when they ask for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import remote_kernel
from remote_kernel.session import client


def test_package_loads_nothing_until_session_is_asked_for() -> None:
    code = "import sys; before = set(sys.modules); import remote_kernel; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["remote_kernel"]
    assert remote_kernel.Session is client.Session


def test_package_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match="Sessions"):
        remote_kernel.Sessions  # type: ignore[attr-defined]  # noqa: B018
