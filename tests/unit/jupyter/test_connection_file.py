"""The front end's connection file, read and refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.errors import ConnectionFileError
from remote_kernel.jupyter.connection_file import CHANNELS, read_connection_file, runtime_folder

GOOD: dict[str, Any] = {
    "shell_port": 1,
    "iopub_port": 2,
    "stdin_port": 3,
    "control_port": 4,
    "hb_port": 65535,
    "ip": "127.0.0.1",
    "key": "5ecret-5ecret",
    "transport": "tcp",
    "signature_scheme": "hmac-sha256",
    "kernel_name": "x",
}


def write(path: Path, **values: Any) -> Path:
    file = path / "kernel.json"
    file.write_text(json.dumps({k: v for k, v in {**GOOD, **values}.items() if v is not None}))
    return file


def test_file_is_read_whole(tmp_path: Path) -> None:
    found = read_connection_file(str(write(tmp_path, curve_publickey="z85", future={"a": [1]})))
    assert found.ports == {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 65535}
    assert tuple(found.ports) == CHANNELS
    assert (found.transport, found.ip) == ("tcp", "127.0.0.1")
    # What is not known here travels on as it is.
    assert found.values == {**GOOD, "curve_publickey": "z85", "future": {"a": [1]}}


@pytest.mark.parametrize(
    ("ip", "expected"), [(None, "127.0.0.1"), ("", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "::1")]
)
def test_address_is_loopback_unless_given(tmp_path: Path, ip: str | None, expected: str) -> None:
    assert read_connection_file(str(write(tmp_path, ip=ip))).ip == expected


def test_empty_key_is_a_key(tmp_path: Path) -> None:
    # Jupyter signs nothing then; that is the user's choice.
    assert read_connection_file(str(write(tmp_path, key=""))).values["key"] == ""


def test_transport_is_tcp_unless_given(tmp_path: Path) -> None:
    assert read_connection_file(str(write(tmp_path, transport=None))).transport == "tcp"
    assert read_connection_file(str(write(tmp_path, transport="ipc"))).transport == "ipc"


@pytest.mark.parametrize("name", ["key", *(f"{channel}_port" for channel in CHANNELS)])
def test_missing_name_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConnectionFileError, match=f"lacks {name}$|lacks {name};") as caught:
        read_connection_file(str(write(tmp_path, **{name: None})))
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536, "80", 1.5, True, [], {}])
def test_port_that_is_none_is_told(tmp_path: Path, port: object) -> None:
    with pytest.raises(ConnectionFileError, match="no valid port for control"):
        read_connection_file(str(write(tmp_path, control_port=port)))


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b"\xff\xfe\x00", b'{"key": 1', b"[" * 100000])
def test_text_that_is_no_json_is_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "kernel.json").write_bytes(text)
    with pytest.raises(ConnectionFileError, match="is not JSON, or only a part of it"):
        read_connection_file(str(tmp_path / "kernel.json"))


@pytest.mark.parametrize("text", ["[]", "1", "null", '"key"'])
def test_json_that_is_no_object_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "kernel.json").write_text(text)
    with pytest.raises(ConnectionFileError, match="not a JSON object"):
        read_connection_file(str(tmp_path / "kernel.json"))


@pytest.mark.parametrize(
    ("name", "says"), [("none.json", "No such file"), (".", "Is a directory"), ("x" * 300, "too long")]
)
def test_file_that_cannot_be_opened_is_told(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConnectionFileError, match=says):
        read_connection_file(str(tmp_path / name))


def test_path_with_a_nul_is_told() -> None:
    with pytest.raises(ConnectionFileError):
        read_connection_file("a\0b")


def test_runtime_folder_is_jupyters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_core.paths import jupyter_runtime_dir

    cases: list[dict[str, str]] = [
        {"JUPYTER_RUNTIME_DIR": str(tmp_path / "a")},
        {"JUPYTER_DATA_DIR": str(tmp_path / "b")},
        {"XDG_DATA_HOME": str(tmp_path / "c")},
        {},
    ]
    for case in cases:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME", "JUPYTER_PLATFORM_DIRS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name, value in case.items():
            monkeypatch.setenv(name, value)
        made = runtime_folder()
        monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "0")
        assert made == jupyter_runtime_dir()
        assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
