"""The relay between a front end with one key and a kernel with another, with plain ZMQ sockets at both ends."""

from __future__ import annotations

import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from remote_kernel.errors import ConnectionFileError, PortInUse
from remote_kernel.jupyter.connection_file import CHANNELS, ConnectionFile
from remote_kernel.launcher import launcher
from remote_kernel.launcher.relay import Relay

WAIT_MS = 5000
PORTS = dict(zip(CHANNELS, range(1, 6), strict=True))


class Ends:
    """A relay, the kernel's sockets behind it, and what connects a front end to it."""

    def __init__(self, folder: Path) -> None:
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self.notes: list[str] = []
        self.front_session = Session(key=b"front")
        self.kernel_session = Session(key=b"kernel")
        self.front = ConnectionFile("ipc", str(folder / "f"), PORTS, {"key": "front"})
        back = ConnectionFile("ipc", str(folder / "k"), PORTS, {"key": "kernel", "signature_scheme": "hmac-sha256"})
        self.kernel = {}
        for channel, port in PORTS.items():
            socket = self._socket(zmq.XPUB if channel == "iopub" else zmq.REP if channel == "hb" else zmq.ROUTER)
            socket.bind(f"ipc://{back.ip}-{port}")
            self.kernel[channel] = socket
        self.relay = Relay(self.front, self.notes.append, lambda: None)
        self.relay.start(back)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = WAIT_MS
        self._sockets.append(socket)
        return socket

    def connect(self, channel: str, kind: int, identity: bytes = b"") -> zmq.Socket[bytes]:
        """Connect as a front end does."""
        socket = self._socket(kind)
        if identity:
            socket.identity = identity
        socket.connect(f"ipc://{self.front.ip}-{PORTS[channel]}")
        return socket

    def close(self) -> None:
        self.relay.stop()
        for socket in self._sockets:
            socket.close()
        self._context.term()


@pytest.fixture
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    made = Ends(tmp_path_factory.mktemp("r"))
    yield made
    made.close()


def received(session: Session, socket: zmq.Socket[bytes]) -> tuple[list[bytes], dict[str, Any]]:
    """Receive one message, its signature checked with the session's key."""
    identities, parts = session.feed_identities(socket.recv_multipart())
    return identities, session.deserialize(parts)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_request_and_reply_are_signed_for_whoever_reads_them(ends: Ends, channel: str) -> None:
    front = ends.connect(channel, zmq.DEALER, b"me")
    sent = ends.front_session.send(
        front, "execute_request", {"code": "ä"}, metadata={"m": 1}, buffers=[b"\0" * 9, b"b"]
    )
    identities, request = received(ends.kernel_session, ends.kernel[channel])
    assert identities[-1] == b"me"
    assert request["content"] == {"code": "ä"}
    assert request["metadata"] == {"m": 1}
    assert [bytes(part) for part in request["buffers"]] == [b"\0" * 9, b"b"]
    assert request["header"]["msg_id"] == sent["header"]["msg_id"]

    ends.kernel_session.send(ends.kernel[channel], "execute_reply", {"status": "ok"}, parent=request, ident=identities)
    _, reply = received(ends.front_session, front)
    assert reply["content"] == {"status": "ok"}
    assert reply["parent_header"]["msg_id"] == sent["header"]["msg_id"]


def test_each_front_end_gets_its_own_reply(ends: Ends) -> None:
    fronts = {name: ends.connect("shell", zmq.DEALER, name) for name in (b"one", b"two")}
    for name, socket in fronts.items():
        ends.front_session.send(socket, "execute_request", {"code": name.decode()})
    for _ in fronts:
        identities, request = received(ends.kernel_session, ends.kernel["shell"])
        ends.kernel_session.send(ends.kernel["shell"], "execute_reply", request["content"], ident=identities)
    for name, socket in fronts.items():
        assert received(ends.front_session, socket)[1]["content"] == {"code": name.decode()}


def test_input_request_finds_the_front_end_by_the_identities_of_its_execute_request(ends: Ends) -> None:
    shell, stdin = (ends.connect(channel, zmq.DEALER, b"me") for channel in ("shell", "stdin"))
    ends.front_session.send(shell, "execute_request", {"code": "input()"})
    identities, request = received(ends.kernel_session, ends.kernel["shell"])

    def ask() -> bool:
        # A ROUTER drops what it cannot route, which is so until stdin's connection is up.
        ends.kernel_session.send(
            ends.kernel["stdin"], "input_request", {"prompt": "?"}, parent=request, ident=identities
        )
        return bool(stdin.poll(50))

    wait_for(ask)
    assert received(ends.front_session, stdin)[1]["content"] == {"prompt": "?"}
    ends.front_session.send(stdin, "input_reply", {"value": "42"})
    assert received(ends.kernel_session, ends.kernel["stdin"])[1]["content"] == {"value": "42"}


def test_subscriptions_pass_through_one_by_one_and_output_comes_back(ends: Ends) -> None:
    fronts = []
    ends.kernel["iopub"].setsockopt(zmq.XPUB_VERBOSE, 1)
    for _ in range(2):
        socket = ends.connect("iopub", zmq.SUB)
        socket.subscribe(b"")
        assert ends.kernel["iopub"].recv() == b"\x01", "the kernel welcomes each subscriber"
        fronts.append(socket)
    ends.kernel_session.send(ends.kernel["iopub"], "stream", {"text": "x"}, ident=b"kernel.stream")
    for socket in fronts:
        topic, message = received(Session(key=b"front"), socket)
        assert (topic, message["content"]) == ([b"kernel.stream"], {"text": "x"})


def test_slow_reader_of_iopub_loses_nothing(ends: Ends) -> None:
    count, text = 5000, "x" * 2000
    slow = ends.connect("iopub", zmq.SUB)
    slow.subscribe(b"")
    assert ends.kernel["iopub"].recv() == b"\x01"
    ends.kernel["iopub"].set_hwm(0)
    ends.kernel["iopub"].setsockopt(zmq.XPUB_NODROP, 1)

    def publish() -> None:
        for n in range(count):
            while True:
                try:
                    ends.kernel_session.send(ends.kernel["iopub"], "stream", {"n": n, "text": text}, ident=b"t")
                    break
                except zmq.Again:
                    time.sleep(0.01)

    publisher = threading.Thread(target=publish)
    publisher.start()
    time.sleep(1.0)
    shell = ends.connect("shell", zmq.DEALER, b"me")
    ends.front_session.send(shell, "kernel_info_request")
    received(ends.kernel_session, ends.kernel["shell"])
    assert [received(ends.front_session, slow)[1]["content"]["n"] for _ in range(count)] == list(range(count))
    publisher.join()


def test_heartbeat_passes_as_it_is(ends: Ends) -> None:
    front = ends.connect("hb", zmq.REQ)
    front.send(b"ping")
    assert ends.kernel["hb"].recv() == b"ping"
    ends.kernel["hb"].send(b"ping")
    assert front.recv() == b"ping"


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
def test_what_is_not_signed_with_the_front_ends_key_is_dropped_and_noted(ends: Ends, channel: str) -> None:
    front = ends.connect(channel, zmq.DEALER, b"me")
    for key in (b"guessed", b"kernel", b""):
        Session(key=key).send(front, "execute_request", {"code": "forged"})
    message = ends.front_session.serialize(ends.front_session.msg("execute_request", {"code": "signed"}))
    front.send_multipart([*message[:-1], b'{"code": "changed"}'])
    front.send_multipart([b"nonsense"])
    front.send_multipart([b"<IDS|MSG>", b"", b"{}"])
    ends.front_session.send(front, "execute_request", {"code": "honest"})
    assert received(ends.kernel_session, ends.kernel[channel])[1]["content"] == {"code": "honest"}
    assert len(ends.notes) == 6
    assert all(f"came from the front end on {channel}" in note for note in ends.notes)
    assert not any("forged" in note or "guessed" in note for note in ends.notes)


def test_forged_output_is_dropped(ends: Ends) -> None:
    front = ends.connect("iopub", zmq.SUB)
    front.subscribe(b"")
    assert ends.kernel["iopub"].recv() == b"\x01"
    Session(key=b"front").send(ends.kernel["iopub"], "stream", {"text": "forged"}, ident=b"t")
    ends.kernel_session.send(ends.kernel["iopub"], "stream", {"text": "honest"}, ident=b"t")
    assert received(ends.front_session, front)[1]["content"] == {"text": "honest"}


def test_messages_that_have_arrived_are_passed_on_before_the_relay_stops(ends: Ends) -> None:
    front = ends.connect("iopub", zmq.SUB)
    front.subscribe(b"")
    assert ends.kernel["iopub"].recv() == b"\x01"
    for n in range(500):
        ends.kernel_session.send(ends.kernel["iopub"], "stream", {"n": n}, ident=b"t")
    first = received(ends.front_session, front)[1]["content"]["n"]
    ends.relay.stop()
    numbers = [first]
    while front.poll(200):
        numbers.append(received(ends.front_session, front)[1]["content"]["n"])
    assert numbers == list(range(len(numbers)))


def test_port_in_use_and_unknown_scheme_are_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("r")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as taken:
        port = taken.bind_to_random_port("tcp://127.0.0.1")
        front = ConnectionFile("tcp", "127.0.0.1", {**PORTS, "shell": port}, {"key": "front"})
        with pytest.raises(PortInUse, match=rf"port {port} \(shell\) of 127.0.0.1 is in use"):
            Relay(front, print, lambda: None)
    with pytest.raises(ConnectionFileError, match="hmac-rot13"):
        Relay(
            ConnectionFile("ipc", str(folder / "f"), PORTS, {"key": "", "signature_scheme": "hmac-rot13"}), print, print
        )


@pytest.mark.parametrize("relayed", [False, True])
def test_only_a_socket_makes_room_for_the_front_ends(tmp_path_factory: pytest.TempPathFactory, relayed: bool) -> None:
    folder = tmp_path_factory.mktemp("r")
    front = ConnectionFile("ipc", str(folder / "f"), PORTS, {"key": "front"})
    path = folder / "f-3"

    def listen() -> None:
        if relayed:
            Relay(front, print, lambda: None).stop()
        else:
            for listener in launcher.listen(front).values():
                listener.close()

    path.write_text("somebody's")
    with pytest.raises(PortInUse, match="f-3 is no socket"):
        listen()
    assert path.read_text() == "somebody's"
    path.unlink()
    with sockets.socket(sockets.AF_UNIX) as left:
        left.bind(str(path))
    listen()


def test_connection_files_curve_keys_are_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    folder = tmp_path_factory.mktemp("r")
    values = {"key": "front", "curve_publickey": public, "curve_secretkey": secret}
    relay = Relay(ConnectionFile("ipc", str(folder / "f"), PORTS, values), print, lambda: None)
    relay.start(ConnectionFile("ipc", str(folder / "k"), PORTS, {"key": "kernel"}))
    try:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as kernel, context.socket(zmq.DEALER) as front:
            kernel.bind(f"ipc://{folder}/k-1")
            kernel.rcvtimeo = 300
            front.linger = 0
            front.connect(f"ipc://{folder}/f-1")
            Session(key=b"front").send(front, "execute_request", {})
            with pytest.raises(zmq.Again):
                kernel.recv_multipart()
    finally:
        relay.stop()
