"""What one kernel is started with: the launcher's command line, read and written in one place.

kernel.json's argv is the only record of a remote kernel's settings. The launcher reads it to
start the kernel, `add` and `edit` write it, `list` reads it back.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from remote_kernel.endpoint import Endpoint, parse_jumps, print_jumps
from remote_kernel.errors import UsageError

DEFAULT_LINGER_SECONDS = 24 * 3600.0
DEFAULT_SPOOL_BYTES = 2 << 30
FOREVER = float("inf")
# Those whose value is a text, and a field of the same name.
_TEXT_FLAGS = ("--python", "--kernel", "--workdir", "--init", "--transport", "--ssh-config", "--resume", "--on-start")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Forward(NamedTuple):
    """A port of this machine's loopback that leads to a port of the remote host's."""

    local: int
    remote: int

    def __str__(self) -> str:
        return str(self.remote) if self.local == self.remote else f"{self.local}:{self.remote}"


class LaunchOptions(NamedTuple):
    """The settings of one remote kernel.

    `python` is empty for the default (REMOTE_KERNEL_PYTHON, else `python3`); `kernel` is empty
    for ipykernel under that Python, else the name of a kernelspec on the remote host; `env` holds
    (name, value) pairs for the kernel; `workdir` is a remote path, `~` allowed, empty for the home
    folder; `init` is shell code run before the kernel, in a login shell; `linger_seconds` is how
    long a kernel outlives a lost connection, and `spool_bytes` how much of its output is kept
    meanwhile; `keep` lets it outlive its front end too. `resume` is the id of a running kernel to
    attach to in place of starting one. `forward` are ports here that lead to the remote host's while
    the kernel lives. `on_start` is a folder here whose contents are pushed to the workdir before the
    kernel starts, an absolute path. `transport` is empty for the default. The connection file is empty in a
    kernelspec that has not been filled in. `extra_arguments` are the kernel's own: whatever follows the
    connection file, where jupyter_client appends its `extra_arguments`. `spec_env` is the `env` of the launcher's
    kernel.json, which is no part of the command line; `$NAME` in it stands for a variable of the remote host.
    """

    endpoint: Endpoint
    jumps: tuple[Endpoint, ...] = ()
    python: str = ""
    kernel: str = ""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    init: str = ""
    transport: str = ""
    ssh_config: str = ""
    linger_seconds: float = DEFAULT_LINGER_SECONDS
    spool_bytes: int = DEFAULT_SPOOL_BYTES
    keep: bool = False
    resume: str = ""
    forward: tuple[Forward, ...] = ()
    on_start: str = ""
    connection_file: str = ""
    extra_arguments: tuple[str, ...] = ()
    spec_env: tuple[tuple[str, str], ...] = ()

    def remote_python(self) -> str:
        """Return the interpreter to ask for on the remote host."""
        return self.python or os.environ.get("REMOTE_KERNEL_PYTHON", "") or "python3"

    def transport_name(self) -> str:
        """Return the transport that is asked for, here or in the environment.

        Sources in order: `--transport`, REMOTE_KERNEL_TRANSPORT; empty where neither says, and then transport.choice
        takes ssh if there is one.
        """
        return self.transport or os.environ.get("REMOTE_KERNEL_TRANSPORT", "")

    def login_command(self) -> str:
        """Return the command that logs in on the same way, for a person to paste: errors show it."""
        return self.command_line("login")

    def command_line(self, command: str, *words_behind: str) -> str:
        """Return the line that runs one of our commands on the same way."""
        from shlex import join  # only here: the launcher imports this module before it starts ssh

        words = ["remote_kernel", command, str(self.endpoint)]
        if self.jumps:
            words += ["-J", print_jumps(self.jumps)]
        if self.transport:
            words += ["--transport", self.transport]
        if self.ssh_config:
            words += ["--ssh-config", self.ssh_config]
        return join([*words, *words_behind])

    def to_arguments(self) -> list[str]:
        """Return the command-line arguments, without the program, that `parse_launch` reads back the same."""
        words: list[str] = []
        texts = [(flag, getattr(self, flag[2:].replace("-", "_"))) for flag in _TEXT_FLAGS]
        for flag, value in [("--endpoint", str(self.endpoint)), ("-J", print_jumps(self.jumps)), *texts]:
            if value.startswith(("-", "~")):  # jupyter_client would put our home for a word's leading ~
                words.append(f"{flag}{'=' if flag.startswith('--') else ''}{value}")
            elif value:
                words += [flag, value]
        for name, value in self.env:
            words += ["--env", f"{name}={value}"]
        if self.linger_seconds != DEFAULT_LINGER_SECONDS:
            words += ["--linger", print_duration(self.linger_seconds)]
        if self.spool_bytes != DEFAULT_SPOOL_BYTES:
            words += ["--spool", print_size(self.spool_bytes)]
        if self.keep:
            words.append("--keep")
        for forward in self.forward:
            words += ["--forward", str(forward)]
        return [*words, "-f", self.connection_file or "{connection_file}", *self.extra_arguments]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "see 'remote_kernel --help'")


def parse_launch(arguments: Sequence[str]) -> LaunchOptions:
    """Read the launcher's command line (without the program's name). Raises UsageError, offline and at once.

    What follows the connection file is the kernel's and is not parsed.
    """
    parser = _Parser(prog="remote_kernel", add_help=False, allow_abbrev=False)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("-J", "--jump", dest="jumps", default="")
    for flag in _TEXT_FLAGS:
        parser.add_argument(flag, default="")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--forward", action="append", default=[])
    parser.add_argument("--linger", default="")
    parser.add_argument("--spool", default="")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("-f", "--connection-file", dest="connection_file", required=True)
    own, extra = split_arguments(arguments)
    found = parser.parse_args(own)
    return LaunchOptions(
        endpoint=Endpoint.parse(found.endpoint),
        jumps=parse_jumps(found.jumps),
        python=found.python,
        kernel=check_kernel_name(found.kernel),
        env=tuple(parse_variable(text) for text in found.env),
        workdir=found.workdir,
        init=found.init,
        transport=check_transport(found.transport),
        ssh_config=found.ssh_config,
        linger_seconds=parse_duration(found.linger) if found.linger else DEFAULT_LINGER_SECONDS,
        spool_bytes=parse_size(found.spool) if found.spool else DEFAULT_SPOOL_BYTES,
        keep=found.keep,
        resume=check_kernel_id(found.resume),
        forward=parse_forwards(found.forward),
        on_start=found.on_start,
        connection_file=found.connection_file,
        extra_arguments=tuple(extra),
    )


def split_arguments(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the launcher's own arguments, up to the connection file, and the kernel's behind it."""
    for at, word in enumerate(arguments):
        if word in ("-f", "--connection-file"):
            return arguments[: at + 2], arguments[at + 2 :]
        if word.startswith(("-f", "--connection-file=")):
            return arguments[: at + 1], arguments[at + 1 :]
    return arguments, ()


def check_transport(name: str) -> str:
    """Return the name if there is such a transport (or it is empty, for the default); else raise UsageError."""
    if name not in ("", "openssh", "paramiko"):
        raise UsageError(f"there is no transport '{name}'", "use 'openssh' or 'paramiko'")
    return name


def check_config_file(text: str) -> str:
    """Return the absolute path of an ssh config file: the kernel starts in whatever folder a notebook is in.

    Raises UsageError where there is none; empty, for the default, stays so.
    """
    path = os.path.abspath(os.path.expanduser(text)) if text else ""
    if path and not os.path.isfile(path):
        raise UsageError(f"there is no ssh config file {path}", "give the path of one that exists")
    return path


def check_folder(text: str) -> str:
    """Return the absolute path of a folder here, for the same reason. Raises UsageError where there is none."""
    path = os.path.abspath(os.path.expanduser(text)) if text else ""
    if path and not os.path.isdir(path):
        raise UsageError(f"there is no folder {path} here", "give the path of one that exists")
    return path


def check_kernel_name(name: str) -> str:
    """Return the name if a kernelspec can have it (or it is empty); else raise UsageError."""
    if name and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UsageError(f"'{name}' cannot be a kernelspec's name", "use letters, digits, dots, dashes and underscores")
    return name


def check_kernel_id(text: str) -> str:
    """Return the id of a running kernel if it can be one (or it is empty); else raise UsageError."""
    if text and not re.fullmatch(r"[0-9a-f]{12}", text):
        raise UsageError(f"'{text}' is not a kernel's id", "see the ids with 'remote_kernel ps'")
    return text


def parse_size(text: str) -> int:
    """Read bytes from `65536`, `64K`, `64M`, `2G` or `1T`, in powers of 1024."""
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)", text)
    if not found:
        raise UsageError(f"'{text}' is not a size", "write for example 64M or 2G")
    return int(found[1]) * _SIZES[found[2]]


def print_size(count: int) -> str:
    """Return the shortest text that parse_size reads back as the same number of bytes."""
    for unit in ("T", "G", "M", "K"):
        if count and count % _SIZES[unit] == 0:
            return f"{count // _SIZES[unit]}{unit}"
    return str(count)


def parse_variable(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE` for the kernel's environment."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError(f"'{text}' is not a variable", "write NAME=VALUE, for example --env CUDA_VISIBLE_DEVICES=0")
    return name, value


def parse_forwards(texts: Sequence[str]) -> tuple[Forward, ...]:
    """Read ports to forward, each `[LOCAL:]PORT`. Raises UsageError, also where two begin at one port."""
    found = tuple(_forward(text) for text in texts if text)
    for forward in found:
        if [other.local for other in found].count(forward.local) > 1:
            raise UsageError(f"port {forward.local} is forwarded to two ports", "write LOCAL:PORT with another LOCAL")
    return found


def _forward(text: str) -> Forward:
    *where, last = text.split(":")
    if len(where) > 1:
        raise UsageError(f"'{text}' names an address to listen on", "write [LOCAL:]PORT: it listens on loopback only")
    if not all(re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536 for port in (*where, last)):
        raise UsageError(f"'{text}' is not a port to forward", "write [LOCAL:]PORT, for example 6006 or 16006:6006")
    return Forward(int(where[0] if where else last), int(last))


def parse_duration(text: str) -> float:
    """Read seconds from `90`, `15m`, `24h`, `2d`, `0` or `forever` (infinity)."""
    if text == "forever":
        return FOREVER
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise UsageError(f"'{text}' is not a duration", "write for example 90, 15m, 24h, 2d or forever")
    return float(found[1]) * _UNITS[found[2]]


def print_duration(seconds: float) -> str:
    """Return the shortest text that parse_duration reads back as the same number of seconds."""
    if seconds == FOREVER:
        return "forever"
    for unit in ("d", "h", "m"):
        text = f"{int(seconds // _UNITS[unit])}{unit}"
        if seconds and parse_duration(text) == seconds:
            return text
    if seconds == int(seconds):
        return f"{int(seconds)}"
    from decimal import Decimal  # repr() writes a small number as 1e-07, which parse_duration does not read

    return f"{Decimal(repr(seconds)):f}"


def find_program() -> str | None:
    """Return the absolute path of the `remote_kernel` command of this installation, for kernel.json's argv[0].

    None where it is not installed beside this interpreter or on PATH; then `python -m remote_kernel` does.
    """
    import shutil  # not above: the launcher imports this module before it starts ssh, and needs it for nothing else
    import sys

    beside = os.path.join(os.path.dirname(sys.executable), "remote_kernel")
    if os.access(beside, os.X_OK):
        return beside
    return shutil.which("remote_kernel")
