"""What a person sees of a refused password, whichever comes first: what ssh says, or its next question."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from remote_kernel.transport import login

SAYS = "echo 'Permission denied, please try again.' >&2; exit 255"


class Person:
    """Note what is shown; `asked` is whether ssh's question is on the terminal already."""

    def __init__(self, *, asked: bool) -> None:
        self.asked, self.shown = asked, ""

    def ask(self, prompt: str, *, echo: bool) -> str:
        raise AssertionError

    def confirm(self, facts: str, question: str) -> bool:
        raise AssertionError

    def is_being_asked(self) -> bool:
        return self.asked

    def show(self, text: str, *, end: str = "\n") -> None:
        self.shown += text + end


@pytest.mark.parametrize(("asked", "before"), [(False, ""), (True, "\n")])
def test_cursor_is_behind_a_question_once_a_refused_password_is_told(asked: bool, before: str) -> None:
    person = Person(asked=asked)
    status, said, _ = login._run_at_terminal(["sh", "-c", SAYS], person)
    assert (status, said) == (255, "Permission denied, please try again.\n")
    assert person.shown == f"{before}Permission denied, please try again.\nTry again: "


def test_a_login_does_not_wait_for_what_it_leaves_in_the_background(tmp_path: Path) -> None:
    """The shared connection of an older ssh keeps its stderr open for as long as it lives."""
    pid = tmp_path / "pid"
    script = f"sleep 30 >/dev/null </dev/null & echo $! >{shlex.quote(str(pid))}; echo hello >&2"
    began = time.monotonic()
    try:
        assert login._run_at_terminal(["sh", "-c", script], None) == (0, "hello\n", b"")
        assert time.monotonic() - began < 20
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
