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

_STALL_MS = 20.0  # half of what a delayed acknowledgement costs: a stall shows as more than this

# Where to: the alias, how it is called in the table, megabytes to move, round trips to make.
_PLACES = (
    ("target", "", 64, 200),
    ("behind", " through a jump host", 64, 200),
    ("far", " at 50 ms", 16, 40),
)


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure both transports in turn everywhere, and a plain forward where sshtunnel gets to by itself."""
    for host, where, megabytes, trips in _PLACES:
        with contextlib.ExitStack() as undo:
            port = undo.enter_context(_forward(world, host)) if host != "behind" else 0
            yield from _speeds(world, host, where, runs, megabytes, port)
            yield from _trips(world, host, where, runs, trips, port)
    options = options_for("target", world.ssh_config, world.python, transport="paramiko")
    write_kernelspec(world.folder, "paramiko", options)

    def cold() -> float:
        world.cool("target")
        return world.start_seconds("target")

    ours, ssh = medians(runs, lambda: world.start_seconds("paramiko"), cold)
    yield Row("start over paramiko, beside a cold start over ssh", ours, ssh, 1.5 * ssh, "s")


def _speeds(world: World, host: str, where: str, runs: int, megabytes: int, port: int) -> Iterator[Row]:
    for name, one, forwarded in (("download", _download, _forward_download), ("upload", _upload, _forward_upload)):
        ways = [
            lambda one=one: one(_argv(world, host, "paramiko", one), megabytes),
            lambda one=one: one(_argv(world, host, "openssh", one), megabytes),
        ]
        if port:
            ways.append(lambda forwarded=forwarded: forwarded(port, megabytes))
        ours, ssh, *forward = medians(runs, *ways)
        yield Row(f"paramiko, {name}{where}, beside ssh", ours, ssh, 0.3 * ssh, "MB/s", least=True)
        for found in forward:
            yield Row(f"paramiko, {name}{where}, beside sshtunnel", ours, found, found, "MB/s", least=True)


def _trips(world: World, host: str, where: str, runs: int, trips: int, port: int) -> Iterator[Row]:
    ways = [
        lambda: _trip(_argv(world, host, "paramiko", _trip), trips),
        lambda: _trip(_argv(world, host, "openssh", _trip), trips),
    ]
    if port:
        ways.append(lambda: _forward_trip(port, trips))
    ours, ssh, *forward = medians(runs, *ways)
    yield Row(f"paramiko, p95 round trip{where}, beside ssh", ours, ssh, ssh + _STALL_MS, "ms")
    for found in forward:
        yield Row(f"paramiko, p95 round trip{where}, beside sshtunnel", ours, found, max(found, 5.0), "ms")


def _argv(world: World, host: str, transport: str, what: object) -> list[str]:
    commands = {_download: "cat /dev/zero", _upload: "echo up; wc -c", _trip: "cat"}
    options = options_for(host, world.ssh_config, world.python, transport=transport)
    return choice.carrier_argv(options, commands[what])  # type: ignore[index]


def _download(argv: list[str], megabytes: int) -> float:
    """Give MB/s from the first byte on, without the handshake."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=os.environ, bufsize=0) as process:
        assert process.stdout
        fd = process.stdout.fileno()
        got = len(os.read(fd, 1))
        begun = time.perf_counter()
        while got < megabytes << 20:
            got += len(os.read(fd, 1 << 20))
        seconds = time.perf_counter() - begun
        process.kill()
    return megabytes / seconds


def _upload(argv: list[str], megabytes: int) -> float:
    """Give MB/s from the first byte sent to the answer that counts them all."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=os.environ, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.read(3) == b"up\n"
        begun = time.perf_counter()
        for _ in range(megabytes):
            view = memoryview(bytes(1 << 20))
            while view:
                view = view[process.stdin.write(view) :]
        process.stdin.close()
        assert int(process.stdout.readline()) == megabytes << 20
        seconds = time.perf_counter() - begun
    return megabytes / seconds


def _trip(argv: list[str], trips: int) -> float:
    """Give the 95th percentile of the round trip of two small writes in ms."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=os.environ, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        read, write = process.stdout.fileno(), process.stdin.fileno()
        found = _p95(lambda data: os.write(write, data), lambda count: os.read(read, count), trips)
        process.stdin.close()
    return found


def _p95(write: object, read: object, trips: int) -> float:
    times = []
    for _ in range(trips):
        begun = time.perf_counter()
        for part in (b"a" * 100, b"b" * 100):
            write(part)  # type: ignore[operator]
        got = 0
        while got < 200:
            got += len(read(200 - got))  # type: ignore[operator]
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.quantiles(times, n=20)[18]


@contextlib.contextmanager
def _forward(world: World, host: str) -> Iterator[int]:
    """Forward with sshtunnel as it is to a server that sends or counts zeroes or echoes, as the first byte says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        config = paramiko.SSHConfig.from_path(str(world.ssh_config)).lookup(host)
        kind, blob = world.target.host_key.split()
        with sshtunnel.SSHTunnelForwarder(
            (config["hostname"], int(config["port"])),
            ssh_config_file=None,
            ssh_username=world.target.user,
            ssh_pkey=config["identityfile"][0],
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
        wanted = opened.recv(1)
        if wanted == b"z":
            while True:
                opened.sendall(bytes(1 << 20))
        got = 0
        while data := opened.recv(65536):
            got += len(data)
            if wanted == b"e":
                opened.sendall(data)
            elif data.endswith(b"."):
                opened.sendall(b"%d\n" % got)


def _forward_download(port: int, megabytes: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as opened:
        opened.sendall(b"z")
        got = len(opened.recv(1))
        begun = time.perf_counter()
        while got < megabytes << 20:
            got += len(opened.recv(1 << 20))
        return megabytes / (time.perf_counter() - begun)


def _forward_upload(port: int, megabytes: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as opened:
        opened.sendall(b"c")
        begun = time.perf_counter()
        for _ in range(megabytes):
            opened.sendall(bytes(1 << 20))
        opened.sendall(b".")
        assert int(opened.recv(100)) == (megabytes << 20) + 1
        return megabytes / (time.perf_counter() - begun)


def _forward_trip(port: int, trips: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.sendall(b"e")
        return _p95(opened.sendall, opened.recv, trips)
