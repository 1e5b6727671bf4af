"""Open a connection of one's own on the way that kernels take, for what is not a command: files, and ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import paramiko

from remote_kernel.errors import ConnectionLost
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.aliases import as_the_config_has_it
from remote_kernel.transport.paramiko.config import Config, Hop
from remote_kernel.transport.paramiko.connection import connect
from remote_kernel.transport.paramiko.failure import Failure
from remote_kernel.transport.ssh_errors import explain


def hops_of(options: LaunchOptions) -> list[Hop]:
    """Give the hops on the way, the target last. Raises Failure."""
    return Config(options.ssh_config).way(as_the_config_has_it(options), options.jumps or None)


def not_honoured(options: LaunchOptions) -> list[str]:
    """Give what the configuration asks for on this way, and paramiko cannot do. Raises Failure."""
    config = Config(options.ssh_config)
    config.way(as_the_config_has_it(options), options.jumps or None)
    return config.warnings


@contextmanager
def connected(options: LaunchOptions) -> Iterator[paramiko.Transport]:
    """Connect and log in, asking nobody anything, for as long as the block. Raises TransportError's kinds.

    A connection that breaks inside the block is ConnectionLost.
    """
    with ExitStack() as undo:
        try:
            transport = connect(hops_of(options), undo)
        except Failure as failure:
            raise explain(options, str(failure), 255, b"") from None
        try:
            yield transport
        except (paramiko.SSHException, EOFError) as error:
            raise ConnectionLost(f"the connection to {options.endpoint} broke: {error}", "try again") from error
