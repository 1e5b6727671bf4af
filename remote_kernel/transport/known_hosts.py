"""Read and change the files in which a user's machine remembers the host keys of servers.

One line for each key: `[marker] names type base64 [comment]`, the names in clear, as patterns, or hashed (sshd(8),
"SSH_KNOWN_HOSTS FILE FORMAT"). paramiko's own reader takes the markers @revoked and @cert-authority for host names.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class KnownKey(NamedTuple):
    """One line of a known_hosts file that names the server."""

    kind: str
    blob: bytes
    revoked: bool
    file: str
    line: int
    """Counted from 1."""


def known_name(host: str, port: int) -> str:
    """Return the name that known_hosts has a server under."""
    return host if port == 22 else f"[{host}]:{port}"


def known_keys(files: Sequence[str], name: str) -> list[KnownKey]:
    """Return what the files say of that name; one that cannot be read says nothing."""
    return [key for path in files for key in _keys_in(path, name)]


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def add_key(path: str, name: str, kind: str, blob: bytes) -> None:
    """Add a line to a file, which is made (0600) where there is none. Raises OSError."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "rb+") as file:
        file.seek(0)
        before = file.read()
        start = b"" if not before or before.endswith(b"\n") else b"\n"
        file.write(start + f"{name} {kind} {base64.b64encode(blob).decode()}\n".encode())


def read_line(path: str, line: int) -> bytes:
    """Return a line of a file, for `remove_line`. Raises OSError; ValueError when there is no such line."""
    lines = _read_lines(path)
    if not 0 < line <= len(lines):
        raise ValueError(f"{path} has no line {line}")
    return lines[line - 1]


def remove_line(path: str, line: int, text: bytes) -> None:
    """Remove a line from a file, if it still is the one with this text; the file is replaced whole, with its mode.

    Raises OSError, and ValueError when the file has changed since the line was looked at.
    """
    target = os.path.realpath(path)
    lines = _read_lines(target)
    if not 0 < line <= len(lines) or lines[line - 1] != text:
        raise ValueError(f"it has changed meanwhile, and line {line} is another one")
    fd, copy = tempfile.mkstemp(prefix=".known_hosts-", dir=os.path.dirname(target))
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b"\n".join(lines[: line - 1] + lines[line:]))
        shutil.copymode(target, copy)
        if _read_lines(target) != lines:  # nobody locks these files: what another ssh has just added is not to be lost
            raise ValueError("it has changed just now")
        os.replace(copy, target)
    except BaseException:
        os.unlink(copy)
        raise


def _read_lines(path: str) -> list[bytes]:
    """Return a file's lines as ssh counts them: other line ends than its own are signs like any other."""
    with open(path, "rb") as file:
        return file.read().split(b"\n")


def _keys_in(path: str, name: str) -> Iterator[KnownKey]:
    try:
        lines = _read_lines(path)
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = [word.decode("utf-8", "replace") for word in line.split()]
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker == "@cert-authority":
            continue  # paramiko cannot verify a certificate of a host
        if not _names(words[0], name):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except ValueError:
            continue
        yield KnownKey(words[1], blob, marker == "@revoked", path, number)


def _names(patterns: str, name: str) -> bool:
    """True if the first word of a line names the server, in clear or hashed."""
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
