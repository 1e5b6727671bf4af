"""Find the private keys that wait for a passphrase: ssh passes them over in silence where it may not ask."""

from __future__ import annotations

import base64
import binascii
import os
import re
import struct
import subprocess
from collections.abc import Iterable

_MAGIC = b"openssh-key-v1\0"
_ARMOUR = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----(.+?)-----END", re.DOTALL)


def locked_keys(paths: Iterable[str]) -> list[str]:
    """Give those of the key files that are encrypted and whose keys the agent does not have."""
    found = {path: blob for path in paths if (blob := _public_blob_if_locked(path)) is not None}
    in_agent = _agent_blobs() if found else frozenset()
    return [path for path, blob in found.items() if blob not in in_agent]


def _public_blob_if_locked(path: str) -> bytes | None:
    """Give the public key (empty where only the private file could tell) of an encrypted key, else None."""
    try:
        with open(os.path.expanduser(path), encoding="ascii", errors="replace") as file:
            text = file.read(64 << 10)
    except OSError:
        return None
    if "Proc-Type: 4,ENCRYPTED" in text or "BEGIN ENCRYPTED PRIVATE KEY" in text:
        return _blob_of_line(_read(f"{path}.pub"))
    armour = _ARMOUR.search(text)
    try:
        data = base64.b64decode(armour[1]) if armour else b""
        cipher, rest = _string(data.removeprefix(_MAGIC))
        if not data.startswith(_MAGIC) or cipher == b"none":
            return None
        _, rest = _string(rest)  # how the passphrase becomes a key, and with what
        _, rest = _string(rest)
        return _string(rest[4:])[0]
    except (binascii.Error, struct.error):
        return None


def _string(data: bytes) -> tuple[bytes, bytes]:
    """Split off one length-prefixed string (RFC 4251, section 5)."""
    (length,) = struct.unpack_from("!I", data)
    return data[4 : 4 + length], data[4 + length :]


def _agent_blobs() -> frozenset[bytes]:
    if not os.environ.get("SSH_AUTH_SOCK"):
        return frozenset()
    try:
        done = subprocess.run(
            ["ssh-add", "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(map(_blob_of_line, done.stdout.splitlines()))


def _blob_of_line(line: str) -> bytes:
    try:
        return base64.b64decode(line.split()[1])
    except (IndexError, binascii.Error):
        return b""


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
