"""Go through the steps of a remote kernel's start, one after the other, and report a finding for each."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from threading import Thread

from remote_kernel import bootstrap
from remote_kernel.doctor import hop_login, host, route
from remote_kernel.doctor.finding import NOT_REACHED, STEPS, Finding, State, failed, ok, unknown, warning
from remote_kernel.errors import (
    AuthenticationFailed,
    PortInUse,
    RemoteKernelError,
    RemoteShellNoise,
    SshConfigError,
)
from remote_kernel.handshake import ask, reading
from remote_kernel.kernelspec.installed import Kernelspec
from remote_kernel.kernelspec.names import unseen_by_vs_code
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.launcher.forward import listening
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import masters
from remote_kernel.transport.ssh_config import no_ssh_program, ssh_program, uses_openssh
from remote_kernel.transport.ssh_messages import NOT_HONOURED

ASK_SECONDS = 60.0
CODE, RESULT = "6 * 7", "42"


def examine(
    options: LaunchOptions, kernelspec: Kernelspec | None = None, *, start: bool = True, known: Finding | None = None
) -> Iterator[Finding]:
    """Yield a finding for every step, each as it is made; those that a failed step leaves out come last, unknown.

    `start` starts a kernel and runs a cell. `known` says what is wrong with the way there where that was seen already:
    then nobody goes there. Raises nothing but bugs: what goes wrong is a finding.
    """
    seen: dict[str, State] = {}
    began = time.monotonic()
    for finding in _steps(options, kernelspec, start, known):
        seen[finding.step] = finding.state
        took = time.monotonic() - began
        yield finding._replace(seconds=took) if finding.seconds is None else finding
        began = time.monotonic()
    for step in STEPS:
        if step not in seen:
            yield unknown(step, NOT_REACHED)


def _steps(
    options: LaunchOptions, kernelspec: Kernelspec | None, start: bool, known: Finding | None
) -> Iterator[Finding]:
    is_good = True
    with _loading_ahead() if start and not known else nullcontext():
        for finding in [known] if known else _findings_there(options):
            is_good = is_good and finding.state is not State.FAILED
            yield finding
    if is_good and start:
        yield from _trial(options, kernelspec)
    elif is_good:
        yield unknown("kernel", "not started, because of --no-start")
    if kernelspec:
        yield _seen_by_vs_code(kernelspec)
    elif is_good:
        yield unknown("vs code", "no kernelspec was given", f"'remote_kernel add {options.endpoint}' makes one")


@contextmanager
def _loading_ahead() -> Iterator[None]:
    """Load what a trial needs, 0.3 s of imports, while ssh waits for the server."""
    loading = Thread(target=import_module, args=("jupyter_client.manager",))
    loading.start()
    try:
        yield
    finally:
        loading.join()


def _findings_there(options: LaunchOptions) -> Iterator[Finding]:
    """Yield the findings of the way to the host and of what is there."""
    try:
        yield _program(options)
        hops = route.find_hops(options)
    except RemoteKernelError as error:
        yield failed("config" if isinstance(error, SshConfigError) else "ssh", error)
        return
    shown = " -> ".join(f"{hop.host}:{hop.port}" for hop in hops)
    yield ok("config", f"{shown}{f' ({options.ssh_config})' if options.ssh_config else ''}")
    yield from route.config_findings(options)
    found = route.name_finding(hops)
    yield found
    if found.state is State.FAILED:
        return
    debug_lines: list[str] = []
    try:
        said = route.greet_servers(options, hops, debug_lines)
    except RemoteKernelError as error:
        yield from _failure_findings(options, error, debug_lines, hops[0].name)
        return
    yield ok("reach", "; ".join(said))
    asked, began = time.time(), time.monotonic()
    try:
        settings = bootstrap.start_settings(options, "", "", {})
        answer, noise = ask(options, "checkup", settings, ASK_SECONDS, debug_lines=debug_lines)
        answered, took = time.time(), time.monotonic() - began
        with reading(options):
            seconds = took - float(answer["seconds"]["all"])
            findings = list(host.look(options, answer, noise, asked, answered))
    except RemoteKernelError as error:
        yield from _failure_findings(options, error, debug_lines)
        return
    yield from _login_findings(options, debug_lines, seconds)
    yield from findings
    yield route.sessions_finding(options)
    yield _forwards(options)


def _login_findings(options: LaunchOptions, debug_lines: list[str], seconds: float) -> Iterator[Finding]:
    logins = hop_login.read_logins(debug_lines)
    if logins and all(login.method for login in logins):
        yield hop_login.host_key_finding(logins)
        yield hop_login.login_finding(logins, seconds)
    elif pid := _shared_connection(options):
        yield from hop_login.shared_findings(options, pid)
    else:
        yield from hop_login.unknown_findings("ssh does not say")


def _shared_connection(options: LaunchOptions) -> int:
    """Return the process that holds the connection that kernels share; 0 where there is none, or none can be told."""
    try:
        return masters.master_pid(options) if uses_openssh(options) else 0
    except RemoteKernelError:
        return 0


def _failure_findings(
    options: LaunchOptions, error: RemoteKernelError, debug_lines: list[str], reached: str = ""
) -> Iterator[Finding]:
    """Yield the step that failed, and those before it; `reached` names the first server where that was not told yet."""
    step, logins = route.step_of(error), hop_login.read_logins(debug_lines)
    behind = STEPS.index(step)
    if reached and behind > STEPS.index("reach"):
        yield ok("reach", f"{reached} answers")
    if behind > STEPS.index("login"):
        yield from _login_findings(options, debug_lines, 0.0)
    elif step == "login" and logins and logins[-1].key:
        yield hop_login.host_key_finding(logins)
    if isinstance(error, AuthenticationFailed):
        error = AuthenticationFailed(error.message + hop_login.what_was_tried(logins), error.hint)
    if step == "shell" and isinstance(error, RemoteShellNoise):
        yield unknown("python", "our program did not run")
    yield failed(step, error)


def _program(options: LaunchOptions) -> Finding:
    """Return which program speaks SSH, and its version. Raises SshNotFound, UsageError."""
    if not uses_openssh(options):
        from importlib.metadata import version

        return ok("ssh", f"in Python: paramiko {version('paramiko')}, sshtunnel {version('sshtunnel')}")
    program = ssh_program()
    found = shutil.which(program)
    try:
        done = subprocess.run([found or program, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise no_ssh_program(program) from error
    version_text = (done.stderr or done.stdout).strip().partition(",")[0]
    return ok("ssh", f"{version_text or 'does not say its version'} ({found})")


def _forwards(options: LaunchOptions) -> Finding:
    """Check whether the ports here that are to lead there are free."""
    for forward in options.forward:
        try:
            listening(forward.local).close()
        except PortInUse as error:
            hint = "nothing is forwarded from it until it is free; --forward LOCAL:PORT takes another"
            return warning("forward", f"{error.message}, by a kernel of this kernelspec or by something else", hint)
    ports = ", ".join(str(forward.local) for forward in options.forward)
    return ok("forward", f"free here: {ports}" if ports else "no port is to be forwarded")


def _trial(options: LaunchOptions, kernelspec: Kernelspec | None) -> Iterator[Finding]:
    """Start a kernel as a front end does, and run a cell in it."""
    from remote_kernel.kernelspec.trial import try_out

    language = kernelspec.language if kernelspec else "python"
    is_python = language.lower() == "python" and not (options.kernel and kernelspec is None)
    interrupt_mode = kernelspec.interrupt_mode if kernelspec else "signal"
    draft = Draft("doctor", options._replace(resume=""), language or "python", interrupt_mode)
    try:
        done = try_out(draft, code=CODE if is_python else "", result=RESULT)
    except RemoteKernelError as error:
        cell = error.message.startswith("the cell")
        yield failed("cell" if cell else "kernel", error)
        return
    yield ok("kernel", "started, and ended again", done.start_seconds)
    printed = [line for line in done.printed if NOT_HONOURED not in line]  # which is told as the config's
    for line in printed[:1]:
        yield warning("kernel", f"it printed: {line}", "see that --init and the kernel's startup files are right")
    if done.cell_seconds is None:
        yield unknown("cell", f"there is no kernel to run it in {language}")
    else:
        yield ok("cell", f"{CODE} is {RESULT}", done.cell_seconds)


def _seen_by_vs_code(spec: Kernelspec) -> Finding:
    reason, hint = unseen_by_vs_code(spec)
    if reason:
        return warning("vs code", f"VS Code does not show this kernelspec: {reason}", hint)
    return ok("vs code", f"shows '{spec.display_name}'; Select Kernel > Jupyter Kernel...")
