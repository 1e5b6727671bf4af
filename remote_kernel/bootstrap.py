"""Ship the agent: one remote command that reads the program from its input, and the bytes that it reads.

Nothing is installed on the remote host or left there, and no round trip is spent on asking what is there.

1. `FIRST_LINE` goes out at once. An rc file may have put another program in the place of the login shell, which then
   reads what is meant for ours: every shell obeys that line and ends.
2. The interpreter prints `ready(marker)`: from here on nobody else reads this input. Only then the program is sent.
3. The program prints the marker once more, and what it has to say behind it.

Waiting for 2 takes the time that the interpreter needs to start, and no round trip: sshd lets no input through until
the command runs, so the program would arrive no sooner than a round trip after that.

The remote command is `sh -c SCRIPT`, because the login shell may be bash, dash, zsh, fish or tcsh: the
script holds no single quote, no newline and no backslash that one of them treats in its own way, and every
value in it is spelled in octal where it is not plain.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from importlib.util import find_spec

from remote_kernel.options import FOREVER, LaunchOptions
from remote_kernel.transport.ssh_messages import SHELL_REPLACED_STATUS

# What each mode ships, in the order of the imports; the last module's `main` is run.
_LINK = ("link.pace", "link.spool", "link.link")
_KERNEL = ("process", "remote.kernel", "remote.ssh_session", "remote.folder")
_STREAMS = ("link.reactor", "link.sockets")
_SURVEY = ("process", "remote.kernel", "remote.interpreter", "remote.survey")
_ATTACH = (*_LINK, *_KERNEL, "remote.attach")
_FILES = tuple(f"sync.{name}" for name in ("options", "blocks", "wire", "rules", "tree", "validate", "remote_program"))
SHIPPED = {
    "start": (
        *(*_LINK, *_STREAMS, *_KERNEL, "remote.channels", "remote.tunnel", "jupyter.zmtp", "jupyter.signing"),
        *("remote.iopub", "remote.text_log", "remote.peer", "remote.logout", "remote.agent_socket", "remote.agent"),
    ),
    "attach": _ATTACH,
    "ask": _ATTACH,
    "survey": _SURVEY,
    "install": _SURVEY,
    "environment": _SURVEY,
    "send": (*_FILES, "sync.sender"),
    "receive": (*_FILES, "sync.folders", "sync.partial_file", "sync.plan", "sync.contents", "sync.receiver"),
    "forward": (*_LINK, *_STREAMS, *_KERNEL, "remote.tunnel", "remote.port_forward"),
    "discover": ("process", "remote.kernel", "remote.interpreter", "remote.environments"),
    "checkup": (*_KERNEL, "remote.logout", "remote.interpreter", "remote.survey", "remote.checkup"),
}
_read_ahead: dict[str, str] = {}
FIRST_LINE = f"exit {SHELL_REPLACED_STATUS}\n".encode()  # sh, bash, zsh, fish and tcsh alike
_READY = "reads"
_HEAD = b"#\n"  # before the program: what is left of the first line ends here
_PLAIN = re.compile(r"[^A-Za-z0-9_./~-]")
_TEXT = r'"""[^"]*(?:"(?!"")[^"]*)*"""'
_DOCSTRING_OR_COMMENT = re.compile(f"^( *){_TEXT}|^ *#.*|{_TEXT}", re.MULTILINE)  # or a text that is used
_STAND_INS = "python3 python"
# What the program there imports and takes long, by what it is for.
FOR_KERNELS = "io,json,re,socket,subprocess,zlib"
FOR_FILES = "errno,fcntl,io,json,pwd,re,struct,zlib"


def remote_command(python: str, size: int, marker: str, ahead: str = FOR_KERNELS) -> str:
    """Return the command line for the remote login shell: run a `program` of `size` bytes that comes on stdin.

    The program runs under `python`, or where there is none under any python3, which then says so.
    -I and -S keep the user's folder, environment and site packages out of the agent, which needs none. It imports
    modules `ahead` of reading, while the program is on its way.
    """
    head = ",".join(str(byte) for byte in _HEAD)  # no quotes in here
    skip = f"any(l in(bytes([{head}]),bytes())for l in iter(r.readline,0))"
    loader = (
        f"import sys,io;print(chr(10)+sys.argv[2],sys.argv[3],flush=True);import {ahead};"
        f"r=io.BufferedReader(io.FileIO(0,closefd=False),1);{skip};exec(zlib.decompress(r.read({size - len(_HEAD)})))"
    )
    run = f'exec "$c" -I -S -c "{loader}" "$c" {marker} {_READY} $$'
    script = (
        f'p=$(printf %b "{_octal(python)}"); case "$p" in [~]/*) p="$HOME/${{p#??}}";; esac; '
        f'for c in "$p" {_STAND_INS}; do if command -v "$c" >/dev/null 2>&1; '
        f'then {run}; fi; done; echo "remote_kernel: no python" >&2; exit 127'
    )
    return f"exec /bin/sh -c '{script}'"


def new_marker() -> str:
    """Return a word that the remote side prints at the beginning of its own lines, and nothing else there does."""
    return f"remote_kernel-{os.urandom(8).hex()}"


def ready(marker: str) -> bytes:
    """Return what the interpreter there prints when it is about to read the program."""
    return f"\n{marker} {_READY}\n".encode()


def in_plain_shell(script: str) -> str:
    """Return the command line that runs a script of any signs under /bin/sh there, whatever the login shell is."""
    return f'exec /bin/sh -c \'eval "$(printf %b "{_octal(script)}")"\''


def quoted_path(text: str) -> str:
    """Return a path quoted for a shell but for the `~` or `~user` that it may begin with."""
    from shlex import quote  # only here: the launcher imports this module before it starts ssh

    home = re.match(r"~[A-Za-z0-9._-]*(?=/|\Z)", text)
    if not home:
        return quote(text)
    rest = text[home.end() + 1 :]
    return f"{home[0]}/{quote(rest)}" if rest else home[0]


def _octal(text: str) -> str:
    return _PLAIN.sub(lambda found: "".join(f"\\0{byte:03o}" for byte in found[0].encode()), text)


def program(marker: str, mode: str, settings: Mapping[str, object]) -> bytes:
    """Return the compressed program: the stage, the modules of a mode, and its settings.

    `marker` is a word that the remote side prints on a line of its own before anything else of ours, so that what
    rc files print is told apart. The connection's key travels in here, on stdin, never in an argv.
    """
    text = json.dumps(
        {
            "marker": marker,
            "sources": [(name, _source(name)) for name in SHIPPED[mode]],
            "parameters": {"mode": mode, "settings": settings},
        }
    )
    return with_head(zlib.compress(f"{_source('remote.stage')}\n\nrun({text!r})\n".encode(), 6))


def with_head(compressed: bytes) -> bytes:
    """Return a compressed program as `remote_command` reads it."""
    return _HEAD + compressed


def start_settings(
    options: LaunchOptions, identity: str, link: str, connection: Mapping[str, object]
) -> dict[str, object]:
    """Return what `kernel.KernelSettings` reads there: of the kernel `identity` and the launcher's Link `link`."""
    return {
        "id": identity,
        "link": link,
        "connection": dict(connection),
        "python": options.remote_python(),
        "kernel": options.kernel,
        "env": list(options.env),
        "workdir": options.workdir,
        "init": options.init,
        "folder": remote_folder(),
        "launched_by": f"{os.uname().nodename}:{os.getpid()}",
        "fingerprint": fingerprint(options),
        "keep": options.keep,
        "linger": None if options.linger_seconds == FOREVER else options.linger_seconds,
        "spool_bytes": options.spool_bytes,
        "extra_arguments": list(options.extra_arguments),
        "spec_env": list(options.spec_env),
    }


def fingerprint(options: LaunchOptions) -> str:
    """Return what tells by which kernelspec a running kernel was started; it shows none of the settings."""
    what = options._replace(
        forward=(),
        on_start="",
        keep=False,
        resume="",
        linger_seconds=0.0,
        spool_bytes=0,
        connection_file="",
        extra_arguments=(),
    )
    return f"{zlib.crc32(json.dumps(what.to_arguments()).encode()):08x}"


def remote_folder() -> str:
    """Return the folder that the user wants the agents' folders in on the remote host, empty for the default."""
    return os.environ.get("REMOTE_CONN_DIR", "")


def read_ahead(mode: str) -> None:
    """Read now what a mode ships. Called while this process runs: an upgrade may remove it before it is sent."""
    _read_ahead.update({name: _source(name) for name in ("remote.stage", *SHIPPED[mode])})


def _source(name: str) -> str:
    """Return a module's code without docstrings and comments; its lines keep their numbers."""
    if name in _read_ahead:
        return _read_ahead[name]
    spec = find_spec(f"remote_kernel.{name}")
    assert spec and spec.origin
    with open(spec.origin, encoding="utf-8") as file:
        return _DOCSTRING_OR_COMMENT.sub(_only_its_lines, file.read())


def _only_its_lines(found: re.Match[str]) -> str:
    """Return as many lines without text: an empty docstring, which may be all there is of a body, or nothing."""
    if found[1] is None:
        return found[0] if found[0].startswith('"') else ""
    lines = found[0].count("\n") * "\n"
    return f'{found[1]}"""{lines}"""'
