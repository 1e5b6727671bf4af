r"""What a remote side writes cannot steer the terminal on which a command shows it."""

from __future__ import annotations

import getpass
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_kernel.cli import doctor, edge, kept, manager, table
from remote_kernel.cli.login import TerminalPerson
from remote_kernel.doctor.finding import failed
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import RemoteError
from remote_kernel.kept.running import RunningKernel, RunningKernels
from remote_kernel.launcher.log import Log
from remote_kernel.options import LaunchOptions
from remote_kernel.terminal_safe import ByteStream, terminal_safe, terminal_safe_json

CLIPBOARD = "\x1b]52;c;Y3VybCBldmls\x07"
EVIL = f"no{CLIPBOARD}de\x1b[6n\x9b2J\u202e7"
ALLOWED = re.compile(r"\x1b\[[0-9;]*m")

KERNEL = RunningKernel(
    id=EVIL,
    host=EVIL,
    way=LaunchOptions(Endpoint("h")),
    slug="",
    display_name="",
    kernel=EVIL,
    language="x",
    interrupt_mode="signal",
    state=EVIL,
    busy=False,
    keep=True,
    launchers=0,
    since=0.0,
    memory=0,
    version=0,
    launched_by=EVIL,
)
"""As a remote host may describe one: nothing of it is looked at before it is shown."""


def check(text: str) -> None:
    """See that a terminal would only show the text; its colours may be ours, or a kernel's."""
    left = ALLOWED.sub("", text)
    assert "no" in left
    assert left == terminal_safe(left)


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def terminal(request: pytest.FixtureRequest) -> bool:
    """Say whether stdout is to be a terminal; see `put_on`."""
    is_terminal: bool = request.param
    return is_terminal


def put_on(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)  # another stdout than in a fixture


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one host, which answers with what it likes."""
    answer = {"logs": [f"ok \x1b[31mred\x1b[0m {EVIL}\x1b[9A\x1b[J\n", ""], "diary": f"no cell\n{EVIL}\n"}
    found = RunningKernels([KERNEL], [("h", RemoteError(EVIL))], 2)
    monkeypatch.setattr(kept, "_running", lambda *_args, **_more: found)
    monkeypatch.setattr(RunningKernels, "find", lambda *_: KERNEL)
    monkeypatch.setattr(kept, "ask_agent", lambda *_: answer)
    monkeypatch.setattr(kept, "stop_kernel", lambda _: None)


@pytest.mark.parametrize("command", [["ps"], ["ps", "--json"], ["stop", "3fa2"], ["keep", "3fa2"]])
def test_a_host_cannot_steer_the_terminal_by(
    command: list[str],
    running: None,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_on(terminal, monkeypatch)
    assert manager.main(command) == 0
    shown = capsys.readouterr()
    check(shown.out)
    assert not shown.err or terminal_safe(shown.err) == shown.err
    if command == ["ps", "--json"]:
        assert json.loads(shown.out)[0]["host"] == EVIL


def test_logs_bring_colours_to_a_terminal_and_nothing_else(
    running: None, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_on(terminal, monkeypatch)
    assert manager.main(["logs", "3fa2"]) == 0
    shown = capsys.readouterr().out
    assert ("\x1b[31mred" in shown) is terminal
    check(f"no{shown}")


def test_logs_show_the_last_lines(
    monkeypatch: pytest.MonkeyPatch, running: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(f"line {number}\u2028same\n" for number in range(30))
    monkeypatch.setattr(kept, "ask_agent", lambda *_: {"logs": [text, "1 %\r2 %\r3 %\n"]})
    assert manager.main(["logs", "3fa2", "-n", "2"]) == 0
    assert [line for line in capsys.readouterr().out.split("\n") if "==>" not in line] == [
        "line 28\u2028same",
        "line 29\u2028same",
        "3 %",
        "",
    ]


SHOWN: dict[str, Callable[[], object]] = {
    "a note": lambda: edge.note(EVIL),
    "a result": lambda: edge.say(EVIL),
    "a complaint": lambda: edge.complain("remote_kernel", EVIL),
    "a table": lambda: table.print_rows(("A",), [(EVIL,)]),
    "a finding": lambda: doctor._show(failed("login", RemoteError(EVIL, f"see {EVIL}"))),
    "a banner": lambda: TerminalPerson().show(EVIL),
}


@pytest.mark.parametrize("what", SHOWN)
def test_what_cannot_steer_the_terminal(
    what: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_on(terminal, monkeypatch)
    SHOWN[what]()
    check("".join(capsys.readouterr()))


def test_a_name_makes_no_row_of_its_own(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_on(terminal, monkeypatch)
    table.print_rows(("A", "B"), [("a\nb", "c\td")])
    lines = ALLOWED.sub("", capsys.readouterr().out).splitlines()
    assert [line.split() for line in lines] == [["A", "B"], ["a?b", "c", "d"]]


@pytest.mark.parametrize("echo", [False, True])
def test_a_servers_question_cannot_steer_the_terminal(
    echo: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or "x")
    monkeypatch.setattr(TerminalPerson, "_line", lambda _: "x")
    assert TerminalPerson().ask(EVIL, echo=echo) == "x"
    check("".join([*asked, *capsys.readouterr()]))


def test_the_launchers_words_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    Log().warning(EVIL)
    check(capfd.readouterr().err)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_bytes_for_the_terminal_of_jupyter_keep_colours_and_nothing_else(size: int) -> None:
    data = f"\x1b[1;31mred {EVIL}\x1b[2J\r\n50%\rgr\u00fcn".encode() + b"\xff\n"
    stream = ByteStream()
    shown = "".join(stream.feed(data[start : start + size]) for start in range(0, len(data), size))
    left = ALLOWED.sub("", shown)
    assert left == terminal_safe(left)
    assert left.endswith("?[2J\n50%\ngr\u00fcn\\xff\n")
    assert size < 1000 or (shown.startswith("\x1b[1;31mred") and shown.endswith("\x1b[0m"))


def test_notes_of_the_log_cannot_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    log = Log()
    log.open("one")
    log.info(EVIL)
    log.close()
    check((tmp_path / "remote_kernel-one.log").read_text())


def test_plain_text_stays_as_it_is() -> None:
    text = "größe\t7 °C\xa0— 日本語 👩\u200d💻\n"
    assert terminal_safe(text) == text == terminal_safe_json(text)
