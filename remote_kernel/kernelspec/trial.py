"""Start a kernel once, as any front end does, to see whether it works: nothing is installed, and it is ended again."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_kernel.errors import KernelDied
from remote_kernel.kernelspec.writing import Draft, kernel_document
from remote_kernel.signals import ended_in_order, uninterrupted

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

START_SECONDS = 60.0  # what nbclient, jupyter_server and VS Code wait for a kernel
CELL_SECONDS = 30.0


class Trial(NamedTuple):
    """How it went: the seconds until the kernel answered, those of a cell (None without one), and what was printed."""

    start_seconds: float
    cell_seconds: float | None
    printed: list[str]


class StartedKernel(NamedTuple):
    """A kernel that has answered, `start_seconds` after its start; `stderr` is the file of what its launcher prints."""

    manager: KernelManager
    client: BlockingKernelClient
    stderr: Path
    start_seconds: float

    def printed(self) -> list[str]:
        """Return the lines that the launcher has printed, without our own name in front."""
        return _lines_of(self.stderr)


def try_out(draft: Draft, timeout_seconds: float = START_SECONDS, *, code: str = "", result: str = "") -> Trial:
    """Start a kernel from this draft, run `code` in it if there is any, and end it.

    Raises KernelDied with the last line the launcher said, or with what `code` gave in place of `result`.
    """
    draft = draft._replace(options=draft.options._replace(keep=False, forward=()))  # this one is to end
    with (
        ended_in_order(),
        tempfile.TemporaryDirectory(prefix="remote_kernel-check-") as folder,
        started_kernel(draft, Path(folder), timeout_seconds) as kernel,
    ):
        cell_seconds = _run(kernel.client, code, result) if code else None
        return Trial(kernel.start_seconds, cell_seconds, kernel.printed())


@contextmanager
def started_kernel(
    draft: Draft, folder: Path, timeout_seconds: float = START_SECONDS, environment: dict[str, str] | None = None
) -> Iterator[StartedKernel]:
    """Start a kernel through jupyter_client, its files in `folder`; end it, as a front end does, with the block.

    Raises KernelDied with the last line the launcher said.
    """
    import zmq
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    spec = folder / "kernels" / "trial"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(kernel_document(draft)), encoding="utf-8")
    stderr = folder / "stderr"
    with ExitStack() as undo:
        context = zmq.Context()
        undo.callback(context.destroy, linger=0)
        manager = KernelManager(
            kernel_name=spec.name,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False),
            connection_file=str(folder / "connection.json"),
            context=context,
        )
        begun = time.monotonic()
        with stderr.open("wb") as file, uninterrupted():
            manager.start_kernel(
                stdout=subprocess.DEVNULL, stderr=file, **({} if environment is None else {"env": environment})
            )
            undo.callback(lambda: manager.shutdown_kernel(now=not manager.is_alive()))
        client = manager.client()
        undo.callback(client.stop_channels)
        client.start_channels()
        try:
            client.wait_for_ready(timeout=timeout_seconds)
        except RuntimeError as error:
            last = (_lines_of(stderr) or ["it said nothing"])[-1]
            alive = manager.is_alive()
            how = f"did not answer within {timeout_seconds:.0f} s" if alive else "ended before it was ready"
            raise KernelDied(f"the kernel {how}: {last}") from error
        yield StartedKernel(manager, client, stderr, time.monotonic() - begun)


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


def _lines_of(stderr: Path) -> list[str]:
    said = stderr.read_text(encoding="utf-8", errors="replace")
    return [line.strip().removeprefix("remote_kernel: ") for line in said.splitlines() if line.strip()]
