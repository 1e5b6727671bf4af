"""The command line of `rkernel`: its help, its options, and what it costs to load."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from remote_kernel.cli.rkernel.command import COMMANDS, HELP, find_command, make_parser
from remote_kernel.cli.rkernel.main import run
from remote_kernel.errors import UsageError
from remote_kernel.session.events import VERDICTS

# What takes longer to load than the rest of a warm `rkernel exec` takes to run.
SLOW = (
    "asyncio",
    "dataclasses",
    "inspect",
    "jupyter_client",
    "nbformat",
    "paramiko",
    "remote_kernel.session.host.host",
    "remote_kernel.session.host_process",
    "subprocess",
    "tempfile",
    "typer",
    "zmq",
)

_LOADED = """\
import json, os, socket, sys, threading
from remote_kernel.session.paths import Paths
paths = Paths("work")
paths.make()
open(paths.record, "w").write("{}")
def serve(listener):
    client, _ = listener.accept()
    client.recv(65536)
    for line in (
        {"host": {"cell": "1", "generation": 1, "version": "1", "end": 0}},
        {"event": "queued", "cell": "1", "at": 0.0},
        {"event": "stream", "name": "stdout", "text": "hello\\n"},
        {"event": "display", "data": {"text/plain": "1"}, "metadata": {}, "result": True},
        {"event": "done", "verdict": "ok", "at": 0.0},
    ):
        client.sendall((json.dumps(line) + "\\n").encode())
    client.close()
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(paths.socket())
    listener.listen()
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    from remote_kernel.cli.rkernel.main import run
    status = run(["exec", "-s", "work", "--code", "1"])
    thread.join()
os.unlink(paths.socket())
print(status, *sorted(sys.modules))
"""


def parsers() -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands."""
    found = []
    for name in COMMANDS:
        command = find_command(name)
        assert command
        found.append(make_parser(name, command))
    return found


@pytest.mark.parametrize("parser", parsers(), ids=lambda parser: parser.prog)
def test_every_command_and_option_explains_itself(parser: argparse.ArgumentParser) -> None:
    assert parser.description
    assert "examples:" in (parser.epilog or "")
    assert parser.prog in (parser.epilog or "")
    for action in parser._actions:
        assert action.help, action.dest


def test_help_names_every_command_and_every_exit_status() -> None:
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s+\w", HELP, re.MULTILINE), name
    for status in {*VERDICTS.values(), 2, 3}:
        assert re.search(rf"(^|\s){status}\s\s\w", HELP, re.MULTILINE), status
    assert max(map(len, HELP.splitlines())) <= 79
    assert len(HELP.splitlines()) <= 60


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_fits_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command = find_command(name)
    assert command
    parser = make_parser(name, command)
    shown = parser.format_help()
    assert max(map(len, shown.splitlines())) <= 80
    for action in parser._actions:  # each word whole
        if action.help and action.help != argparse.SUPPRESS:
            assert set(action.help.split()) <= set(shown.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_flag_that_is_unknown_fails_with_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match=f"see 'rkernel {name} --help'"):
        run([name, "--no-such-flag"])


@pytest.mark.parametrize("words", [["--file", "train.py", "--lr", "0.1"], ["train.py", "0.1"]])
def test_arguments_of_a_script_without_two_dashes_are_refused_with_a_hint(words: list[str]) -> None:
    with pytest.raises(UsageError, match="a script's arguments come after '--'"):
        run(["exec", *words])


def test_command_that_is_misspelt_is_guessed() -> None:
    with pytest.raises(UsageError, match="did you mean 'exec'"):
        run(["exce"])


def test_warm_exec_loads_nothing_slow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *shown, last = done.stdout.splitlines()
    status, *modules = last.split()
    assert (shown, status) == (["hello", "1"], "0")
    assert not set(SLOW) & set(modules)
