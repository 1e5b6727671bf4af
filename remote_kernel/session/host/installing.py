"""Have an IPython kernel run kernel_side.py, so that the session can ask it things beside the user's code."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from remote_kernel.errors import RemoteError
from remote_kernel.session.host.kernel_side import QUIET
from remote_kernel.session.host.questions import Questions

_RUN = """
from IPython import get_ipython
KernelSide(get_ipython()).install()
get_ipython().kernel.{mark} = True
"""


class NotInstalled(RemoteError):
    """This kernel cannot run it."""


async def install(questions: Questions, info: dict[str, Any]) -> bool:
    """Have a kernel with this kernel_info_reply run it, beside a running cell too, unless it has; True if it had.

    IPython's `pre_execute` is the only hook of the user's that fires, where it is new. Raises NotInstalled, NoAnswer.
    """
    if (info.get("language_info") or {}).get("name") != "python":
        raise NotInstalled("this kernel cannot be looked into", "this works with Python kernels")
    mark, code = _code()
    name = f"get_ipython.__self__.kernel.{mark}"  # which inspect_request finds, and fires no events
    content = {"code": name, "cursor_pos": len(name), "detail_level": 0}
    if (await questions.ask("inspect_request", content, channel="control")).content.get("found"):
        return True
    content = {
        "code": code,
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    reply = await questions.ask("execute_request", content, channel="control", metadata={"remote_kernel": QUIET})
    if reply.content.get("status") != "ok":
        why = reply.content.get("evalue") or reply.content.get("status")
        raise NotInstalled(f"this kernel cannot be looked into: {why}", "this works with ipykernel")
    return False


@functools.cache
def _code() -> tuple[str, str]:
    """Give the attribute that tells that this very source has run, and the code that runs it and makes no variable."""
    source = Path(__file__).with_name("kernel_side.py").read_text(encoding="utf-8")
    mark = f"_remote_kernel_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    source += _RUN.format(mark=mark)
    return mark, f"__import__('builtins').exec({source!r}, {{'__name__': 'remote_kernel'}})"
