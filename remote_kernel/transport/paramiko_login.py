"""Log in to one hop with the agent's keys, the user's key files and their certificates. Nobody is asked anything.

A key with a passphrase that is not in the agent is a missing secret: it is named on stderr, and the login goes on
with the next key. No secret is passed on: not to a log, not to a message.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator

import paramiko

from remote_kernel.transport.paramiko_config import Hop
from remote_kernel.transport.paramiko_failure import Failure


def log_in(transport: paramiko.Transport, hop: Hop) -> None:
    """Log in, or raise Failure with what the server would have accepted."""
    allowed = ["publickey"]
    try:
        transport.auth_none(hop.user)
        return
    except paramiko.BadAuthenticationType as answer:
        allowed = answer.allowed_types
    except paramiko.SSHException as error:
        raise Failure(f"Connection closed by {hop.host} port {hop.port}") from error
    locked: list[str] = []
    offered = 0
    partly = False
    if "publickey" in allowed:
        for key in _keys(hop, locked):
            offered += 1
            try:
                further = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as answer:
                allowed = answer.allowed_types
                continue
            except paramiko.SSHException as error:  # a refusal is one too
                if transport.is_active():
                    continue
                raise Failure(
                    f"Received disconnect from {hop.host} port {hop.port}:2: Too many authentication failures"
                    if offered > 1
                    else f"Connection closed by {hop.host} port {hop.port}"
                ) from error
            if not further:
                return
            allowed, partly = further, True
            break
    said = [f"{path}: the key has a passphrase and is not in the agent" for path in locked]
    if partly:
        said.append("the key is accepted, but the server asks for more")
    raise Failure("\n".join([*said, f"{hop.user}@{hop.host}: Permission denied ({','.join(allowed)})."]))


def _keys(hop: Hop, locked: list[str]) -> Iterator[paramiko.PKey]:
    """Give the keys to offer, in OpenSSH's order; add the files that need a passphrase to `locked`."""
    in_agent = {key.asbytes(): key for key in _agent_keys()}
    files = []
    for path in hop.keys:
        key = in_agent.pop(_public_blob(path), None)
        if key is None:
            files.append(path)
        else:
            yield from _with_certificates(key, path, hop)
    if not hop.only_these_keys:
        yield from in_agent.values()
    for path in files:
        key = _load(path, locked)
        if key is not None:
            yield from _with_certificates(key, path, hop)


def _agent_keys() -> list[paramiko.PKey]:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return []
    try:
        return list(paramiko.Agent().get_keys())
    except (paramiko.SSHException, OSError):
        return []


def _public_blob(path: str) -> bytes:
    """Give the public key beside a private one, or what cannot be a key."""
    try:
        with open(f"{path}.pub", encoding="utf-8", errors="replace") as file:
            return base64.b64decode(file.read().split()[1])
    except (OSError, IndexError, binascii.Error):
        return b""


def _load(path: str, locked: list[str]) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException):  # cryptography's word for "a password is needed"
        locked.append(path)
    except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType):
        pass  # missing, not a key, or one for a security device
    except Exception as error:  # cryptography's errors have no common base
        if type(error).__module__.partition(".")[0] != "cryptography":
            raise
    return None


def _with_certificates(key: paramiko.PKey, path: str, hop: Hop) -> Iterator[paramiko.PKey]:
    """Give the key with each certificate that may be its own, and then alone."""
    for certificate in (*hop.certificates, f"{path}-cert.pub"):
        try:
            key.public_blob = None
            key.load_certificate(certificate)
        except (OSError, ValueError, AttributeError, paramiko.SSHException):
            continue  # absent, or of another type of key
        yield key
    key.public_blob = None
    yield key
