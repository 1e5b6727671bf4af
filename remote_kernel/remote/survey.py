"""Look what the remote host has for a kernel, and install ipykernel where it is missing, or into a new environment.

Runs there in place of the agent when `remote_kernel add` checks a host; leaves nothing behind but what it was
asked to install.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess

from remote_kernel.process import read_text
from remote_kernel.remote.interpreter import LOOK, is_the_systems, read_answer
from remote_kernel.remote.kernel import (
    KernelSettings,
    StartError,
    find_kernelspec,
    find_python,
    hostname,
    kernel_python,
    which,
    with_init,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INIT_SECONDS = 25.0  # less than `probe` waits for


def main(_: str, parameters: dict[str, Any]) -> dict[str, object]:
    """Run in the SSH session, and return the answer."""
    try:
        return _MODES[parameters["mode"]](KernelSettings(parameters["settings"]))
    except StartError as error:
        return {"error": error.name, "message": error.message, "hint": error.hint}


def survey(settings: KernelSettings) -> dict[str, object]:
    """Look for the interpreter, its version, its ipykernel, and the kernelspec asked for. Raises StartError."""
    python = find_python(settings)
    spec = find_kernelspec(settings.kernel, python) if settings.kernel else None
    version, ipykernel, system = look_into(settings, kernel_python(settings))
    return {
        "host": hostname(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "python": python,
        "python_version": version,
        "ipykernel_version": ipykernel,
        "is_the_systems": system,
        "new_environment": new_environment(),
        "kernelspec": spec
        and {
            "name": spec.name,
            "display_name": spec.display_name,
            "language": spec.language,
            "interrupt_mode": spec.interrupt_mode,
            "argv": spec.argv,
        },
    }


def look_into(settings: KernelSettings, python: str) -> tuple[str, str, bool]:
    """Return an interpreter's version, its ipykernel's (empty when missing), and whether it is the system's own."""
    code, output, errors = run_program(with_init(settings.init, [python, "-c", LOOK]), INIT_SECONDS)
    if code == 124 and settings.init:
        raise no_end(settings)
    answer = read_answer(output)
    if code or answer is None:
        last = (errors.strip().splitlines() or [f"exit status {code}"])[-1].strip()
        raise StartError(
            "PythonNotFound",
            f"'{python}' on {hostname()} cannot be run: {last}",
            "give --python a Python 3.8 or later, and check --init",
        )
    return answer["version"], answer.get("ipykernel", ""), is_the_systems(answer)


def no_end(settings: KernelSettings) -> StartError:
    """Return the error for an --init, or a login shell, that hangs."""
    return StartError(
        "RemoteError",
        f"the login shell with --init '{settings.init}' has no end within {INIT_SECONDS:.0f} s on {hostname()}",
        "try that there: it may ask something, or wait for a server",
    )


def install(settings: KernelSettings) -> dict[str, object]:
    """Install ipykernel with the tool that the environment uses: conda's, uv's or pip. Raises StartError.

    Never into the system's own Python: that belongs to its package manager.
    """
    python = find_python(settings)
    _, _, system = look_into(settings, python)
    if system:
        raise StartError(
            "KernelNotInstalled",
            f"'{python}' on {hostname()} is the system's own Python, which is never changed",
            "make a new environment",
        )
    return {"installed_with": _install_into(settings, python)}


def new_environment() -> str:
    """Return where an environment can be made, `~/.venv` or the next name: a path that does not exist yet."""
    path, number = "~/.venv", 1
    while os.path.lexists(os.path.expanduser(path)):
        number += 1
        path = f"~/.venv-{number}"
    return path


def make_environment(settings: KernelSettings) -> dict[str, object]:
    """Make a new environment from the interpreter, with ipykernel in it; what fails is removed. Raises StartError.

    The folder is made first, which fails if it is there: no environment of the user's is ever written over.
    """
    python, uv = find_python(settings), _uv()
    makers = [[python, "-m", "venv"], *([[uv, "venv", "--quiet", "--python", python]] if uv else [])]
    while True:
        path = os.path.expanduser(new_environment())
        try:
            os.mkdir(path)
        except OSError as error:
            raise StartError(
                "RemoteFolderError",
                f"'{path}' on {hostname()} cannot be made: {error.strerror}",
                "see whether the home folder is writable",
            ) from error
        maker, made = makers.pop(0), os.path.join(path, "bin", "python")
        try:
            _run_there(settings, [*maker, path], "install the package python3-venv there, or uv, or name a --python")
            return {"python": made, "installed_with": _install_into(settings, made)}
        except StartError:
            from shutil import rmtree

            rmtree(path, ignore_errors=True)
            if not makers:
                raise


def _install_into(settings: KernelSettings, python: str) -> str:
    """Install ipykernel for an interpreter and return the command that did it. Raises StartError."""
    for argv in _installers(python):
        _run_there(settings, argv, "install it by hand")
        return " ".join(argv)
    project, is_pixis, _ = python.partition("/.pixi/envs/")
    hint = f"run 'pixi add ipykernel' in {project}" if is_pixis else "install it by hand"
    raise StartError("KernelNotInstalled", f"'{python}' on {hostname()} has neither pip, uv nor conda", hint)


def _run_there(settings: KernelSettings, argv: list[str], hint: str) -> None:
    """Run a tool that makes or changes an environment. Raises StartError with the line of its words that says why."""
    code, output, errors = run_program(with_init(settings.init, argv), 540)
    if code:
        lines = (errors or output).strip().splitlines() or [f"exit status {code}"]
        why = next((line for line in lines if "ensurepip is not" in line), lines[-1]).strip()
        raise StartError("KernelNotInstalled", f"'{' '.join(argv)}' failed on {hostname()}: {why}", hint)


def _installers(python: str) -> list[list[str]]:
    """Return the command of the tool that has made the environment, else of one that it has or the host."""
    prefix = os.path.dirname(os.path.dirname(python))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "ipykernel"]
    uv = _uv()
    with_uv = [uv, "pip", "install", "--quiet", "--python", python, "ipykernel"] if uv else []
    conda = _conda(prefix)
    if conda and os.path.isdir(os.path.join(prefix, "conda-meta")) and "/.pixi/" not in prefix:
        return [[conda, "install", "-y", "-p", prefix, "ipykernel"]]
    if with_uv and _made_by_uv(prefix):
        return [with_uv]
    if run_program([python, "-m", "pip", "--version"], 60)[0] == 0:
        return [pip]
    return [with_uv] if with_uv else []


def _uv() -> str | None:
    return which("uv") or which(os.path.expanduser("~/.local/bin/uv")) or which(os.path.expanduser("~/.cargo/bin/uv"))


def _conda(prefix: str) -> str:
    """Return the program that looks after a conda environment; PATH has it only after `conda init`."""
    root = os.path.dirname(os.path.dirname(prefix))
    places = [os.path.join(folder, "bin", name) for folder in (prefix, root) for name in ("conda", "mamba")]
    places += [os.environ.get("CONDA_EXE", ""), os.environ.get("MAMBA_EXE", "")]
    return next(filter(None, (which(name) for name in [*places, "conda", "mamba", "micromamba"] if name)), "")


def _made_by_uv(prefix: str) -> bool:
    lines = read_text(os.path.join(prefix, "pyvenv.cfg")).splitlines()
    return any(line.split("=")[0].strip() == "uv" for line in lines)


def run_program(argv: list[str], timeout_seconds: float) -> tuple[int, str, str]:
    """Run a program with nothing to read; give its exit status, 127 and 124 as a shell does, and what it printed."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        return 127, "", str(error.strerror)
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        process.wait()
        return 124, "", f"no end within {timeout_seconds:.0f} s"
    return process.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


_MODES = {"survey": survey, "install": install, "environment": make_environment}
