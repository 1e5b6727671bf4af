"""`remote_kernel connect`: a shell on the remote host, where and as its kernel runs.

The terminal is the remote command's stdin there, so no program can be shipped through it as the bootstrap does: all is
a script for /bin/sh. It does what `kernel.Command` does for a kernel: the folder, `--env`, `--init` in a login shell.
Then it puts the interpreter's folder first in PATH, and again after the shell's rc files, which may have put another
one there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from shlex import quote
from typing import Annotated

import typer

from remote_kernel.advice import unquoted_home
from remote_kernel.bootstrap import in_plain_shell, quoted_path
from remote_kernel.cli import completion, listing
from remote_kernel.cli.edge import note
from remote_kernel.cli.login import person_here
from remote_kernel.cli.settings import GivenSettings, takes
from remote_kernel.errors import PythonNotFound, RemoteError, UsageError
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice
from remote_kernel.transport import login as transport_login
from remote_kernel.transport.masters import MASTER_SECONDS

EXAMPLES = """\b
Examples:
  remote_kernel connect remote_cuda
  remote_kernel connect gpu1 -- nvidia-smi
  remote_kernel connect remote_cuda -- python train.py --epochs 3
  remote_kernel connect me@gpu1:2222 -J me@gate --python '~/.venv/bin/python'
  remote_kernel connect
"""

# With a CDPATH, `cd` would go elsewhere and print where it is.
_ENTER = """\
CDPATH= cd -- {folder} 2>/dev/null || {{
  echo "remote_kernel: there is no folder "{folder_name}" on $(uname -n); "{folder_hint} >&2
  {no_folder}
}}
"""

_SETTLE = """\
python={python}
if found=$(command -v "$python") && [ -x "$found" ]; then
  RK_BIN=${{found%/*}} RK_PREFIX=${{found%/*/*}}
  export RK_BIN RK_PREFIX
else
  echo "remote_kernel: there is no interpreter "{python_name}" on $(uname -n); "{python_hint} >&2
  {no_python}
fi
if [ -n "$RK_BIN" ]; then
  {take_place}
fi
"""

# For a POSIX shell. VIRTUAL_ENV and CONDA_PREFIX are what activating the interpreter's environment would set.
_TAKE_PLACE = (
    "PATH=$RK_BIN:$PATH; unset VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV; "
    'if [ -f "$RK_PREFIX/pyvenv.cfg" ]; then VIRTUAL_ENV=$RK_PREFIX; export VIRTUAL_ENV; '
    'elif [ -d "$RK_PREFIX/conda-meta" ]; then CONDA_PREFIX=$RK_PREFIX; CONDA_DEFAULT_ENV=${RK_PREFIX##*/}; '
    "export CONDA_PREFIX CONDA_DEFAULT_ENV; fi"
)
_TAKE_PLACE_IN_FISH = (
    "set -gx PATH $RK_BIN $PATH; set -e VIRTUAL_ENV; set -e CONDA_PREFIX; set -e CONDA_DEFAULT_ENV; "
    'if test -f "$RK_PREFIX/pyvenv.cfg"; set -gx VIRTUAL_ENV $RK_PREFIX; '
    'else if test -d "$RK_PREFIX/conda-meta"; set -gx CONDA_PREFIX $RK_PREFIX; '
    "set -gx CONDA_DEFAULT_ENV (basename $RK_PREFIX); end; set -e RK_BIN; set -e RK_PREFIX"
)

_TAKE_PLACE_IN_CSH = """\
setenv PATH "${RK_BIN}:${PATH}"
unsetenv VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV
if ( -f "$RK_PREFIX/pyvenv.cfg" ) then
  setenv VIRTUAL_ENV "$RK_PREFIX"
else if ( -d "$RK_PREFIX/conda-meta" ) then
  setenv CONDA_PREFIX "$RK_PREFIX"
  setenv CONDA_DEFAULT_ENV "$RK_PREFIX:t"
endif
"""

# rc files run last, so each shell reads ours, which reads the person's and then takes the place again. bash, fish and
# those that read $ENV take it without a file. zsh and csh look for theirs in a folder: a private one of ours, which
# the first thing in it removes.
_SHELL = f"""\
shell=${{SHELL:-/bin/sh}}
case "${{RK_BIN:+${{shell##*/}}}}" in
bash) exec "$shell" --rcfile /dev/fd/9 -i 9<<'end of rc'
[ -f ~/.bashrc ] && . ~/.bashrc
{_TAKE_PLACE}; unset RK_BIN RK_PREFIX
exec 9<&-
end of rc
;;
fish) exec "$shell" -i -C {quote(_TAKE_PLACE_IN_FISH)} ;;
sh|dash|ash|ksh|ksh93|mksh) RK_ENV=${{ENV-}} ENV=/dev/fd/9; export RK_ENV ENV; exec "$shell" -i 9<<'end of rc'
unset ENV
if [ -n "$RK_ENV" ]; then export ENV="$RK_ENV"; eval "[ ! -f \\"$ENV\\" ] || . \\"$ENV\\""; fi
{_TAKE_PLACE}; unset RK_BIN RK_PREFIX RK_ENV
exec 9<&-
end of rc
;;
zsh) if RK_RC=$(mktemp -d); then
cat > "$RK_RC/.zshenv" <<'end of rc'
if [ -n "$RK_ZDOTDIR" ]; then ZDOTDIR=$RK_ZDOTDIR; else unset ZDOTDIR; fi
[ -f "${{ZDOTDIR:-$HOME}}/.zshenv" ] && . "${{ZDOTDIR:-$HOME}}/.zshenv"
RK_ZDOTDIR=${{ZDOTDIR-}} ZDOTDIR=$RK_RC
end of rc
cat > "$RK_RC/.zshrc" <<'end of rc'
rm -rf -- "$RK_RC"
if [ -n "$RK_ZDOTDIR" ]; then ZDOTDIR=$RK_ZDOTDIR; else unset ZDOTDIR; fi
case "${{HISTFILE-}}" in "$RK_RC"/*) HISTFILE=${{ZDOTDIR:-$HOME}}/${{HISTFILE##*/}};; esac
[ -f "${{ZDOTDIR:-$HOME}}/.zshrc" ] && . "${{ZDOTDIR:-$HOME}}/.zshrc"
{_TAKE_PLACE}; unset RK_BIN RK_PREFIX RK_RC RK_ZDOTDIR
end of rc
RK_ZDOTDIR=${{ZDOTDIR-}} ZDOTDIR=$RK_RC; export RK_RC RK_ZDOTDIR ZDOTDIR
fi
exec "$shell" -i ;;
tcsh|csh) if RK_RC=$(mktemp -d); then
cat > "$RK_RC/.cshrc" <<'end of rc'
setenv HOME "$RK_HOME"
set home = "$RK_HOME"
rm -rf "$RK_RC"
if ( $?tcsh && -f ~/.tcshrc ) then
  source ~/.tcshrc
else if ( -f ~/.cshrc ) then
  source ~/.cshrc
endif
{_TAKE_PLACE_IN_CSH}unsetenv RK_BIN RK_PREFIX RK_RC RK_HOME
end of rc
RK_HOME=$HOME HOME=$RK_RC; export RK_RC RK_HOME HOME
fi
exec "$shell" -i ;;
*) unset RK_BIN RK_PREFIX; exec "$shell" -i ;;
esac
"""


@takes("jump", "python", "env", "workdir", "init", "transport", "ssh_config")
def connect(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="KERNELSPEC|HOST",
            help="A kernelspec by its slug or name, or a host, e.g. gpu1. Without one, list what there is.",
            autocompletion=completion.targets,
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND...]",
            help="A command to run instead of a shell, with its arguments, e.g. nvidia-smi.",
        ),
    ] = None,
    *,
    given: GivenSettings,
) -> None:
    """Open a shell in a kernel's environment.

    It starts in the kernelspec's workdir, with its interpreter first in PATH and its --env variables, after its --init
    code. Options given here replace the kernelspec's. It uses the connection that kernels share; what a login needs is
    asked in the terminal. A COMMAND is run as it is, without a shell (give 'sh -c' for one), and its exit status is
    returned. Without a terminal the shell reads its commands from stdin.
    """
    if name is None:
        if command:
            raise UsageError("a command needs a host", "write for example 'remote_kernel connect gpu1 -- nvidia-smi'")
        listing.list_()
        return
    options = _options(name, given)
    with perhaps_a_slug(name), person_here() as person:
        transport_login.log_in(options, person, MASTER_SECONDS)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    line = shell_command(_with_its_python(options), command or (), interactive=at_terminal)
    argv = choice.session_argv(options, line, terminal=at_terminal)
    sys.stdout.flush()
    sys.stderr.flush()
    # From here on the terminal, its size, Ctrl-C and the exit status are ssh's.
    os.execvpe(argv[0], argv, choice.environment(options))


def _options(name: str, given: GivenSettings) -> LaunchOptions:
    target = find_target(name, other_way=given.has_a_way)
    if len(target.kernelspecs) > 1:
        slugs = ", ".join(spec.slug for spec in target.kernelspecs)
        note(f"note: {name} has several kernelspecs ({slugs}): give one for its environment")
    return given.applied_to(target.options)


def _with_its_python(options: LaunchOptions) -> LaunchOptions:
    """Return the options with the interpreter of the remote kernelspec that they name, if it is Python's."""
    if not options.kernel:
        return options
    from remote_kernel.kernelspec.discovery import probe

    spec = probe(options).kernelspec
    is_python = spec and spec.argv and spec.argv[0].startswith("/") and spec.language == "python"
    return options._replace(python=spec.argv[0]) if spec and is_python else options


def shell_command(options: LaunchOptions, command: Sequence[str] = (), *, interactive: bool) -> str:
    """Return the command line for the remote login shell.

    It runs `command` as it is, no shell between; without one, the user's shell, which `interactive` says is at a
    terminal. There a folder or an interpreter that is missing is told and left to the person; else it is the end, with
    the status of the error. The values of --env are in the command line, which other users of the host can see until
    the last `exec`: stdin is the command's own.
    """
    forgiving = interactive and not command
    folder = options.workdir or "~"
    enter = _ENTER.format(
        folder=quoted_path(folder),
        folder_name=quote(repr(folder)),
        folder_hint=quote(unquoted_home(options, folder) or "make it there, or give another --workdir"),
        no_folder=":" if forgiving else f"exit {RemoteError.exit_status}",
    )
    if command:
        last = f"unset RK_BIN RK_PREFIX\nexec {' '.join(map(quote, command))}\n"
    else:
        last = _SHELL if interactive else 'unset RK_BIN RK_PREFIX\nexec "${SHELL:-/bin/sh}"\n'
    python = options.remote_python()
    settle = _SETTLE.format(
        python=quoted_path(python),
        python_name=quote(repr(python)),
        python_hint=quote(unquoted_home(options, python) or "give --python the path of one"),
        no_python=":" if forgiving else f"exit {PythonNotFound.exit_status}",
        take_place=_TAKE_PLACE,
    )
    variables = "".join(f"export {name}={quote(value)}\n" for name, value in options.env)
    return in_plain_shell(f"{enter}{variables}{_after_init(options.init, settle + last)}")


def _after_init(init: str, script: str) -> str:
    """Return the script that runs `init` in a login shell first, as `kernel.with_init` does."""
    if not init:
        return script
    both = quote(init + '\nexec "$@"')
    return f'exec "$(command -v bash || echo /bin/sh)" -lc {both} remote_kernel /bin/sh -c {quote(script)}\n'
