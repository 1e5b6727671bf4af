"""Let a process run out of memory for real: in a control group of its own, whose system kills it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support.kernels import wait_until

_ROOT = Path("/sys/fs/cgroup")
_FIRST_VERSION = _ROOT / "memory"


def can_limit_memory() -> bool:
    """Tell whether this user may make control groups that limit memory."""
    if (_FIRST_VERSION / "memory.limit_in_bytes").exists():
        return os.access(_FIRST_VERSION, os.W_OK)
    enabled = _ROOT / "cgroup.subtree_control"
    return enabled.exists() and "memory" in enabled.read_text() and os.access(_ROOT, os.W_OK)


@contextlib.contextmanager
def limited_memory(pid: int, limit_bytes: int) -> Iterator[None]:
    """Bound the memory of a process and its future children, without swap; they have to end inside the block."""
    is_first = _FIRST_VERSION.exists()
    group = (_FIRST_VERSION if is_first else _ROOT) / f"rkernel-test-{pid}"
    limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if is_first else ("memory.max",)
    group.mkdir()
    try:
        for name in limits:
            if (group / name).exists():
                (group / name).write_text(str(limit_bytes))
        if (group / "memory.swap.max").exists():
            (group / "memory.swap.max").write_text("0")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        assert wait_until(lambda: not (group / "cgroup.procs").read_text(), 30)
        group.rmdir()
