"""See whether a remote kernel works before it is installed: ask the host, then start a kernel once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_kernel import advice
from remote_kernel.cli.edge import note
from remote_kernel.cli.interpreter import with_ipykernel
from remote_kernel.errors import KernelDied, PythonNotFound, UsageError
from remote_kernel.kernelspec import Draft
from remote_kernel.kernelspec.trial import START_SECONDS, try_out
from remote_kernel.options import LaunchOptions

if TYPE_CHECKING:
    from remote_kernel.kernelspec.discovery import Probe

_LINES_SHOWN = 5


def refuse_idle_install(options: LaunchOptions, *, check: bool) -> None:
    """Raise UsageError where --install would do nothing, without a word."""
    if not check:
        raise UsageError("--install needs a connection to the host", "leave out --no-check")
    if options.kernel:
        raise UsageError("--install is for ipykernel, and --kernel starts something else", "give one of the two")


def ask_host(options: LaunchOptions, *, install: bool) -> tuple[LaunchOptions, Probe]:
    """Return what the remote host has, and the options, with another interpreter if the one asked for has no ipykernel.

    Installs ipykernel if it is missing and `install` is set, or the person at the terminal chooses to. Raises
    KernelNotInstalled with what mends it, and whatever the probe raises.
    """
    from remote_kernel.kernelspec.discovery import probe

    note(f"asking {options.endpoint} ...")
    try:
        found = probe(options)
    except PythonNotFound as error:
        raise PythonNotFound(error.message, advice.unquoted_home(options, error.message) or error.hint) from error
    if not options.kernel and not found.ipykernel_version:
        options = with_ipykernel(options, found, install=install)
        found = probe(options)
    if found.noise:
        first = found.noise.strip().splitlines()[0][:60]
        note(f"note: the shell on {options.endpoint} prints text when it starts ('{first}'); it is skipped")
    return options, found


def describe(found: Probe) -> str:
    """Return one line on what was found: the host, the interpreter, ipykernel or the kernelspec."""
    if found.kernelspec:
        what = f"kernelspec {found.kernelspec.name} ({found.kernelspec.display_name})"
    else:
        what = f"ipykernel {found.ipykernel_version}"
    return f"{found.user}@{found.host}: Python {found.python_version} ({found.python}), {what}"


def fitted(draft: Draft, found: Probe) -> Draft:
    """Return the draft with the language and interrupt mode of the kernel that the host has."""
    if not found.kernelspec:
        return draft._replace(language="python", interrupt_mode="signal")
    by_message = found.kernelspec.interrupt_mode == "message"
    return draft._replace(language=found.kernelspec.language, interrupt_mode="message" if by_message else "signal")


def start_once(draft: Draft, timeout_seconds: float = START_SECONDS, *, undone: str = "nothing was installed") -> float:
    """Start a kernel from this draft, end it, and return the seconds until it answered.

    Raises KernelDied, which says that the command has `undone` nothing else.
    """
    note("starting a kernel ...")
    try:
        done = try_out(draft, timeout_seconds)
    except KernelDied as error:
        hints = filter(None, (advice.unquoted_home(draft.options, error.message), undone))
        raise KernelDied(error.message, "; ".join(hints)) from error
    note(f"it answered after {done.start_seconds:.1f} s")
    for line in done.printed[:_LINES_SHOWN]:  # a module that --init could not load, for example
        note(f"note: it printed: {line}")
    return done.start_seconds
