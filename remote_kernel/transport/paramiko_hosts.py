"""Verify that a server is the one it is taken for: its host key against the user's known_hosts files.

A key that is in no file is refused unless the configuration says `StrictHostKeyChecking accept-new` (or `no`, which
is read as the same: nothing here connects to a server whose key has changed). paramiko's own reader takes the lines
marked @revoked and @cert-authority for host names, hence this one.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterator
from typing import NamedTuple

import paramiko

from remote_kernel.transport.paramiko_config import Hop
from remote_kernel.transport.paramiko_failure import Failure

_WARNING = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the {kind} key sent by the remote host is
{fingerprint}.
Offending key in {file}:{line}
  remove with:
  ssh-keygen -f '{file}' -R '{name}'
Host key for {name} has changed and you have requested strict checking.
Host key verification failed."""


class KnownKey(NamedTuple):
    """One line of a known_hosts file that names the server."""

    kind: str
    blob: bytes
    revoked: bool
    file: str
    line: int


def name_of(hop: Hop) -> str:
    """Give the name that known_hosts has a server under."""
    if hop.alias:
        return hop.alias
    return hop.host if hop.port == 22 else f"[{hop.host}]:{hop.port}"


def known_keys(hop: Hop, name: str) -> list[KnownKey]:
    """Give what the hop's known_hosts files say of that name."""
    return [key for path in hop.known_hosts for key in _keys_in(path, name)]


def fingerprint(blob: bytes) -> str:
    """Give a key's fingerprint as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def verify(hop: Hop, key: paramiko.PKey) -> None:
    """Return if the server that shows this key is to be trusted; else raise Failure."""
    name, blob, kind = name_of(hop), key.asbytes(), short_name(key.get_name())
    known = known_keys(hop, name)
    if any(other.revoked and other.blob == blob for other in known):
        raise Failure(f"WARNING: REVOKED HOST KEY DETECTED for {name}\nHost key verification failed.")
    known = [other for other in known if not other.revoked]
    if any(other.blob == blob for other in known):
        return
    for other in known:
        if other.kind == key.get_name():
            raise Failure(
                _WARNING.format(kind=kind, fingerprint=fingerprint(blob), file=other.file, line=other.line, name=name)
            )
    without_port = known_keys(hop, hop.host) if name != hop.host and not hop.alias else []
    if any(other.blob == blob and not other.revoked for other in without_port):
        return
    if hop.strict in ("accept-new", "no", "off") and not known and hop.known_hosts:
        _remember(hop.known_hosts[0], name, key)
        return
    raise Failure(
        f"The authenticity of host '{name}' can't be established: {kind} key fingerprint is {fingerprint(blob)}.\n"
        f"No {kind} host key is known for {name} and you have requested strict checking.\n"
        "Host key verification failed."
    )


def short_name(kind: str) -> str:
    """Give a key type as OpenSSH prints it: ED25519, ECDSA, RSA."""
    return kind.removeprefix("ssh-").partition("-")[0].upper().replace("RSA2", "RSA")


def _keys_in(path: str, name: str) -> Iterator[KnownKey]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker == "@cert-authority":
            continue  # paramiko cannot verify a certificate of a host
        if not _names(words[0], name):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        yield KnownKey(words[1], blob, marker == "@revoked", path, number)


def _names(patterns: str, name: str) -> bool:
    """Tell whether the first word of a known_hosts line names the server, in clear or hashed."""
    name = name.lower()
    if patterns.startswith("|1|"):
        try:
            salt, expected = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except (ValueError, binascii.Error):
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), expected)
    found = False
    for pattern in patterns.lower().split(","):
        plain = pattern.removeprefix("!").replace("[", "[[]")  # only * and ? are special there
        if fnmatch.fnmatchcase(name, plain):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _remember(path: str, name: str, key: paramiko.PKey) -> None:
    """Add a key that the configuration accepts at first sight."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{name} {key.get_name()} {key.get_base64()}\n")
    except OSError:
        pass  # as OpenSSH: the next connection finds it unknown again
