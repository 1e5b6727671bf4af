"""Pass messages between a front end and a kernel whose key and sockets are not those of its connection file.

A front end always makes a new key and new ports; a kernel that runs already keeps its own. A front end may also ask for
encrypted sockets (CURVE), which few kernels have, and which would hide the messages from the launcher and the agent.
The relay listens where the front end looks, connects to the kernel's sockets, and signs every message again on its way:
what does not carry a right signature goes no further. Message parts, buffers included, stay as they are; so do the
identities by which replies and input requests find their way, and the subscriptions to iopub.

Runs as a thread of a launcher that resumes a kernel or has an encrypted front end, and is the only thing there that
needs pyzmq.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from remote_kernel.errors import ConnectionFileError, LocalFilesError, PortInUse
from remote_kernel.files import private_folder
from remote_kernel.jupyter.connection_file import CHANNELS, ConnectionFile
from remote_kernel.jupyter.signing import DELIMITER, Signer
from remote_kernel.process import is_alive

_BURST = 100  # messages of one socket before the others have their turn
_RETRY_MS = 10
_LINGER_MS = 1000
_ROUTED = ("shell", "control", "stdin")


class PrivateRelay:
    """A relay to `back`: Unix sockets in a private folder, where a launcher listens in the front end's place.

    A context manager. Its messages to the kernel carry the front end's key and are not encrypted; `start` may be given
    the kernel's own key.
    """

    def __init__(self, front: ConnectionFile, note: Callable[[str], None]) -> None:
        """Prepare the connection `back`; `note` takes a line for the log, in another thread too."""
        self._front, self._note = front, note
        self._folder = os.path.join(private_folder(), f"relay-{os.getpid()}")
        values = {name: value for name, value in front.values.items() if not name.startswith("curve_")}
        ports = dict(zip(CHANNELS, range(1, 6), strict=True))
        self.back = ConnectionFile("ipc", os.path.join(self._folder, "k"), ports, values)

    def __enter__(self) -> PrivateRelay:
        """Listen for the front end. Raises PortInUse, ConnectionFileError."""
        _make_folder(self._folder)
        try:
            self._relay = Relay(self._front, self._note, lambda: os.kill(os.getpid(), signal.SIGTERM))
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def start(self, values: Mapping[str, Any] | None = None) -> None:
        """Pass on messages, once the launcher listens at `back`; `values` are a connection file's, with the key."""
        self._relay.start(self.back if values is None else self.back._replace(values=dict(values)))

    def __exit__(self, *_: object) -> None:
        self._relay.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _make_folder(path: str) -> None:
    """Make the folder of this process's sockets, and remove those of launchers that are gone.

    Raises LocalFilesError.
    """
    base = os.path.dirname(path)
    try:
        for name in os.listdir(base):
            pid = name.removeprefix("relay-")
            if pid != name and pid.isdigit() and (int(pid) == os.getpid() or not is_alive(int(pid))):
                shutil.rmtree(os.path.join(base, name), ignore_errors=True)
        os.mkdir(path, 0o700)
    except OSError as error:
        raise LocalFilesError.of(error) from error


class Relay:
    """Sockets for a front end, and the thread that serves them from `start` to `stop`."""

    def __init__(self, front: ConnectionFile, note: Callable[[str], None], failed: Callable[[], None]) -> None:
        """Listen where `front` says. Raises PortInUse, ConnectionFileError.

        `note` takes a line for the log and `failed` the news that the relay has ended by itself, both in its thread.
        """
        self._note, self._failed = note, failed
        self._context = zmq.Context()
        self._front: dict[str, zmq.Socket[bytes]] = {}
        self._back: dict[str, zmq.Socket[bytes]] = {}
        self._held: deque[list[bytes]] = deque()  # messages of iopub that a slow front end has no room for
        self._refused = 0
        self._thread: threading.Thread | None = None
        self._stop_out, self._stop_in = os.pipe()
        try:
            self._front_signer = Signer(front.values)
            front.remove_stale_sockets()
            for channel in CHANNELS:
                self._listen(channel, front)
        except ValueError as error:
            self._close()
            raise ConnectionFileError(f"the front end asks for an {error}", "use hmac-sha256") from error
        except BaseException:
            self._close()
            raise

    def _listen(self, channel: str, front: ConnectionFile) -> None:
        socket = self._context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
        self._front[channel] = socket
        socket.linger = _LINGER_MS
        if channel == "iopub":
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # a second front end wants its welcome too
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        else:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            socket.set_hwm(0)
        _encrypt(socket, front, server=True)
        if ":" in front.ip:
            socket.setsockopt(zmq.IPV6, 1)
        try:
            socket.bind(front.address(channel))
        except zmq.ZMQError as error:
            what = "is in use" if error.errno == zmq.EADDRINUSE else f"cannot be used: {error}"
            raise PortInUse(
                f"port {front.ports[channel]} ({channel}) of {front.ip} {what}",
                "start the kernel again, which picks other ports",
            ) from error

    def start(self, back: ConnectionFile) -> None:
        """Connect to the kernel and serve. Called once. Raises ConnectionFileError for a kernel's unknown scheme."""
        try:
            self._back_signer = Signer(back.values)
        except ValueError as error:
            raise ConnectionFileError(f"the kernel has an {error}", "attach to it where it was started") from error
        identity = b"relay" + os.urandom(8)  # one for all: an input request goes where the request on shell came from
        for channel in CHANNELS:
            socket = self._context.socket(zmq.XSUB if channel == "iopub" else zmq.DEALER)
            self._back[channel] = socket
            socket.linger = _LINGER_MS
            socket.setsockopt(zmq.RECONNECT_IVL, -1)  # the other side is this process: it closes once, for good
            if channel != "iopub":
                socket.set_hwm(0)
                socket.setsockopt(zmq.IDENTITY, identity)
            _encrypt(socket, back, server=False)
            socket.connect(back.address(channel))
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Pass on what has arrived, then close all sockets. Idempotent."""
        if self._thread:
            os.write(self._stop_in, b"x")
            self._thread.join(10)
            self._thread = None
        self._close()

    def _close(self) -> None:
        for socket in (*self._front.values(), *self._back.values()):
            socket.close()
        self._front.clear()
        self._back.clear()
        self._context.term()
        if self._stop_in >= 0:
            os.close(self._stop_in)
            os.close(self._stop_out)
            self._stop_in = self._stop_out = -1

    # -- in the thread

    def _serve(self) -> None:
        try:
            self._pass_on()
        except Exception as error:  # the top of a thread
            self._note(f"the relay has ended: {type(error).__name__}: {error}")
            self._failed()

    def _pass_on(self) -> None:
        poller = zmq.Poller()
        for socket in (*self._front.values(), *self._back.values()):
            poller.register(socket, zmq.POLLIN)
        poller.register(self._stop_out, zmq.POLLIN)
        until = float("inf")
        while True:
            poller.modify(self._back["iopub"], 0 if self._held else zmq.POLLIN)
            stopping = until < float("inf")
            ready: dict[Any, int] = dict(poller.poll(_RETRY_MS if self._held else 0 if stopping else None))
            if self._stop_out in ready and not stopping:
                until = time.monotonic() + _LINGER_MS / 1000
                poller.unregister(self._stop_out)
            self._publish_held()
            moved = [self._move(channel, ready) for channel in CHANNELS]
            if stopping and (time.monotonic() > until or (not any(moved) and not self._held)):
                return

    def _move(self, channel: str, ready: dict[Any, int]) -> bool:
        """Pass on what one channel has, both ways; true if there was anything."""
        front, back = self._front[channel], self._back[channel]
        if front in ready:
            for frames in _received(front):
                if channel in _ROUTED:
                    frames = self._checked(frames, self._front_signer, self._back_signer, channel, "the front end")
                with contextlib.suppress(zmq.Again):  # the kernel's end of it is closed
                    if frames:
                        back.send_multipart(frames, flags=zmq.NOBLOCK, copy=False)
        if back in ready:
            for frames in _received(back):
                if channel != "hb":
                    frames = self._checked(frames, self._back_signer, self._front_signer, channel, "the kernel")
                if frames and channel == "iopub":
                    self._held.append(frames)
                elif frames:
                    front.send_multipart(frames, copy=False)
            if channel == "iopub":
                self._publish_held()
        return front in ready or back in ready

    def _publish_held(self) -> None:
        while self._held:
            try:
                self._front["iopub"].send_multipart(self._held[0], flags=zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._held.popleft()

    def _checked(self, frames: list[bytes], check: Signer, sign: Signer, channel: str, who: str) -> list[bytes]:
        """Return the message signed again; nothing if its signature is wrong."""
        if check.accepts(frames):
            return sign.resigned(frames)
        self._refused += 1
        if self._refused <= 20:
            kind = "a message that is wrongly signed" if DELIMITER in frames else "something that is no message"
            self._note(f"{kind} came from {who} on {channel}, and goes no further")
        return []


def _received(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    found = []
    try:
        for _ in range(_BURST):
            found.append(socket.recv_multipart(zmq.NOBLOCK))
    except zmq.Again:
        pass
    return found


def _encrypt(socket: zmq.Socket[bytes], connection: ConnectionFile, *, server: bool) -> None:
    """Use the connection file's CURVE keys, if it has any."""
    if not connection.is_encrypted:
        return
    public, secret = (str(connection.values[f"curve_{kind}key"]).encode() for kind in ("public", "secret"))
    socket.curve_publickey, socket.curve_secretkey = public, secret
    if server:
        socket.curve_server = True
    else:
        socket.curve_serverkey = public
