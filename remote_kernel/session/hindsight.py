"""Learn from an IPython kernel how its last cell ended, when nobody was there to see it.

IPython keeps the result of what it ran last, until it runs something else, and since 8.3 the `cellId` that came with
the request; before that, the number and the code have to do, which are known of a cell that was seen to begin. A
request that is silent replaces it as any other does, but its own code still finds it; what it found is kept in the
shell for the next host, should the one that has asked be gone when the kernel comes to it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Awaitable, Callable
from typing import Any

from remote_kernel.session.cell import Cell
from remote_kernel.session.events import Error
from remote_kernel.session.wire import Message

_KEEP = "setattr(get_ipython(), '_remote_kernel_last', get_ipython().last_execution_result)"
_DESCRIBE = """\
def describe(shell, ours):
    import json
    last = shell.__dict__.pop('_remote_kernel_last')
    if last.info.raw_cell != ours:
        error = last.error_before_exec or last.error_in_exec
        found = [type(error).__name__, str(error)] if error else []
        name = getattr(last.info, 'cell_id', None)
        shell._remote_kernel_end = json.dumps([last.execution_count, last.info.raw_cell, name, *found])
    return shell._remote_kernel_end
"""
_EXPRESSION = "(lambda ns: (exec({source!r}, ns), ns['describe'](get_ipython(), {ours!r}))[1])({{}})"


def can_tell(info: dict[str, Any]) -> bool:
    """Tell whether a kernel with this kernel_info_reply can be asked."""
    return info.get("implementation") == "ipython"


async def learn_end(cell: Cell, ask: Callable[[str, dict[str, Any]], Awaitable[Message]]) -> None:
    """End a cell as it has ended, if it is the last that the kernel ran; else do nothing.

    `ask` sends a request on shell, whose reply comes once the cell is over.
    """
    content = {
        "code": _KEEP,
        "silent": True,
        "store_history": False,
        "user_expressions": {"end": _EXPRESSION.format(source=_DESCRIBE, ours=_KEEP)},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    reply = (await ask("execute_request", content)).content
    try:
        text = reply["user_expressions"]["end"]["data"]["text/plain"]
        count, code, name, *error = json.loads(ast.literal_eval(text))
    except (KeyError, TypeError, ValueError, SyntaxError):  # dropped, or not what IPython says
        return
    is_it = name == cell.request if name else count == cell.execution_count and code == cell.code
    if cell.done.done() or count is None or not is_it:
        return
    cell.execution_count = count
    cell.start(count)
    if error[:1] == ["SystemExit"] and cell.script:
        cell.exit_script(error[1])
    elif error:
        cell.tell(Error(*error))
    cell.finish("interrupted" if error[:1] == ["KeyboardInterrupt"] else "error" if error else "ok")
