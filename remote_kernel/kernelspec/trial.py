"""Start a kernel once, as any front end does, to see whether it works: nothing is installed, and it is ended again."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from remote_kernel.errors import KernelDied
from remote_kernel.kernelspec import Draft, kernel_document

START_SECONDS = 60.0  # what nbclient, jupyter_server and VS Code wait for a kernel
CELL_SECONDS = 30.0


class Trial(NamedTuple):
    """How it went: the seconds until the kernel answered, those of a cell (None without one), and what was printed."""

    start_seconds: float
    cell_seconds: float | None
    printed: list[str]


def try_out(draft: Draft, timeout_seconds: float = START_SECONDS, *, code: str = "", result: str = "") -> Trial:
    """Start a kernel from this draft, run `code` in it if there is any, and end it.

    Raises KernelDied with the last line the launcher said, or with what `code` gave in place of `result`.
    """
    import zmq
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    draft = draft._replace(options=draft.options._replace(keep=False, forward=()))  # this one is to end
    with _ended_in_order(), ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="remote_kernel-check-"))
        context = zmq.Context()
        undo.callback(context.destroy, linger=0)
        trial = Path(folder, "kernels", "trial")
        trial.mkdir(parents=True)
        (trial / "kernel.json").write_text(json.dumps(kernel_document(draft)), encoding="utf-8")
        manager = KernelManager(
            kernel_name="trial",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(trial.parent)], ensure_native_kernel=False),
            connection_file=str(Path(folder, "connection.json")),
            context=context,
        )
        said = Path(folder, "stderr")
        begun = time.monotonic()
        with said.open("wb") as stderr:
            manager.start_kernel(stdout=subprocess.DEVNULL, stderr=stderr)
        undo.callback(lambda: manager.shutdown_kernel(now=not manager.is_alive()))
        client = manager.client()
        undo.callback(client.stop_channels)
        client.start_channels()
        try:
            client.wait_for_ready(timeout=timeout_seconds)
        except RuntimeError as error:
            waited = timeout_seconds if manager.is_alive() else None
            raise _no_kernel(said.read_text(errors="replace"), waited) from error
        took = time.monotonic() - begun
        cell_seconds = _run(client, code, result) if code else None
        printed = said.read_text(errors="replace")
    return Trial(took, cell_seconds, _lines_of(printed))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Treat a closed terminal and SIGTERM as Ctrl-C: the kernel is ended and the folder removed."""

    def leave(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _run(client: Any, code: str, result: str) -> float:
    """Run a cell and return its seconds. Raises KernelDied unless its result is this text."""
    found: list[str] = []

    def take(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "execute_result":
            found.append(str(content["data"].get("text/plain")))
        elif message["msg_type"] == "error":
            found.append(f"{content['ename']}: {content['evalue']}")

    begun = time.monotonic()
    try:
        client.execute_interactive(code, timeout=CELL_SECONDS, output_hook=take)
    except TimeoutError as error:
        raise KernelDied(
            f"the cell '{code}' has no end within {CELL_SECONDS:.0f} s", "look at the host's load"
        ) from error
    if found != [result]:
        raise KernelDied(f"the cell '{code}' gave {', '.join(found) or 'nothing'}", f"it should give {result}")
    return time.monotonic() - begun


def _no_kernel(said: str, waited_seconds: float | None) -> KernelDied:
    """Return the error for a kernel that never answered; `waited_seconds` is None where its process had ended."""
    last = (_lines_of(said) or ["it said nothing"])[-1]
    if waited_seconds is not None:
        return KernelDied(f"the kernel did not answer within {waited_seconds:.0f} s: {last}")
    return KernelDied(f"the kernel ended before it was ready: {last}")


def _lines_of(said: str) -> list[str]:
    """Return the lines that say something, without our own name in front."""
    return [line.strip().removeprefix("remote_kernel: ") for line in said.splitlines() if line.strip()]
