"""List a Python kernel's variables, beside a running cell too."""

from __future__ import annotations

from typing import Any

from remote_kernel.session.host.engine import Engine


async def list_variables(engine: Engine, pattern: str) -> list[dict[str, Any]]:
    """Give the variables whose names match the pattern (`*` and `?`; empty for all), sorted by name.

    Each has `name`, `type`, and where they are known `shape`, `length`, `dtype`, `device` and `value`. Raises
    RemoteError for a kernel of another language, and where a value takes too long.
    """
    variables = await engine.look("variables", pattern=pattern or "*")
    return [{"name": name, **variables[name]} for name in sorted(variables)]
