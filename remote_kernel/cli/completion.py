"""Complete kernelspecs and hosts in the shell. Connects to nothing: a key press is not to wait for a network."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.transport.ssh_config import aliases

FLAGS = ("--install-completion", "--show-completion")
SHELLS = ("bash", "zsh", "fish")
_CALL_AT_ONCE = """
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _{program}_completion "$@"
fi
"""


def set_up(flag: str, shell: str = "", *, program: str = "remote_kernel") -> int:
    """Install a program's completion for a shell, the one that this runs in by default, or show it.

    Raises UsageError, RemoteKernelError where a file cannot be written.

    typer has both flags too, but passes over a shell's name, and in zsh its first tab only loads the function.
    """
    from typer.completion import get_completion_script, install  # type: ignore[attr-defined]

    shell = shell or _own_shell()
    variable = f"_{program.upper()}_COMPLETE"
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for '{shell}'", f"name one of {', '.join(SHELLS)}")
    if flag == "--show-completion":
        typer.echo(get_completion_script(prog_name=program, complete_var=variable, shell=shell))
        return 0
    try:
        path = Path(install(shell=shell, prog_name=program, complete_var=variable)[1])
        if shell == "zsh":
            with path.open("a", encoding="utf-8") as file:
                file.write(_CALL_AT_ONCE.format(program=program))
    except OSError as error:
        message = f"cannot write {error.filename or 'the completion'}: {(error.strerror or str(error)).lower()}"
        raise RemoteKernelError(message, f"'{program} --show-completion {shell}' prints what belongs there") from error
    typer.echo(f"{shell} completion installed in {path}; it begins with the next {shell}")
    return 0


def _own_shell() -> str:
    """Name the shell that has started this program, else the login shell."""
    import shellingham  # type: ignore[import-untyped]

    try:
        return str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        return os.path.basename(os.environ.get("SHELL", ""))


def slugs(incomplete: str) -> list[str]:
    """Return the slugs that begin so."""
    return [spec.slug for spec in list_kernelspecs() if spec.slug.startswith(incomplete.lower())]


def hosts(incomplete: str) -> list[str]:
    """Return the hosts that begin so: of kernelspecs, and the aliases of the ssh config; behind `user@` as well."""
    user, at, _ = incomplete.rpartition("@")
    known = [str(spec.options.endpoint) for spec in list_kernelspecs() if spec.options]
    known += [f"{user}{at}{host}" for host in aliases()]
    return [host for host in dict.fromkeys(known) if host.startswith(incomplete)]


def targets(incomplete: str) -> list[str]:
    """Return the slugs and the hosts that begin so."""
    return list(dict.fromkeys([*slugs(incomplete), *hosts(incomplete)]))
