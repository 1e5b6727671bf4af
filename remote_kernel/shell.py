"""Write the command line that opens a shell, or runs a command, in a kernel's environment on the remote host.

The terminal is the remote command's stdin there, so no program can be shipped through it as the bootstrap does: all is
a script for /bin/sh. It does what `kernel.Command` does for a kernel: the folder, `--env`, `--init` in a login shell.
Then it puts the interpreter's folder first in PATH, and again after the shell's rc files, which may have put another
one there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from shlex import quote

from remote_kernel import advice
from remote_kernel.bootstrap import in_plain_shell
from remote_kernel.errors import PythonNotFound, RemoteError
from remote_kernel.options import LaunchOptions

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


def remote_command(options: LaunchOptions, command: Sequence[str] = (), *, interactive: bool) -> str:
    """Give the command line for the remote login shell.

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
        folder_hint=quote(advice.advice(options, folder) or "make it there, or give another --workdir"),
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
        python_hint=quote(advice.advice(options, python) or "give --python the path of one"),
        no_python=":" if forgiving else f"exit {PythonNotFound.exit_status}",
        take_place=_TAKE_PLACE,
    )
    variables = "".join(f"export {name}={quote(value)}\n" for name, value in options.env)
    return in_plain_shell(f"{enter}{variables}{_after_init(options.init, settle + last)}")


def _after_init(init: str, script: str) -> str:
    """Give the script that runs `init` in a login shell first, as `kernel.with_init` does."""
    if not init:
        return script
    both = quote(init + '\nexec "$@"')
    return f'exec "$(command -v bash || echo /bin/sh)" -lc {both} remote_kernel /bin/sh -c {quote(script)}\n'


def quoted_path(text: str) -> str:
    """Quote a path but for the `~` or `~user` that it may begin with."""
    home = re.match(r"~[A-Za-z0-9._-]*(?=/|\Z)", text)
    if not home:
        return quote(text)
    rest = text[home.end() + 1 :]
    return f"{home[0]}/{quote(rest)}" if rest else home[0]
