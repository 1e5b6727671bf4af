"""Make SSH keys for one run."""

from __future__ import annotations

import os
from pathlib import Path


def make_key(path: Path) -> str:
    """Write a new ed25519 private key to `path`, mode 0600, and give the public one as `type base64`."""
    # cryptography comes with paramiko; so there is a key where there is no ssh-keygen.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
