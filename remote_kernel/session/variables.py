"""List a Python kernel's variables, beside a running cell too."""

from __future__ import annotations

import ast
import fnmatch
import json
from typing import Any

from remote_kernel.errors import RemoteError
from remote_kernel.session.engine import Engine

# Runs in the kernel in a namespace of its own: the user's variables are read, and none is made.
_SOURCE = """
import json, types
def describe(value):
    found = {"type": type(value).__name__}
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple):
            found["shape"] = [int(side) for side in shape]
        elif isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
            found["length"] = len(value)
        for name in ("dtype", "device"):
            if hasattr(value, name):
                found[name] = str(getattr(value, name))
        if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
            text = repr(value[:80] if isinstance(value, (str, bytes)) else value)
            found["value"] = text[:100]
    except Exception as error:
        found["value"] = "<" + type(error).__name__ + ">"
    return found
skip = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
names = [n for n in list(user) if not n.startswith("_") and n not in hidden]
answer = json.dumps({n: describe(user[n]) for n in names if not isinstance(user[n], skip)})
"""
_EXPRESSION = (
    "(lambda ns: (exec({source!r}, ns), ns['answer'])[1])"
    "({{'user': globals(), 'hidden': getattr(get_ipython(), 'user_ns_hidden', ())}})"
)


async def list_variables(engine: Engine, pattern: str) -> list[dict[str, Any]]:
    """Give the variables whose names match the pattern (`*` and `?`; empty for all), sorted by name.

    Each has `name`, `type`, and where they are known `shape`, `length`, `dtype`, `device` and `value`. Raises
    RemoteError for a kernel of another language.
    """
    content = {
        "code": "",
        "silent": True,
        "store_history": False,
        "allow_stdin": False,
        "stop_on_error": False,
        "user_expressions": {"variables": _EXPRESSION.format(source=_SOURCE)},
    }
    reply = await engine.ask_beside("execute_request", content)
    found = (reply.content.get("user_expressions") or {}).get("variables") or {}
    if found.get("status") != "ok":
        why = found.get("evalue") or "the kernel does not say"
        raise RemoteError(f"cannot list the variables: {why}", "this works with Python kernels")
    variables = json.loads(ast.literal_eval(found["data"]["text/plain"]))
    return [
        {"name": name, **variables[name]} for name in sorted(variables) if fnmatch.fnmatchcase(name, pattern or "*")
    ]
