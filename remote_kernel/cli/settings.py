"""The options that commands share: what one remote kernel is started with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar

import typer

from remote_kernel.endpoint import Endpoint, parse_jumps
from remote_kernel.options import (
    LaunchOptions,
    check_config_file,
    check_folder,
    check_kernel_name,
    check_transport,
    parse_duration,
    parse_forwards,
    parse_size,
    parse_variable,
)

Result = TypeVar("Result")
_KEYWORD = inspect.Parameter.KEYWORD_ONLY  # typer passes everything by name

# The groups of options in `--help`.
NAME_GROUP = "The kernelspec"
HOST_GROUP = "The way to the host"
KERNEL_GROUP = "What runs there"
LIFE_GROUP = "Lost connections and closed notebooks"
FILES_GROUP = "Ports and files"
CHECK_GROUP = "The check"

NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help='What kernel menus show, e.g. "Remote CUDA".', rich_help_panel=NAME_GROUP
    ),
]
NoCheckOption = Annotated[
    bool,
    typer.Option(
        "--no-check",
        help="Do not connect, and do not start a kernel to see whether it works.",
        rich_help_panel=CHECK_GROUP,
    ),
]
InstallOption = Annotated[
    bool,
    typer.Option(
        "--install",
        help="Install ipykernel if it is missing: into the remote interpreter, or, if that is the system's own, into a "
        "new environment.",
        rich_help_panel=CHECK_GROUP,
    ),
]


@dataclass(frozen=True)
class GivenSettings:
    """What was given on the command line; None is not given, an empty text is the default asked for by name."""

    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="[USER@]HOST[:PORT]",
            help="The remote host or its ssh config alias, e.g. me@gpu1:2222.",
            rich_help_panel=HOST_GROUP,
        ),
    ] = None
    jump: Annotated[
        list[str] | None,
        typer.Option(
            "-J",
            "--jump",
            metavar="HOST,...",
            help="Jump hosts on the way, the nearest first, e.g. me@gate,inner:2222.",
            rich_help_panel=HOST_GROUP,
        ),
    ] = None
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="The remote interpreter, e.g. /opt/conda/bin/python; else REMOTE_KERNEL_PYTHON, else python3.",
            rich_help_panel=KERNEL_GROUP,
        ),
    ] = None
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            metavar="NAME",
            help="Start this kernelspec of the remote host, in any language, e.g. ir.",
            rich_help_panel=KERNEL_GROUP,
        ),
    ] = None
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="K=V",
            help="A variable for the kernel, e.g. CUDA_VISIBLE_DEVICES=0; may be repeated. Not for secrets: anyone "
            "on this machine can read it in the process list, and, during 'connect', briefly on the remote host too.",
            rich_help_panel=KERNEL_GROUP,
        ),
    ] = None
    workdir: Annotated[
        str | None,
        typer.Option(
            "--workdir",
            metavar="DIR",
            help="The remote folder to start in, e.g. '~/work'; in quotes, or the local shell expands it.",
            rich_help_panel=KERNEL_GROUP,
        ),
    ] = None
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="SHELL",
            help="Shell code to run before the kernel, in a login shell, e.g. 'module load cuda'.",
            rich_help_panel=KERNEL_GROUP,
        ),
    ] = None
    transport: Annotated[
        str | None,
        typer.Option(
            "--transport",
            metavar="NAME",
            help="How to connect: openssh (the ssh program), or, in Python, e.g. paramiko. The default is openssh if "
            "there is an ssh program.",
            rich_help_panel=HOST_GROUP,
        ),
    ] = None
    linger: Annotated[
        str | None,
        typer.Option(
            "--linger",
            metavar="TIME",
            help="How long the kernel waits for a lost connection to come back, e.g. 15m, 2d, forever; else 24h.",
            rich_help_panel=LIFE_GROUP,
        ),
    ] = None
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            help="Let kernels outlive their front end: closing a notebook leaves them running, until 'stop' ends them.",
            rich_help_panel=LIFE_GROUP,
        ),
    ] = None
    spool: Annotated[
        str | None,
        typer.Option(
            "--spool",
            metavar="SIZE",
            help="How much output waits on the remote host while the connection is lost, e.g. 64M; else 2G.",
            rich_help_panel=LIFE_GROUP,
        ),
    ] = None
    forward: Annotated[
        list[str] | None,
        typer.Option(
            "--forward",
            metavar="[LOCAL:]PORT",
            help="Forward a port of this machine to one of the remote host while the kernel runs, e.g. 6006 or "
            "16006:6006; may be repeated.",
            rich_help_panel=FILES_GROUP,
        ),
    ] = None
    on_start: Annotated[
        str | None,
        typer.Option(
            "--on-start",
            metavar="PATH",
            help="Copy this local folder's contents to the kernel's workdir before each start, e.g. ~/project; ignored "
            "files (.gitignore) are skipped.",
            rich_help_panel=FILES_GROUP,
        ),
    ] = None
    ssh_config: Annotated[
        str | None,
        typer.Option(
            "--ssh-config",
            metavar="FILE",
            help="Use this ssh config file, e.g. ~/.ssh/cluster, instead of ~/.ssh/config.",
            rich_help_panel=HOST_GROUP,
        ),
    ] = None

    def any(self) -> bool:
        """True if anything was given."""
        return any(getattr(self, field.name) not in (None, []) for field in fields(self))

    @property
    def has_a_way(self) -> bool:
        """True if another way to a host was given than any kernelspec's."""
        return bool(self.jump or self.transport or self.ssh_config)

    def applied_to(self, options: LaunchOptions) -> LaunchOptions:
        """Return `options` with what was given put in. Raises UsageError; looks at nothing but the ssh config file."""
        changes: dict[str, Any] = {}
        for name, (option, read) in _READ.items():
            given = getattr(self, name)
            if given is not None and given != []:
                changes[option] = read(given)
        if "env" in changes:  # one variable more leaves the others
            changes["env"] = tuple({**dict(options.env), **dict(changes["env"])}.items())
        return options._replace(**changes)


# For each setting: what LaunchOptions calls it, and how it is read. Each reader raises UsageError.
_READ: dict[str, tuple[str, Callable[[Any], object]]] = {
    "endpoint": ("endpoint", Endpoint.parse),
    "jump": ("jumps", lambda texts: parse_jumps(",".join(texts))),
    "python": ("python", str),
    "kernel": ("kernel", check_kernel_name),
    "env": ("env", lambda texts: [parse_variable(text) for text in texts]),
    "workdir": ("workdir", str),
    "init": ("init", str),
    "transport": ("transport", check_transport),
    "linger": ("linger_seconds", lambda text: parse_duration(text or "24h")),
    "keep": ("keep", bool),
    "spool": ("spool_bytes", lambda text: parse_size(text or "2G")),
    "forward": ("forward", parse_forwards),
    "on_start": ("on_start", check_folder),
    "ssh_config": ("ssh_config", check_config_file),
}
EVERY_SETTING = tuple(_READ)
WAY_THERE = ("jump", "transport", "ssh_config")


def takes(*names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a command the options of these settings, in place of its parameter `given`, which gets what was given.

    typer reads the signature, so that is what changes: an option is declared once, for every command that has it.
    """
    hints = inspect.get_annotations(GivenSettings, eval_str=True)

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        # Not get_type_hints: before Python 3.11 it wraps what has None as its default, and typer sees no Annotated.
        own = inspect.get_annotations(command, eval_str=True)
        kinds: list[tuple[str, Any, Any]] = []
        for name, parameter in inspect.signature(command).parameters.items():
            if name == "given":
                kinds += [(setting, hints[setting], None) for setting in names]
            else:
                kinds.append((name, own[name], parameter.default))

        @functools.wraps(command)
        def run(**values: Any) -> Result:
            given = GivenSettings(**{name: values.pop(name) for name in names})
            return command(given=given, **values)

        run.__annotations__ = {name: hint for name, hint, _ in kinds}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, _KEYWORD, default=default, annotation=hint) for name, hint, default in kinds]
        )
        return run

    return decorate
