"""Requests and answers on their way through JSON, also to and from hosts and clients of other versions."""

from __future__ import annotations

import json

import pytest

from remote_kernel.errors import UsageError
from remote_kernel.session.protocol import (
    Following,
    NotebookCell,
    Request,
    RunningCell,
    decode,
    encode,
    request_line,
)
from remote_kernel.session.questions import Complete, Interrupted, RunNotebook, SessionStatus, Variable


@pytest.mark.parametrize(
    "value",
    [
        Request("1", author="me", answers=("a", "b"), asks=True, generation=2, script=("/f.py", "f.py")),
        RunNotebook((NotebookCell("a", "1"), NotebookCell("b", "2", may_fail=True)), "/copy.ipynb", key="k"),
        SessionStatus("work", connected=False, running=RunningCell("3", "1", "me", 1.5), queued=("4", "5")),
        Interrupted(True, ("4",), RunningCell("3")),
        Variable("x", "ndarray", shape=(2, 3), dtype="int64"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_comes_back_as_it_was(value: Request) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value)))) == value


def test_fields_of_other_versions_are_left_out_or_have_their_defaults() -> None:
    line = {"cell": "1", "generation": 1, "version": "0.0.1", "news": True}
    assert decode(Following, line) == Following("1", 1, "0.0.1", end=0, ended=False)


def test_request_without_a_field_that_it_needs_is_refused() -> None:
    with pytest.raises(TypeError, match="code"):
        decode(Request, {"do": "execute"})


def test_lines_are_spelled_as_they_always_were() -> None:
    execute = json.loads(request_line("execute", Request("é", key="k")))
    assert execute == {
        "protocol": 1,
        "do": "execute",
        "code": "é",
        "author": "",
        "key": "k",
        "side": False,
        "answers": [],
        "asks": False,
        "generation": 0,
        "script": [],
    }
    assert json.loads(request_line("leave")) == {"protocol": 1, "do": "leave"}
    assert json.loads(request_line("complete", Complete("pri"))) == {"protocol": 1, "do": "complete", "code": "pri"}
    assert encode(Variable("x", "int", value="1")) == {"name": "x", "type": "int", "value": "1"}


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UsageError, match="D800"):
        request_line("execute", Request("\ud800"))
