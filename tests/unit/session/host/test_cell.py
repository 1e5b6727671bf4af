"""A cell on its way through the kernel: what its messages mean for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remote_kernel.session.events import Done, Queued
from remote_kernel.session.host import cell as cell_module
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.kernel_sockets import Message

SECONDS = 10


def message(kind: str, **content: Any) -> Message:
    return Message(kind, "request", "", "", "kernel", content, b"")


def take_end(cell: Cell, status: str, **reply: Any) -> None:
    """Send a cell its reply, and the kernel's `idle`."""
    cell.handle_reply(message("execute_reply", status=status, **reply))
    cell.handle_output(message("status", execution_state="idle"))


async def aborted(times: int) -> tuple[Done, int]:
    """Let the kernel abort a cell so often, and then run it; give its end, and how often it was sent again."""
    cell, sent = Cell(Queued("1", 0.0, code="1"), 1), 0

    def resend() -> None:
        nonlocal sent
        sent += 1
        take_end(cell, "aborted" if sent < times else "ok")

    cell.resend = resend
    take_end(cell, "aborted")
    return await asyncio.wait_for(cell.done, SECONDS), sent


def test_aborted_cell_is_sent_again_until_it_runs() -> None:
    done, sent = asyncio.run(aborted(3))
    assert (done.verdict, sent) == ("ok", 3)


def test_cell_that_is_aborted_for_ever_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "_RESENDS", 4)
    done, sent = asyncio.run(aborted(99))
    assert (done.verdict, done.status, sent) == ("aborted", 5, 4)
    assert "it never ran" in done.message


def test_cell_that_has_begun_is_not_sent_again() -> None:
    async def run() -> Done:
        cell = Cell(Queued("1", 0.0, code="1"), 1)
        cell.resend = lambda: pytest.fail("sent again")
        cell.handle_output(message("execute_input", execution_count=1))
        take_end(cell, "aborted")
        return await asyncio.wait_for(cell.done, SECONDS)

    assert asyncio.run(run()).verdict == "aborted"


def test_reply_without_idle_ends_a_cell_with_a_word_about_what_may_be_missing() -> None:
    async def run() -> Done:
        cell = Cell(Queued("1", 0.0, code="1"), 1)
        cell.settle_without_idle()
        assert not cell.done.done()
        cell.handle_reply(message("execute_reply", status="ok"))
        cell.settle_without_idle()
        return await asyncio.wait_for(cell.done, SECONDS)

    done = asyncio.run(run())
    assert done.verdict == "ok"
    assert "a part of it may be missing" in done.message
