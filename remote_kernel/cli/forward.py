"""`remote_kernel forward`: ports of the remote host, reachable here while the command runs, or a kernel lives."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from remote_kernel.cli.edge import complain, note
from remote_kernel.cli.login import person_here
from remote_kernel.cli.settings import WAY_THERE, GivenSettings, TargetArgument, takes
from remote_kernel.errors import PythonNotFound, RemoteKernelError, RemoteShellNoise
from remote_kernel.kernelspec.target import find_target, perhaps_a_slug
from remote_kernel.launcher.forward import Forwarder, forward_by_ssh
from remote_kernel.launcher.log import Log
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import parse_forwards
from remote_kernel.signals import ENDING, handling
from remote_kernel.transport import login as transport_login
from remote_kernel.transport.masters import MASTER_SECONDS

PATIENCE_SECONDS = 20.0  # without a kernel, until its end is no restart

EXAMPLES = """\b
Examples:
  remote_kernel forward remote_cuda 6006
  remote_kernel forward gpu1 18787:8787 8265
"""


@takes(*WAY_THERE)
def forward(
    name: TargetArgument,
    ports: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOCAL:]PORT...",
            help="A port of the remote host, and the port here that is forwarded to it, e.g. 6006 or 16006:6006.",
        ),
    ],
    given: GivenSettings,
) -> int:
    """Make ports of the remote host reachable here.

    For TensorBoard, Dask, Ray, debuggers and the like. It runs until Ctrl-C, or, if a kernel of the kernelspec is
    running, until that kernel ends (restarts and outages do not count). It listens on 127.0.0.1 only, and reaches
    loopback ports of the remote host over the connection that kernels share, also if the server forbids forwarding.
    Without Python on the host, SSH's own forwarding is used. A lost connection is made again. A kernelspec with
    --forward does the same by itself while its kernel runs.
    """
    forwards = parse_forwards(ports)
    target = find_target(name, other_way=given.has_a_way)
    options = given.applied_to(target.options)
    patience = 0.0 if target.is_host else PATIENCE_SECONDS
    with perhaps_a_slug(name), person_here() as person:
        transport_login.log_in(options, person, MASTER_SECONDS)

    def tell() -> None:
        for one in forwards:
            note(f"127.0.0.1:{one.local} leads to port {one.remote} of {options.endpoint}; Ctrl-C ends it")

    try:
        with Reactor() as reactor:
            for number in ENDING:
                reactor.on_signal(number, reactor.stop)
            forwarder = Forwarder(reactor, options, Log(), tell, patience)
            forwarder.run(forwards)
            if forwarder.outlived:
                note(f"the kernel of '{name}' has ended, and with it this")
    except (PythonNotFound, RemoteShellNoise) as error:
        complain("remote_kernel", f"{error.message}; forwarding by SSH itself, as far as the server allows")
        with suppress(_Ended), handling(ENDING, _end):
            forward_by_ssh(options, forwards, tell, _tell_lost)
    return 0


class _Ended(Exception):
    """A signal came that ends the command."""


def _end(*_: object) -> None:
    raise _Ended


def _tell_lost(error: RemoteKernelError) -> None:
    complain("remote_kernel", f"{error.message}; trying to reconnect")
