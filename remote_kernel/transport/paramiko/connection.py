"""Open an SSH connection to a hop and log in, through any number of jump hosts.

Each jump host's connection carries one sshtunnel forwarder to the next hop. sshtunnel would open the connection
itself, once for each key, and verify no host key; so it gets one from here that is verified and logged in. It
listens on a Unix socket in a folder of ours (0700), which has no Nagle's algorithm to stall small packets by 40 ms and
is out of reach of other users of this machine; the socket goes as soon as the one connection through it is made.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import Any

import paramiko
import sshtunnel

from remote_kernel.files import private_folder
from remote_kernel.link.sockets import without_delay
from remote_kernel.transport.known_hosts import fingerprint, known_keys
from remote_kernel.transport.paramiko.config import Hop
from remote_kernel.transport.paramiko.host_keys import SSH_LOG, name_of, verify
from remote_kernel.transport.paramiko.login import log_in
from remote_kernel.transport.paramiko.secrets import Secrets
from remote_kernel.transport.ssh_messages import SshFailure, at_jump_host

WINDOW_BYTES = 4 << 20
PACKET_BYTES = 32 << 10  # what OpenSSH's server takes
_PERSON_SECONDS = 600.0  # servers give a person less
_CHUNK = 256 << 10
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_OPEN_FAILED = re.compile(r"open FAILED: (.*)")


class _RefusalHandler(logging.Handler):
    """Drop all that the SSH libraries log, but for why a server refused to forward: they tell it nowhere else."""

    refusal = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the reason of a refusal."""
        found = _OPEN_FAILED.search(record.getMessage())
        if found:
            self.refusal = found[1]


_refusals = _RefusalHandler()


def silence_libraries() -> logging.Logger:
    """Keep paramiko and sshtunnel from writing anything anywhere; return the logger for sshtunnel."""
    for name in ("paramiko", "remote_kernel.sshtunnel"):
        logger = logging.getLogger(name)
        logger.handlers = [_refusals]
        logger.propagate = False
        logger.setLevel(logging.ERROR)
    return logging.getLogger("remote_kernel.sshtunnel")


class _Handler(sshtunnel._ForwardHandler):  # type: ignore[misc]
    """Carry the one connection through a forward: a thread for each direction in place of select and 16 KiB."""

    def handle(self) -> None:
        """Serve the connection; called by sshtunnel's server, which would print a traceback of a refusal."""
        without_delay(self.request)
        try:
            super().handle()
        except sshtunnel.HandlerSSHTunnelForwarderError:
            self.request.close()  # the next hop's handshake fails, and `connect` knows why

    def _redirect(self, chan: paramiko.Channel) -> None:
        back = threading.Thread(target=self._carry_back, args=(chan,), daemon=True)
        back.start()
        while data := self.request.recv(_CHUNK):
            chan.sendall(data)
        chan.shutdown_write()
        back.join()

    def _carry_back(self, chan: paramiko.Channel) -> None:
        try:
            while data := chan.recv(_CHUNK):
                self.request.sendall(data)
            self.request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class _Forwarder(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """sshtunnel's forwarder over a connection that is verified and logged in already."""

    def __init__(
        self, transport: paramiko.Transport, hop: Hop, to: tuple[str, int], local: str | tuple[str, int]
    ) -> None:
        self._verified = transport
        key = transport.get_remote_server_key()
        super().__init__(
            (hop.host, hop.port),
            ssh_config_file=None,
            ssh_host_key=key,
            ssh_username=hop.user,
            allow_agent=False,
            host_pkey_directories=[],
            logger=silence_libraries(),
            remote_bind_address=to,
            local_bind_address=local,
        )

    @staticmethod
    def _consolidate_auth(*_: Any, **__: Any) -> tuple[None, list[paramiko.PKey]]:
        return None, []  # it logs in nowhere

    def _connect_to_gateway(self) -> None:
        self._transport = self._verified

    def _make_ssh_forward_handler_class(self, remote_address_: tuple[str, int]) -> type[_Handler]:
        class Handler(_Handler):
            remote_address = remote_address_
            ssh_transport = self._transport
            logger = self.logger

        return Handler


def connect(hops: list[Hop], undo: ExitStack, secrets: Secrets | None = None) -> paramiko.Transport:
    """Connect hop by hop and return the connection to the last; `undo` closes them all. Raises SshFailure.

    `secrets` brings a person who can be asked; without them only the keyring is.
    """
    silence_libraries()
    secrets = secrets or Secrets()
    transport: paramiko.Transport | None = None
    for number, hop in enumerate(hops):
        try:
            opened = _dial(hop) if transport is None else _forwarded(transport, hops[number - 1], hop, undo)
            undo.callback(opened.close)
            _refusals.refusal = ""
            try:
                transport = _shake_hands(opened, hop, undo, secrets)
            except SshFailure:
                if number and _refusals.refusal:
                    said = f"channel 0: open failed: {_in_ssh_words(_refusals.refusal)}\nstdio forwarding failed"
                    raise at_jump_host(SshFailure(said)) from None
                raise
        except SshFailure as failure:
            if hop is hops[-1]:
                raise
            raise at_jump_host(failure) from failure
    assert transport
    return transport


def _in_ssh_words(refusal: str) -> str:
    """Return paramiko's `the server's text: the code's meaning` as ssh prints it."""
    text, _, meaning = refusal.rpartition(": ")
    return f"{meaning.lower()}: {text}" if text else refusal.lower()


def _dial(hop: Hop) -> socket.socket:
    if hop.proxy_command:
        ours, theirs = socket.socketpair()
        with theirs:
            subprocess.Popen(
                ["/bin/sh", "-c", f"exec {hop.proxy_command}"], stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        return ours
    try:
        opened = socket.create_connection((hop.host, hop.port), hop.connect_seconds)
    except (socket.gaierror, UnicodeError) as error:
        raise SshFailure(f"ssh: Could not resolve hostname {hop.host}: Name or service not known") from error
    except TimeoutError as error:
        raise SshFailure(f"ssh: connect to host {hop.host} port {hop.port}: Connection timed out") from error
    except OSError as error:
        raise SshFailure(f"ssh: connect to host {hop.host} port {hop.port}: {error.strerror}") from error
    without_delay(opened)
    return opened


def forwarder(
    transport: paramiko.Transport, hop: Hop, to: tuple[str, int], local: str | tuple[str, int]
) -> sshtunnel.SSHTunnelForwarder:
    """Return what forwards `local`, a Unix socket's path or a port here, to `to` beyond the hop, once it is started."""
    found = _Forwarder(transport, hop, to, local)
    found.skip_tunnel_checkup = True
    return found


def _forwarded(transport: paramiko.Transport, hop: Hop, to: Hop, undo: ExitStack) -> socket.socket:
    """Return a connection to `to` through the jump host `hop`."""
    folder = tempfile.mkdtemp(prefix="hop-", dir=private_folder())
    try:
        local = forwarder(transport, hop, (to.host, to.port), os.path.join(folder, "s"))
        local.start()
        undo.callback(local.stop, force=True)
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(os.path.join(folder, "s"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return opened


def _shake_hands(opened: socket.socket, hop: Hop, undo: ExitStack, secrets: Secrets) -> paramiko.Transport:
    began = time.monotonic()
    transport = paramiko.Transport(opened, WINDOW_BYTES, PACKET_BYTES)
    undo.callback(transport.close)
    transport.daemon = True
    transport.banner_timeout = transport.handshake_timeout = hop.connect_seconds
    transport.auth_timeout = _PERSON_SECONDS if secrets.person else 2 * hop.connect_seconds
    security = transport.get_security_options()
    security.ciphers = _first(_FAST_CIPHERS, security.ciphers)
    known = [key.kind for key in known_keys(hop.known_hosts, name_of(hop)) if not key.revoked]
    if "ssh-rsa" in known:
        known += ["rsa-sha2-512", "rsa-sha2-256"]
    security.key_types = _first(tuple(known), security.key_types)
    try:
        transport.start_client(timeout=hop.connect_seconds)
        key = transport.get_remote_server_key()  # start_client returns when the time is up, too; this one raises then
    except (paramiko.SSHException, OSError, EOFError) as error:
        if time.monotonic() - began >= 0.9 * hop.connect_seconds:
            raise SshFailure(
                f"Connection timed out during banner exchange\nConnection to {hop.host} port {hop.port} timed out"
            ) from error
        if isinstance(error, paramiko.IncompatiblePeer):
            raise SshFailure(f"Unable to negotiate with {hop.host} port {hop.port}: {error}") from error
        raise SshFailure(f"Connection closed by {hop.host} port {hop.port}") from error
    SSH_LOG.debug("debug1: Remote protocol version 2.0, remote software version %s", transport.remote_version[8:])
    SSH_LOG.debug("debug1: Authenticating to %s:%s as '%s'", hop.host, hop.port, hop.user)
    SSH_LOG.debug("debug1: Server host key: %s %s", key.get_name(), fingerprint(key.asbytes()))
    verify(hop, key, secrets.person)
    log_in(transport, hop, secrets)
    return transport


def _first(preferred: tuple[str, ...], supported: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is supported, the preferred ones first."""
    return tuple(sorted(supported, key=lambda name: name not in preferred))
