"""The options that `add` and `edit` share: what one remote kernel is started with."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.errors import UsageError
from remote_kernel.options import (
    LaunchOptions,
    check_kernel_name,
    check_transport,
    parse_duration,
    parse_forwards,
    parse_size,
    parse_variable,
)

EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint", metavar="[USER@]HOST[:PORT]", help="The remote host or its ssh config alias, e.g. me@gpu1:2222."
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help='What kernel menus show, e.g. "Remote CUDA".')
]
JumpOption = Annotated[
    list[str] | None,
    typer.Option(
        "-J", "--jump", metavar="HOST,...", help="Jump hosts on the way, the nearest first, e.g. me@gate,inner:2222."
    ),
]
PythonOption = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="The remote interpreter, e.g. /opt/conda/bin/python; else REMOTE_KERNEL_PYTHON, else python3.",
    ),
]
KernelOption = Annotated[
    str | None,
    typer.Option(
        "--kernel", metavar="NAME", help="Start this kernelspec of the remote host, in any language, e.g. ir."
    ),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="K=V",
        help="A variable for the kernel, e.g. CUDA_VISIBLE_DEVICES=0; may be repeated. Not for secrets: anyone "
        "on this machine can read it in the process list.",
    ),
]
WorkdirOption = Annotated[
    str | None,
    typer.Option(
        "--workdir",
        metavar="DIR",
        help="The remote folder to start in, e.g. '~/work', in quotes, or the local shell expands it.",
    ),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="SHELL",
        help="Shell code to run before the kernel, in a login shell, e.g. 'module load cuda'.",
    ),
]
TransportOption = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="NAME",
        help="How to speak SSH: with openssh, or in Python, e.g. paramiko; that is the default where there is no ssh.",
    ),
]
LingerOption = Annotated[
    str | None,
    typer.Option(
        "--linger",
        metavar="TIME",
        help="How long the kernel waits for a lost connection to come back, e.g. 15m, 2d, forever; else 24h.",
    ),
]
KeepOption = Annotated[
    bool | None,
    typer.Option(
        "--keep/--no-keep",
        help="Let kernels outlive their front end: closing a notebook leaves them running, until 'stop' ends them.",
    ),
]
SpoolOption = Annotated[
    str | None,
    typer.Option(
        "--spool",
        metavar="SIZE",
        help="How much output waits on the remote host while the connection is lost, e.g. 64M; else 2G.",
    ),
]
SshConfigOption = Annotated[
    str | None,
    typer.Option(
        "--ssh-config", metavar="FILE", help="Use this ssh config file, e.g. ~/.ssh/cluster, instead of ~/.ssh/config."
    ),
]
ForwardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--forward",
        metavar="[LOCAL:]PORT",
        help="Let a port of this machine lead to one of the remote host while the kernel lives, e.g. 6006 or "
        "16006:6006; may be repeated.",
    ),
]
NoCheckOption = Annotated[
    bool, typer.Option("--no-check", help="Do not connect, and do not start a kernel to see whether it works.")
]
InstallOption = Annotated[
    bool, typer.Option("--install", help="Install ipykernel into the remote interpreter if it is missing.")
]


@dataclass(frozen=True)
class Settings:
    """What was given on the command line; None is not given, an empty text is the default asked for by name."""

    endpoint: str | None
    jump: list[str] | None
    python: str | None
    kernel: str | None
    env: list[str] | None
    workdir: str | None
    init: str | None
    transport: str | None
    linger: str | None
    keep: bool | None
    spool: str | None
    ssh_config: str | None
    forward: list[str] | None = None

    def any(self) -> bool:
        """Tell whether anything was given."""
        return any(getattr(self, field.name) not in (None, []) for field in fields(self))

    def applied_to(self, options: LaunchOptions) -> LaunchOptions:
        """Give `options` with what was given put in. Raises UsageError; looks at nothing but the ssh config file."""
        changes: dict[str, object] = {}
        if self.endpoint is not None:
            changes["endpoint"] = Endpoint.parse(self.endpoint)
        if self.jump:
            changes["jumps"] = parse_jumps(",".join(self.jump))
        for field in ("python", "workdir", "init"):
            if (text := getattr(self, field)) is not None:
                changes[field] = text
        if self.kernel is not None:
            changes["kernel"] = check_kernel_name(self.kernel)
        if self.env:
            changes["env"] = tuple({**dict(options.env), **dict(map(parse_variable, self.env))}.items())
        if self.transport is not None:
            changes["transport"] = check_transport(self.transport)
        if self.linger is not None:
            changes["linger_seconds"] = parse_duration(self.linger or "24h")
        if self.keep is not None:
            changes["keep"] = self.keep
        if self.spool is not None:
            changes["spool_bytes"] = parse_size(self.spool or "2G")
        if self.forward:
            changes["forward"] = parse_forwards(self.forward)
        if self.ssh_config is not None:
            changes["ssh_config"] = _config_file(self.ssh_config)
        return options._replace(**changes)  # type: ignore[arg-type]


def _config_file(text: str) -> str:
    """Give the absolute path: the kernel starts in whatever folder a notebook is in."""
    if not text:
        return ""
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.isfile(path):
        raise UsageError(f"there is no ssh config file {path}", "give the path of one that exists")
    return path
