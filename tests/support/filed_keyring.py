"""A keyring for tests, in the file that RK_TEST_KEYRING names; PYTHON_KEYRING_BACKEND chooses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FiledKeyring(KeyringBackend):
    """Keep everything in one JSON file, in clear."""

    priority = 1.0

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}: {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._read(), f"{service}: {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        found = self._read()
        if found.pop(f"{service}: {username}", None) is None:
            raise PasswordDeleteError(username)
        self._write(found)

    def _path(self) -> Path:
        return Path(os.environ["RK_TEST_KEYRING"])

    def _read(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._path().read_text()) if self._path().exists() else {}
        return found

    def _write(self, found: dict[str, str]) -> None:
        self._path().write_text(json.dumps(found))
