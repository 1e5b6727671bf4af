"""The one command line that every remote shell has to take, and the program behind it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote_kernel import bootstrap
from remote_kernel.endpoint import Endpoint
from remote_kernel.options import FOREVER, LaunchOptions

SHELLS = [shell for shell in ("bash", "dash", "zsh", "fish", "tcsh") if shutil.which(shell)]
MARKER = "remote_kernel-test"
READY = bootstrap.ready(MARKER)
NAMES = ("python3", "/opt/my env/bin/python", "it's", 'a"b', "$HOME/x", "bang!x", "back\\slash", "smörgås 🙂", "-x", "a\nb", "%s", "`id`", "a;b")  # noqa: E501  # fmt: skip


def packed(source: bytes) -> bytes:
    return bootstrap.with_head(zlib.compress(source))


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), st.integers(3, 10**6))
@example("'", 3)
@example("\\'\"$`!\n\t{}[]*?~#&;|<>()", 3)
def test_command_holds_nothing_that_a_shell_could_trip_over(python: str, size: int) -> None:
    command = bootstrap.remote_command(python, size, MARKER)
    found = re.fullmatch(r"exec /bin/sh -c '([^']*)'", command)
    assert found, "a single quote inside would end the script"
    # ! is history in tcsh and zsh, a newline ends a command in tcsh.
    assert not set("!\n\r") & set(found[1])
    assert found[1].isascii()
    assert f".read({size - 2})" in found[1]


def test_backslashes_stay_within_what_every_shell_leaves_alone() -> None:
    # fish takes \\ and \' within single quotes for one character; nothing else.
    for name in NAMES:
        script = bootstrap.remote_command(name, 10, MARKER)
        assert "\\\\" not in script
        assert "\\'" not in script


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shell", SHELLS)
def test_command_finds_the_python_in_every_shell(shell: str, name: str, tmp_path: Path) -> None:
    asked = name if name in ("python3",) or name.startswith("$") else str(tmp_path / name.lstrip("/"))
    if name != "python3":
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nRK_THROUGH=yes exec {sys.executable} "$@"\n')
        path.chmod(0o755)
        asked = str(path)
    program = packed(b"import os, sys; print(os.environ.get('RK_THROUGH', 'no'), repr(sys.argv[1]), sys.stdin.read())")
    command = bootstrap.remote_command(asked, len(program), MARKER)
    done = subprocess.run(
        [shutil.which(shell) or shell, "-c", command], input=program + b"the rest", capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    through = "no" if name == "python3" else "yes"
    assert done.stdout.removeprefix(READY).decode() == f"{through} {asked!r} the rest\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_missing_python_has_a_stand_in(shell: str) -> None:
    program = packed(b"import sys; print(sys.argv[1])")
    command = bootstrap.remote_command("/nothing/python", len(program), MARKER)
    done = subprocess.run([shell, "-c", command], input=program, capture_output=True, timeout=30)
    assert done.stdout.removeprefix(READY) in (b"python3\n", b"python\n")


@pytest.mark.parametrize("left", [bootstrap.FIRST_LINE, b"97\n", b"\n", b""])
def test_program_is_found_behind_what_an_rc_file_has_left_of_the_first_line(left: bytes) -> None:
    program = packed(b"import sys; print(sys.stdin.read())")
    command = bootstrap.remote_command("python3", len(program), MARKER)
    done = subprocess.run(["/bin/sh", "-c", command], input=left + program + b"rest", capture_output=True, timeout=30)
    assert done.stdout == READY + b"rest\n", done.stderr


@pytest.mark.parametrize("shell", [*SHELLS, "bash -l", "zsh -il", "tcsh -f"])
def test_first_line_ends_every_shell_that_reads_it(shell: str, tmp_path: Path) -> None:
    said = bootstrap.FIRST_LINE + b"touch there\n"
    done = subprocess.run(shell.split(), input=said, capture_output=True, timeout=30, cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (97, [])


def test_no_python_at_all_is_told(tmp_path: Path) -> None:
    command = bootstrap.remote_command("/nothing/python", 10, MARKER)
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, env={"PATH": str(tmp_path)}, timeout=30)
    assert (done.returncode, done.stderr) == (127, b"remote_kernel: no python\n")


def test_python_below_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "my env").mkdir()
    (tmp_path / "my env" / "python").symlink_to(sys.executable)
    program = packed(b"import sys; print(sys.argv[1])")
    command = bootstrap.remote_command("~/my env/python", len(program), MARKER)
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], input=program, capture_output=True, env=env, timeout=30)
    assert done.stdout.removeprefix(READY).decode() == f"{tmp_path}/my env/python\n", done.stderr


def test_interpreter_sees_nothing_of_the_users(tmp_path: Path) -> None:
    # A json.py in the home folder, or a PYTHONPATH, must not become part of the agent.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    program = packed(b"import json, sys; print(json.__file__, 'site' in sys.modules)")
    command = bootstrap.remote_command(sys.executable, len(program), MARKER)
    env = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "json.py"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], input=program, capture_output=True, env=env, cwd=tmp_path, timeout=30
    )
    assert str(tmp_path) not in done.stdout.decode()
    assert done.stdout.decode().strip().endswith("False"), done.stderr


# -- the program


def unpacked(mode: str) -> tuple[str, dict[str, object]]:
    """Give a program's source and what it is called with."""
    source = zlib.decompress(bootstrap.program("m4rker", mode, {"a": "\u2028 'x' \\ \n"})[2:]).decode()
    call = ast.parse(source).body[-1]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    return source, json.loads(ast.literal_eval(call.value.args[0]))


@pytest.mark.parametrize("mode", bootstrap.SHIPPED)
def test_program_ships_its_modules_in_the_order_of_their_imports(mode: str) -> None:
    _, shipped = unpacked(mode)
    assert shipped["marker"] == "m4rker"
    assert shipped["parameters"] == {"mode": mode, "settings": {"a": "\u2028 'x' \\ \n"}}
    known: set[str] = set()
    for name, source in shipped["sources"]:  # type: ignore[attr-defined]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("remote_kernel"):
                module = (node.module or "").removeprefix("remote_kernel.")
                parts = {f"{module}.{alias.name}" for alias in node.names}
                assert module in known or parts <= known, f"{name} imports {node.module}"
        known.add(name)
    assert "def main(" in shipped["sources"][-1][1]  # type: ignore[index]


def without_docstrings(source: str) -> str:
    """Describe what a source does: its syntax tree, with each text that stands alone emptied."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize("mode", bootstrap.SHIPPED)
def test_program_ships_the_code_of_its_modules_alone(mode: str) -> None:
    """Line by line, so that tracebacks name the lines of the files here."""
    _, shipped = unpacked(mode)
    for name, source in shipped["sources"]:  # type: ignore[attr-defined]
        spec = find_spec(f"remote_kernel.{name}")
        assert spec and spec.origin
        whole = Path(spec.origin).read_text()
        assert len(source) < len(whole) and source.count("\n") == whole.count("\n")
        assert without_docstrings(source) == without_docstrings(whole), name
        assert ast.get_docstring(ast.parse(source)) == ""


@pytest.mark.parametrize("mode", bootstrap.SHIPPED)
def test_program_is_small_enough_for_one_round_trip(mode: str) -> None:
    # sshd's first window is 2 MB, a pipe takes 64 KB without waiting; what is sent here is sent at every start.
    assert len(bootstrap.program("m4rker", mode, {})) < 34 << 10


def test_start_settings_are_what_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_CONN_DIR", "/scratch")
    options = LaunchOptions(Endpoint.parse("gpu1"), python="py", env=(("A", "1\n2"),), init="x", linger_seconds=FOREVER)
    found = bootstrap.start_settings(options, "id", "link", {"key": "k"})
    assert json.loads(json.dumps(found)) == {**found, "env": [["A", "1\n2"]]}
    assert (found["folder"], found["linger"], found["connection"]) == ("/scratch", None, {"key": "k"})


def test_what_was_read_ahead_is_sent_though_it_is_gone_from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_read_ahead", {})
    before = bootstrap.program("marker", "attach", {})
    bootstrap.read_ahead("attach")
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: None)
    assert bootstrap.program("marker", "attach", {}) == before
