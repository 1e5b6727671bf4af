"""Ports of the remote host that are reachable here: with a kernel, through cuts, and without one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from remote_kernel import errors
from remote_kernel.launcher.forward import Forwarder
from remote_kernel.launcher.log import Log
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import Forward, LaunchOptions, find_program
from remote_kernel.transport import masters
from tests.support.ends import kernels_on
from tests.support.kernels import options_for, run, running_kernel, wait_until
from tests.support.relay import Relay
from tests.support.servers import REMOTE_MARKER, Server, free_port


@contextmanager
def echo_server() -> Iterator[int]:
    """Listen on loopback, as TensorBoard would on the remote host, and send back what comes; give the port."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def said_back(connection: socket.socket, text: bytes) -> bytes:
    """Send through a connection, and give what comes back of that length."""
    sender = threading.Thread(target=connection.sendall, args=(text,))
    sender.start()
    came = b""
    while len(came) < len(text) and (data := connection.recv(1 << 16)):
        came += data
    sender.join(10)
    return came


def line_with(words: str, process: subprocess.Popen[str]) -> str:
    """Give the next line on stderr that has these words."""
    assert process.stderr
    said = [process.stderr.readline()]
    while words not in said[-1]:
        assert said[-1], said
        said.append(process.stderr.readline())
    return said[-1]


def connected(port: int) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), 10)
    found.settimeout(40)
    return found


@pytest.mark.parametrize("over", ["openssh", "paramiko"])
def test_kernels_forward_carries_bytes_through_a_cut(
    tmp_path: Path, network: tuple[Relay, Path], remote_python: Path, over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", over)
    relay, config = network
    local = free_port()
    with echo_server() as port:
        options = options_for("target", config, remote_python, forward=(Forward(local, port),))
        with running_kernel(tmp_path, options) as (_, client):
            with connected(local) as one, connected(local) as other:
                assert said_back(one, b"hello") == b"hello"
                relay.cut()
                much = os.urandom(3 << 20)
                assert said_back(one, much) == much
                assert said_back(other, b"still here") == b"still here"
            assert run(client, "6 * 7").result == "42"
        with pytest.raises(ConnectionRefusedError):
            connected(local)


def test_port_where_nobody_listens_is_closed_and_one_in_use_here_is_told(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    local, free = free_port(), free_port()
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        mine = taken.getsockname()[1]
        forward = (Forward(local, free), Forward(mine, 6006))
        said = tmp_path / "said"
        options = options_for("target", ssh_config, remote_python, forward=forward)
        with said.open("wb") as stderr, running_kernel(tmp_path, options, stderr=stderr) as (_, client):
            with connected(local) as nobody:
                assert nobody.recv(10) == b""
            assert run(client, "6 * 7").result == "42"
            assert f"port {mine} of this machine is in use" in said.read_text()
            taken.close()
            assert wait_until(lambda: f"port {mine} here leads to port 6006 there now" in said.read_text(), 30)


def test_second_kernel_of_a_kernelspec_takes_the_port_over(
    tmp_path: Path, ssh_config: Path, remote_python: Path
) -> None:
    local = free_port()
    with echo_server() as port:
        options = options_for("target", ssh_config, remote_python, forward=(Forward(local, port),))
        said = tmp_path / "said"
        with said.open("wb") as stderr, ExitStack() as second:
            with running_kernel(tmp_path / "one", options):
                _, client = second.enter_context(running_kernel(tmp_path / "two", options, stderr=stderr))
                assert f"port {local} of this machine is in use" in said.read_text()
                with connected(local) as through_the_first:
                    assert said_back(through_the_first, b"hello") == b"hello"
            assert wait_until(lambda: f"port {local} here leads to port {port} there now" in said.read_text(), 30)
            with connected(local) as through_the_second:
                assert said_back(through_the_second, b"hello") == b"hello"
            assert run(client, "6 * 7").result == "42"


@pytest.fixture
def forwarding(tmp_path: Path, network: tuple[Relay, Path]) -> Iterator[LaunchOptions]:
    found = options_for("target", network[1], "python3")
    yield found
    masters.end_masters(found)


@contextmanager
def command(options: LaunchOptions, *ports: str) -> Iterator[subprocess.Popen[str]]:
    """Run `remote_kernel forward` until it says that the ports are there."""
    program = find_program()
    assert program
    words = [program, "forward", str(options.endpoint), *ports, "--ssh-config", options.ssh_config]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(20)


@pytest.mark.parametrize("over", ["openssh", "paramiko"])
def test_forward_without_a_kernel_comes_back_after_a_cut(
    forwarding: LaunchOptions, network: tuple[Relay, Path], over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, _ = network
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", over)
    local = free_port()
    with echo_server() as port, command(forwarding, f"{local}:{port}") as process:
        assert process.stderr
        line = process.stderr.readline()
        assert f"127.0.0.1:{local} leads to port {port} of target" in line, line
        with connected(local) as one:
            much = os.urandom(3 << 20)
            assert said_back(one, much) == much
            relay.cut()
            assert one.recv(10) == b""
        said = [process.stderr.readline()]
        while "leads to port" not in said[-1]:
            assert said[-1]
            said.append(process.stderr.readline())
        assert any("was lost" in line for line in said)
        with connected(local) as again:
            assert said_back(again, b"back") == b"back"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("over", ["openssh", "paramiko"])
def test_host_without_python_is_forwarded_to_by_ssh_itself(
    forwarding: LaunchOptions,
    network: tuple[Relay, Path],
    over: str,
    target: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay, _ = network
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", over)
    local = free_port()
    no_python = f"SetEnv PATH=/nowhere {REMOTE_MARKER}={target.marker}"
    with (
        target.configured(no_python),
        echo_server() as port,
        command(forwarding, f"{local}:{port}") as process,
    ):
        assert "there is no Python on target" in line_with("forwarding by SSH itself", process)
        line_with(f"127.0.0.1:{local} leads to port {port} of target", process)
        with connected(local) as one:
            much = os.urandom(1 << 20)
            assert said_back(one, much) == much
            relay.cut()
            assert one.recv(10) == b""
        line_with("broke; trying to reconnect", process)
        line_with("leads to port", process)
        with connected(local) as again:
            assert said_back(again, b"back") == b"back"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_forward_for_a_kernelspec_ends_with_its_kernel(
    tmp_path: Path, forwarding: LaunchOptions, target: Server, remote_python: Path
) -> None:
    options = forwarding._replace(python=str(remote_python))
    arrivals: list[float] = []

    def arrived() -> None:
        arrivals.append(time.monotonic())
        if len(arrivals) == 1:
            reactor.call_later(0.5, target.kill_sessions)  # what was seen before a cut counts after it
        else:
            kernel.kill()

    with running_kernel(tmp_path, options), Reactor() as reactor:
        (kernel,) = kernels_on(target)
        forwarder = Forwarder(reactor, options, Log(), arrived, 1.0)
        reactor.call_later(60, reactor.stop)
        forwarder.run([Forward(free_port(), 6006)])
        assert len(arrivals) == 2 and forwarder.outlived


@pytest.mark.nightly
def test_forward_for_a_kernelspec_outlives_a_restart_and_says_that_the_kernel_has_ended(
    tmp_path: Path, forwarding: LaunchOptions, remote_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    options = forwarding._replace(python=str(remote_python))
    local = free_port()
    program = find_program()
    assert program
    with echo_server() as port, ExitStack() as stack:
        with running_kernel(tmp_path / "kernels", options) as (manager, client):
            words = [program, "forward", "remote", f"{local}:{port}"]
            process = stack.enter_context(
                subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
            )
            line_with("leads to port", process)
            manager.restart_kernel(now=True)
            client.wait_for_ready(timeout=60)
            time.sleep(22)
            with connected(local) as one:
                assert said_back(one, b"hello") == b"hello"
        line_with("the kernel of 'remote' has ended", process)
        assert process.wait(20) == 0


def test_port_in_use_here_is_an_error(forwarding: LaunchOptions) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with command(forwarding, str(port)) as process:
            assert process.stderr
            assert f"port {port} of this machine is in use" in process.stderr.read()
            assert process.wait(20) == errors.PortInUse.exit_status
