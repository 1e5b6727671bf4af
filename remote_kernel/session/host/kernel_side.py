"""Answer a session's questions inside an IPython kernel, and keep what runs beside a cell apart from it.

The session has the kernel run this source once (see kernel_client.py). Python 3.8, and the standard library only.

An execute_request fires IPython's events, also where it is silent and where it runs beside a cell: matplotlib's inline
backend then shows and closes every figure, those of the running cell too (ipykernel#1564). It takes what the running
cell has for its front end as well, and whether that may ask for input. So a question is a request of a kind of its own,
which touches nothing of all that: on control it is answered in a thread of its own, on shell between two cells. Cells
that run beside others (`metadata.remote_kernel` is "beside") fire no events, and have figures of their own. A file's
code (`metadata.remote_kernel_script`) runs as `python FILE ARGUMENTS` would.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
import sys
import threading
import time
import warnings
from collections import OrderedDict
from typing import Any

REQUEST, REPLY = "remote_kernel_request", "remote_kernel_reply"
CELL, BESIDE, QUIET = "cell", "beside", "quiet"  # what metadata.remote_kernel says of an execute_request
SCRIPT = "remote_kernel_script"  # in the metadata of a cell: the arguments of Script, by their names
UNSEEN = "unseen"  # what is said of a cell that never began

_ENDS = 1000  # of cells that are remembered
_VARIABLES_SECONDS, _LIMIT_SECONDS = 5.0, 12.0  # for an answer; the first completion in a library takes some
_TERMINATE_SECONDS, _KILL_SECONDS = 1.5, 0.5  # for child processes to end
# Where a value's shape is an attribute that is there, and not computed when somebody asks, as dask does.
_LIBRARIES = {"numpy", "pandas", "torch", "jax", "jaxlib", "tensorflow", "polars", "scipy", "pyarrow", "cupy", "cudf"}
_LIBRARIES |= {"xarray"}
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SHOWN = (bool, int, float, complex, str, bytes, type(None))
_SKIPPED = (type(sys), type(lambda: 0), type(len), type)  # modules, functions, classes


class KernelSide:
    """The session's part in one kernel. `ends` has the cells of rkernel that began, with how they ended."""

    def __init__(self, shell: Any) -> None:
        earlier = getattr(shell.kernel, "_remote_kernel", None)  # another version's, it may be
        self.shell, self.kernel = shell, shell.kernel
        self.ends: OrderedDict[str, list[Any] | None] = getattr(earlier, "ends", None) or OrderedDict()
        self.refused: set[str] = getattr(earlier, "refused", set())
        self._fire = getattr(earlier, "_fire", shell.events.trigger)
        self._may_ask = bool((shell.kernel.get_parent("shell").get("content") or {}).get("allow_stdin"))
        self._is_running = False  # a cell, in the main thread
        self._script: Script | None = getattr(earlier, "_script", None)  # that runs
        self._here = threading.local()  # `figures` are those of the cell that runs beside others in this thread

    def install(self) -> None:
        """Replace an earlier one, if there is one."""
        self.kernel._remote_kernel = self
        self.shell.events.trigger = self.trigger
        for handlers in (self.kernel.shell_handlers, self.kernel.control_handlers):
            handlers[REQUEST] = self.serve

    # -- questions

    def serve(self, stream: Any, ident: Any, parent: Any) -> None:
        """Answer a request: at once in the main thread, between two cells; else in a thread, within some seconds."""
        do, arguments = parent["content"]["do"], parent["content"]["arguments"]
        at: list[str] = [arguments.get("code", "")]  # what is being looked at
        seconds = _VARIABLES_SECONDS if do == "variables" else _LIMIT_SECONDS
        replied: list[bool] = []

        def answer() -> dict[str, Any]:
            try:
                if do == "variables":
                    found: Any = self.variables(at, **arguments)
                else:
                    found = {
                        "end": self.end,
                        "end_children": self.end_children,
                        "inspect_request": self.kernel.do_inspect,
                        "complete_request": self.kernel.do_complete,
                    }[do](**arguments)
                return {"status": "ok", "answer": asyncio.run(found) if asyncio.iscoroutine(found) else found}
            except Exception as error:
                return {"status": "error", "ename": type(error).__name__, "evalue": str(error)}

        def reply(content: dict[str, Any]) -> None:
            if not replied:
                replied.append(True)
                self.kernel.session.send(stream, REPLY, content, parent, ident)

        def reply_late() -> None:
            what = f"'{at[0]}' keeps it for more than {seconds:g} s"
            reply({"status": "error", "ename": "TimeoutError", "evalue": what})

        if threading.current_thread() is threading.main_thread():
            reply(answer())
        else:
            stream.io_loop.call_later(seconds, reply_late)
            threading.Thread(target=lambda: stream.io_loop.add_callback(reply, answer()), daemon=True).start()

    def variables(self, at: list[str], pattern: str) -> dict[str, dict[str, Any]]:
        """Describe the user's variables whose names match."""
        user, hidden = self.shell.user_ns, getattr(self.shell, "user_ns_hidden", ())
        found = {}
        for name in [name for name in list(user) if type(name) is str and name[:1] != "_" and name not in hidden]:
            value = user.get(name)
            if not issubclass(type(value), _SKIPPED) and fnmatch.fnmatchcase(name, pattern):
                at[0] = name
                found[name] = describe(value)
        return found

    def end(self, request: str) -> Any:
        """Return how a cell ended: [count], or [count, error, text], null where it did not; UNSEEN if it never began.

        Such a one never will: it may be on its way still, and the session sends it again under another name.
        """
        if request not in self.ends and len(self.ends) < _ENDS:
            self.refused.add(request)
            for handlers in (self.kernel.shell_handlers, self.kernel.control_handlers):
                handler = handlers["execute_request"]
                if not isinstance(getattr(handler, "__self__", None), _Refusing):
                    handlers["execute_request"] = _Refusing(self.refused, handler).serve
            return UNSEEN
        return self.ends.get(request)

    def end_children(self) -> list[str]:
        """End what this kernel has started in its process group, and name what had to be killed.

        ipykernel does so at its shutdown, and takes for alive what nobody has waited for: up to 14 s a signal.
        """
        killed: list[str] = []
        for end, seconds in (("terminate", _TERMINATE_SECONDS), ("kill", _KILL_SECONDS)):
            deadline = time.monotonic() + seconds
            children = _living_children()
            killed = [f"{name} ({child.pid})" for child, name in children]
            for child, _ in children:
                with contextlib.suppress(Exception):
                    getattr(child, end)()
            while _living_children() and time.monotonic() < deadline:
                time.sleep(0.02)
        _reap()  # one that has ended since the last look at it would count as alive
        return killed

    # -- events

    def trigger(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Stand in for IPython's own, which calls the user's hooks."""
        parent = self.kernel.get_parent() or {}
        how = (parent.get("metadata") or {}).get("remote_kernel")
        if how and event in ("pre_run_cell", "post_run_cell"):
            self.ends[parent["header"]["msg_id"]] = _end(args[0]) if event == "post_run_cell" else None
            if len(self.ends) > _ENDS:
                self.ends.popitem(last=False)
        if how not in (BESIDE, QUIET):
            if event in ("pre_execute", "post_execute") and threading.current_thread() is threading.main_thread():
                self._is_running, self._may_ask = event == "pre_execute", self.kernel._allow_stdin
            if event == "pre_run_cell":
                self._begin_script(parent)
            self._fire(event, *args, **kwargs)
            if event == "post_run_cell" and self._script:
                self._script.depth -= 1
                self._end_script()
        elif event == "pre_execute":
            self._begin_beside()
        elif event == "post_execute":
            self._end_beside()
            self.kernel._allow_stdin = self._may_ask  # which is the kernel's, and not each cell's

    def _begin_script(self, parent: Any) -> None:
        request = (parent.get("header") or {}).get("msg_id")
        if self._script and self._script.request != request:  # it ran a cell of its own, whose end was not told
            self._script.depth = 0
            self._end_script()
        about = (parent.get("metadata") or {}).get(SCRIPT)
        try:
            if about and not self._script:
                self._script = Script(self.shell, request, **about)
        except Exception:
            self.shell.showtraceback()
        if self._script:
            self._script.depth += 1

    def _end_script(self) -> None:
        if self._script and not self._script.depth:
            self._script.undo()
            self._script = None

    def _begin_beside(self) -> None:
        pyplot = sys.modules.get("matplotlib._pylab_helpers")
        if pyplot and not isinstance(pyplot.Gcf.figs, _Figures):
            pyplot.Gcf.figs = _Figures(pyplot.Gcf.figs, self._here)
        self._here.figures = OrderedDict()

    def _end_beside(self) -> None:
        """Show and close the figures that this thread's cell has made, as the inline backend does for other cells."""
        figures = getattr(self._here, "figures", None)
        pyplot = sys.modules.get("matplotlib._pylab_helpers")
        if figures is not None and pyplot and not self._is_running and not isinstance(pyplot.Gcf.figs, _Figures):
            figures = pyplot.Gcf.figs  # this cell has imported it
        try:
            hooks = [getattr(hook, "__name__", "") for hook in self.shell.events.callbacks["post_execute"]]
            if figures and "flush_figures" in hooks and sys.modules["matplotlib"].is_interactive():
                from IPython import display

                show: Any = display.display
                for manager in figures.values():
                    show(manager.canvas.figure)
            if figures and pyplot:
                pyplot.Gcf.destroy_all()
        except Exception:
            self.shell.showtraceback()
        finally:
            self._here.figures = None


class Script:
    """All that a file's code finds as it would under `python FILE ARGUMENTS`, until `undo`."""

    def __init__(self, shell: Any, request: Any, argv: list[str], here: str, below: str, is_here: bool) -> None:
        """Set it up. `here` is the file's path where the session is, `below` from the kernel's folder on.

        The second counts unless the kernel `is_here` too, or only the first exists there.
        """
        self.request, self.depth = request, 0  # of the cells that it runs by itself
        self._user, self._argv = shell.user_ns, sys.argv
        there = below
        with contextlib.suppress(OSError):  # the folder may be gone
            there = os.path.join(os.getcwd(), below)
        path = here if is_here or (os.path.exists(here) and not os.path.exists(there)) else there
        # `exit` and `quit` are IPython's, which end the kernel.
        self._names = {"__file__": path, "exit": sys.exit, "quit": sys.exit}
        self._before = {name: self._user[name] for name in self._names if name in self._user}
        self._folder = os.path.dirname(path)
        warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's, when a script has ended
        self._warning = warnings.filters[0]
        sys.argv = argv
        sys.path.insert(0, self._folder)
        self._user.update(self._names)

    def undo(self) -> None:
        """Remove it."""
        sys.argv = self._argv
        if self._folder in sys.path:
            sys.path.remove(self._folder)
        if self._warning in warnings.filters:
            warnings.filters.remove(self._warning)  # type: ignore[attr-defined]
        for name in self._names:
            self._user.pop(name, None)
        self._user.update(self._before)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(0, os.WNOHANG)[0]:
            pass


def _living_children() -> list[tuple[Any, str]]:
    """Return the processes below this one in its process group, with their names; those that have ended are reaped."""
    import psutil

    _reap()
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(child.pid) == os.getpgrp() and child.status() != psutil.STATUS_ZOMBIE:
                found.append((child, child.name()))
    return found


class _Figures:
    """pyplot's register of figures: that of a cell beside others in its thread, the one of all elsewhere."""

    def __init__(self, everyones: Any, here: Any) -> None:
        self._everyones, self._here = everyones, here

    def _own(self) -> Any:
        own = getattr(self._here, "figures", None)
        return self._everyones if own is None else own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own(), name)

    def __getitem__(self, number: Any) -> Any:
        return self._own()[number]

    def __setitem__(self, number: Any, manager: Any) -> None:
        self._own()[number] = manager

    def __contains__(self, number: Any) -> bool:
        return number in self._own()

    def __iter__(self) -> Any:
        return iter(self._own())

    def __len__(self) -> int:
        return len(self._own())


class _Refusing:
    """A handler of execute_requests that passes over some of them."""

    def __init__(self, refused: set[str], handler: Any) -> None:
        self._refused, self._handler = refused, handler

    def serve(self, stream: Any, ident: Any, parent: Any) -> Any:
        """Pass on what is not refused."""
        if parent["header"]["msg_id"] not in self._refused:
            return self._handler(stream, ident, parent)
        return None


def describe(value: Any) -> dict[str, Any]:
    """Return a value's type, and its size or text where they are known without running code of the user's."""
    kind = type(value)
    found: dict[str, Any] = {"type": kind.__name__}
    if str(kind.__module__).split(".")[0] in _LIBRARIES:
        attributes = {name for base in kind.__mro__ for name in vars(base)}  # what __getattr__ makes up is none
        try:
            shape = value.shape if "shape" in attributes else None
            if isinstance(shape, tuple):
                found["shape"] = [int(side) for side in shape]
            for name in ("dtype", "device"):
                if name in attributes and not callable(getattr(value, name)):
                    found[name] = str(getattr(value, name))
        except Exception as error:
            found["value"] = "<" + type(error).__name__ + ">"
    sized = next((base for base in _SIZED if issubclass(kind, base)), None)
    if sized and "shape" not in found:
        found["length"] = sized.__len__(value)
    shown: Any = next((base for base in _SHOWN if issubclass(kind, base)), None)
    if shown in (str, bytes):
        found["value"] = repr(shown.__getitem__(value, slice(80)))[:100]
    elif shown is int and int.bit_length(value) > 400:  # its digits may take minutes
        found["value"] = f"about 2**{int.bit_length(value)}"
    elif shown:
        found["value"] = shown.__repr__(value)[:100]
    return found


def _end(result: Any) -> list[Any]:
    """Return how a cell ended from IPython's ExecutionResult; none where it was interrupted while it awaited."""
    if result is None:
        return [None, "KeyboardInterrupt", ""]
    error = result.error_in_exec if result.error_before_exec is None else result.error_before_exec
    return [result.execution_count] if error is None else [result.execution_count, type(error).__name__, _text(error)]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
