"""See whether a remote kernel works before it is installed: ask the host, then start a kernel once."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from remote_kernel.cli.edge import note
from remote_kernel.errors import KernelDied, KernelNotInstalled
from remote_kernel.kernelspec import Draft, kernel_document
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.openssh import to_paste

if TYPE_CHECKING:
    from remote_kernel.probe import Probe

START_SECONDS = 60.0  # what nbclient, jupyter_server and VS Code wait for a kernel


def ask_host(options: LaunchOptions, *, install: bool) -> Probe:
    """Give what the remote host has, after installing ipykernel there if that is missing and `install` is set.

    Raises KernelNotInstalled with the command that mends it, and whatever the probe raises.
    """
    from remote_kernel.probe import install_ipykernel, probe

    note(f"asking {options.endpoint} ...")
    found = probe(options)
    if not options.kernel and not found.ipykernel_version and install:
        note(f"installing ipykernel for {found.python} on {options.endpoint} ...")
        note(f"installed with: {install_ipykernel(options)}")
        found = probe(options)
    if not options.kernel and not found.ipykernel_version:
        command = to_paste(options, shlex.join([found.python, "-m", "pip", "install", "ipykernel"]))
        raise KernelNotInstalled(
            f"{found.python} on {options.endpoint} has no ipykernel", f"give --install, or run: {command}"
        )
    if found.noise:
        first = found.noise.strip().splitlines()[0][:60]
        note(f"note: the shell on {options.endpoint} prints text when it starts ('{first}'); it is skipped")
    return found


def describe(found: Probe) -> str:
    """Give one line on what was found: the host, the interpreter, ipykernel or the kernelspec."""
    if found.kernelspec:
        what = f"kernelspec {found.kernelspec.name} ({found.kernelspec.display_name})"
    else:
        what = f"ipykernel {found.ipykernel_version}"
    return f"{found.user}@{found.host}: Python {found.python_version} ({found.python}), {what}"


def fitted(draft: Draft, found: Probe) -> Draft:
    """Give the draft with the language and interrupt mode of the kernel that the host has."""
    if not found.kernelspec:
        return dataclasses.replace(draft, language="python", interrupt_mode="signal")
    by_message = found.kernelspec.interrupt_mode == "message"
    return dataclasses.replace(
        draft, language=found.kernelspec.language, interrupt_mode="message" if by_message else "signal"
    )


def start_once(draft: Draft, timeout_seconds: float = START_SECONDS) -> float:
    """Start a kernel from this draft as any front end does, end it, and give the seconds until it answered.

    Uses a folder of its own: nothing is installed. Raises KernelDied with the last line the launcher said.
    """
    import zmq
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    note("starting a kernel ...")
    draft = dataclasses.replace(draft, options=draft.options._replace(keep=False))  # this one is to end
    with ExitStack() as undo:
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
    note(f"it answered after {took:.1f} s")
    return took


def _no_kernel(said: str, waited_seconds: float | None) -> KernelDied:
    """Give the error for a kernel that never answered; `waited_seconds` is None where its process had ended."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1].removeprefix("remote_kernel: ") if lines else "it said nothing"
    if waited_seconds is not None:
        return KernelDied(f"the kernel did not answer within {waited_seconds:.0f} s: {last}", "nothing was installed")
    return KernelDied(f"the kernel ended before it was ready: {last}", "nothing was installed")
