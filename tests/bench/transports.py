"""The transport in Python beside ssh and beside sshtunnel's plain forward: throughput, round trip, a kernel's start."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator

import paramiko
import sshtunnel

from remote_kernel.transport import choice
from tests.bench.world import Row, World, medians
from tests.support.kernels import options_for, write_kernelspec

_MEGABYTES = 64
_TRIPS = 200
_SEND = f"head -c {_MEGABYTES << 20} /dev/zero"


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure both transports and a plain forward in turn."""
    with _forward(world) as port:
        ours, ssh, forward = medians(
            runs,
            lambda: _download(_argv(world, "paramiko", _SEND)),
            lambda: _download(_argv(world, "openssh", _SEND)),
            lambda: _forward_download(port),
        )
        yield Row("paramiko, throughput, beside ssh", ours, ssh, 0.3 * ssh, "MB/s", least=True)
        yield Row("paramiko, throughput, beside sshtunnel's forward", ours, forward, forward, "MB/s", least=True)
        ours, ssh, forward = medians(
            runs,
            lambda: _trip(_argv(world, "paramiko", "cat")),
            lambda: _trip(_argv(world, "openssh", "cat")),
            lambda: _forward_trip(port),
        )
        yield Row("paramiko, p95 round trip, beside ssh", ours, ssh, 20.0, "ms")
        yield Row("paramiko, p95 round trip, beside sshtunnel's forward", ours, forward, max(forward, 5.0), "ms")
    options = options_for("target", world.ssh_config, world.python, transport="paramiko")
    write_kernelspec(world.folder, "paramiko", options)

    def cold() -> float:
        world.cool("target")
        return world.start_seconds("target")

    ours, ssh = medians(runs, lambda: world.start_seconds("paramiko"), cold)
    yield Row("start over paramiko, beside a cold start over ssh", ours, ssh, 1.5 * ssh, "s")


def _argv(world: World, transport: str, command: str) -> list[str]:
    options = options_for("target", world.ssh_config, world.python, transport=transport)
    return choice.carrier_argv(options, command)


def _download(argv: list[str]) -> float:
    """Give MB/s from the first byte on, without the handshake."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=os.environ, bufsize=0) as process:
        assert process.stdout
        fd = process.stdout.fileno()
        got = len(os.read(fd, 1))
        begun = time.perf_counter()
        while data := os.read(fd, 1 << 20):
            got += len(data)
        seconds = time.perf_counter() - begun
    assert got == _MEGABYTES << 20
    return _MEGABYTES / seconds


def _trip(argv: list[str]) -> float:
    """Give the 95th percentile of the round trip of two small writes in ms."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=os.environ, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        read, write = process.stdout.fileno(), process.stdin.fileno()
        found = _p95(lambda data: os.write(write, data), lambda count: os.read(read, count))
        process.stdin.close()
    return found


def _p95(write: object, read: object) -> float:
    times = []
    for _ in range(_TRIPS):
        begun = time.perf_counter()
        for part in (b"a" * 100, b"b" * 100):
            write(part)  # type: ignore[operator]
        got = 0
        while got < 200:
            got += len(read(200 - got))  # type: ignore[operator]
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.quantiles(times, n=20)[18]


@contextlib.contextmanager
def _forward(world: World) -> Iterator[int]:
    """Forward with sshtunnel as it is to a server that sends zeroes after `z`, and else echoes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        key = next(line.split()[1] for line in world.ssh_config.read_text().splitlines() if "IdentityFile" in line)
        kind, blob = world.target.host_key.split()
        with sshtunnel.SSHTunnelForwarder(
            (world.target.host, world.target.port),
            ssh_config_file=None,
            ssh_username=world.target.user,
            ssh_pkey=key,
            ssh_host_key=paramiko.PKey.from_type_string(kind, base64.b64decode(blob)),
            allow_agent=False,
            host_pkey_directories=[],
            remote_bind_address=server.getsockname(),
        ) as tunnel:
            yield tunnel.local_bind_port


def _serve(server: socket.socket) -> None:
    while True:
        try:
            opened, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(opened,), daemon=True).start()


def _answer(opened: socket.socket) -> None:
    with contextlib.suppress(OSError), opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := opened.recv(65536):
            if data == b"z":
                for _ in range(_MEGABYTES):
                    opened.sendall(bytes(1 << 20))
                return
            opened.sendall(data)


def _forward_download(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as opened:
        opened.sendall(b"z")
        got = len(opened.recv(1))
        begun = time.perf_counter()
        while got < _MEGABYTES << 20:
            got += len(opened.recv(1 << 20))
        return _MEGABYTES / (time.perf_counter() - begun)


def _forward_trip(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as opened:
        return _p95(opened.sendall, opened.recv)
