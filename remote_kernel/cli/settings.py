"""The options that commands share: what one remote kernel is started with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar

import typer

from remote_kernel.cli import completion
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


def option(group: str | None, usage: str, help: str) -> Any:
    """Return an option for `Annotated`: its group in `--help`, None for those without, and its usage as there.

    The usage is the flags and the name of the value, if it takes one: `-J --jump HOST,...`.
    """
    flags = [word for word in usage.split() if word.startswith("-")]
    metavar = "".join(word for word in usage.split() if word not in flags) or None
    return typer.Option(*flags, metavar=metavar, help=help, rich_help_panel=group, show_default=False)


NameOption = Annotated[str | None, option(NAME_GROUP, "--name NAME", 'What kernel menus show, e.g. "Remote CUDA".')]
NoCheckOption = Annotated[
    bool, option(CHECK_GROUP, "--no-check", "Do not connect, and do not start a kernel to see whether it works.")
]
InstallOption = Annotated[
    bool,
    option(
        CHECK_GROUP,
        "--install",
        "Install ipykernel if it is missing: into the remote interpreter, or, if that is the system's own, into a "
        "new environment.",
    ),
]
JsonOption = Annotated[bool, option(None, "--json", "Print a JSON list; its keys are below and will not change.")]
YesOption = Annotated[bool, option(None, "-y --yes", "Do not ask first.")]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="KERNELSPEC|HOST",
        help="A kernelspec by its slug or name, or a host, e.g. gpu1.",
        autocompletion=completion.targets,
    ),
]


@dataclass(frozen=True)
class GivenSettings:
    """What was given on the command line; None is not given, an empty text is the default asked for by name."""

    endpoint: Annotated[
        str | None,
        option(
            HOST_GROUP, "--endpoint [USER@]HOST[:PORT]", "The remote host or its ssh config alias, e.g. me@gpu1:2222."
        ),
    ] = None
    jump: Annotated[
        list[str] | None,
        option(HOST_GROUP, "-J --jump HOST,...", "Jump hosts on the way, the nearest first, e.g. me@gate,inner:2222."),
    ] = None
    python: Annotated[
        str | None,
        option(
            KERNEL_GROUP,
            "--python PATH",
            "The remote interpreter, e.g. /opt/conda/bin/python; else REMOTE_KERNEL_PYTHON, else python3.",
        ),
    ] = None
    kernel: Annotated[
        str | None,
        option(KERNEL_GROUP, "--kernel NAME", "Start this kernelspec of the remote host, in any language, e.g. ir."),
    ] = None
    env: Annotated[
        list[str] | None,
        option(
            KERNEL_GROUP,
            "--env K=V",
            "A variable for the kernel, e.g. CUDA_VISIBLE_DEVICES=0; may be repeated. Not for secrets: anyone "
            "on this machine can read it in the process list, and, during 'connect', briefly on the remote host too.",
        ),
    ] = None
    workdir: Annotated[
        str | None,
        option(
            KERNEL_GROUP,
            "--workdir DIR",
            "The remote folder to start in, e.g. '~/work'; in quotes, or the local shell expands it.",
        ),
    ] = None
    init: Annotated[
        str | None,
        option(
            KERNEL_GROUP,
            "--init SHELL",
            "Shell code to run before the kernel, in a login shell, e.g. 'module load cuda'.",
        ),
    ] = None
    transport: Annotated[
        str | None,
        option(
            HOST_GROUP,
            "--transport NAME",
            "How to connect: openssh (the ssh program), or, in Python, e.g. paramiko. The default is openssh if "
            "there is an ssh program.",
        ),
    ] = None
    linger: Annotated[
        str | None,
        option(
            LIFE_GROUP,
            "--linger TIME",
            "How long the kernel waits for a lost connection to come back, e.g. 15m, 2d, forever; else 24h.",
        ),
    ] = None
    keep: Annotated[
        bool | None,
        option(
            LIFE_GROUP,
            "--keep/--no-keep",
            "Let kernels outlive their front end: closing a notebook leaves them running, until 'stop' ends them.",
        ),
    ] = None
    spool: Annotated[
        str | None,
        option(
            LIFE_GROUP,
            "--spool SIZE",
            "How much output waits on the remote host while the connection is lost, e.g. 64M; else 2G.",
        ),
    ] = None
    forward: Annotated[
        list[str] | None,
        option(
            FILES_GROUP,
            "--forward [LOCAL:]PORT",
            "Forward a port of this machine to one of the remote host while the kernel runs, e.g. 6006 or "
            "16006:6006; may be repeated.",
        ),
    ] = None
    on_start: Annotated[
        str | None,
        option(
            FILES_GROUP,
            "--on-start PATH",
            "Copy this local folder's contents to the kernel's workdir before each start, e.g. ~/project; ignored "
            "files (.gitignore) are skipped.",
        ),
    ] = None
    ssh_config: Annotated[
        str | None,
        option(
            HOST_GROUP, "--ssh-config FILE", "Use this ssh config file, e.g. ~/.ssh/cluster, instead of ~/.ssh/config."
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
    """Return a command with the options of these settings in place of its parameter `given`: what was given of them."""
    kinds = inspect.get_annotations(GivenSettings, eval_str=True)
    return expanding("given", {name: (kinds[name], None) for name in names}, lambda values: GivenSettings(**values))


def expanding(
    place: str, options: Mapping[str, tuple[Any, object]], collect: Callable[[dict[str, Any]], object]
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a command with these options, each a type and a default, in place of the parameter `place`.

    It gets what `collect` makes of their values. typer reads the signature, so that is what changes: an option is
    declared once, for every command that has it.
    """
    expanded = [
        inspect.Parameter(name, _KEYWORD, default=default, annotation=kind) for name, (kind, default) in options.items()
    ]

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        # Not get_type_hints: before Python 3.11 it wraps what has None as its default, and typer sees no Annotated.
        hints = inspect.get_annotations(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(command).parameters.values():
            own = one.replace(kind=_KEYWORD, annotation=hints[one.name])
            parameters += expanded if one.name == place else [own]

        @functools.wraps(command)
        def run(**values: Any) -> Result:
            return command(**{place: collect({name: values.pop(name) for name in options})}, **values)

        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate
