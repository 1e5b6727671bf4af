"""Connections through forwarded ports, without an SSH connection."""

from __future__ import annotations

import socket

import pytest

from remote_kernel.launcher.forward import Ports
from remote_kernel.link import link as link_module
from remote_kernel.link.link import Link
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import Forward
from tests.support.servers import free_port


def test_connection_for_which_the_link_has_no_room_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    link, port = Link(), free_port()
    monkeypatch.setattr(link_module, "MOST_STREAMS", len(link.streams) + 1)
    with Reactor() as reactor:
        ports = Ports(reactor)
        ports.listen(Forward(port, 80), lambda: link)
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as second:
            reactor.call_later(0.2, reactor.stop)
            reactor.run()
            second.settimeout(5)
            assert second.recv(1) == b""
            assert len(link.streams) == link_module.MOST_STREAMS
        ports.close()
