"""Who is there to be asked by a cell, and what becomes of a question when nobody is any longer."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from remote_kernel.session.events import Answered, Event, InputWanted, Line, Queued
from remote_kernel.session.host import input_clients as input_clients_module
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import Engine
from remote_kernel.session.host.input_clients import InputClients

SECONDS = 20


class Kernel:
    """The part of an engine that gets answers."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.refused: list[str] = []

    async def answer_input(self, cell: Cell, text: str) -> None:
        self.got.append(text)
        cell.mark_answered()

    async def refuse_input(self, cell: Cell) -> None:
        self.refused.append(cell.number)


class Events(list[Event]):
    """A recorder."""

    def append(self, event: Event, line: Line | None = None) -> None:
        super().append(event)


def new_cell() -> Cell:
    cell = Cell(Queued("1", 0.0, code="input()", author="tests"), 1)
    cell.asks = cell.allow_stdin = True
    return cell


def typing(*lines: str, leaves: bool = False) -> asyncio.StreamReader:
    """Return the connection of a client."""
    reader = asyncio.StreamReader()
    for line in lines:
        reader.feed_data(json.dumps({"do": "answer", "text": line}).encode() + b"\n")
    if leaves:
        reader.feed_eof()
    return reader


def test_question_ends_with_the_last_client_that_could_answer_and_not_before() -> None:
    async def work() -> None:
        kernel, cell = Kernel(), new_cell()
        input_clients = InputClients(cast("Engine", kernel))
        stays = typing()
        listening = asyncio.ensure_future(input_clients.listen(cell, stays))
        await asyncio.sleep(0)
        cell.ask_input("who? ", password=False)
        await input_clients.listen(cell, typing(leaves=True))
        assert cell.asks
        assert not kernel.refused
        stays.feed_eof()
        await listening
        assert not cell.asks
        assert kernel.refused == ["1"]

    asyncio.run(asyncio.wait_for(work(), SECONDS))


def test_answer_to_no_question_is_left_alone_and_one_to_a_question_is_recorded() -> None:
    async def work() -> None:
        kernel, cell = Kernel(), new_cell()
        cell.record(events := Events())
        cell.ask_input("who? ", password=False)
        await InputClients(cast("Engine", kernel)).listen(cell, typing("me", "me again", leaves=True))
        assert kernel.got == ["me"]
        assert not kernel.refused
        assert events == [InputWanted("who? "), Answered("who? ")]

    asyncio.run(asyncio.wait_for(work(), SECONDS))


@pytest.mark.parametrize("is_asked", [False, True])
def test_client_that_does_not_find_the_next_host_is_not_asked_unless_it_was_already(
    monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    monkeypatch.setattr(input_clients_module, "_RETURN_SECONDS", 0.05)

    async def work() -> None:
        kernel, cell = Kernel(), new_cell()
        input_clients = InputClients(cast("Engine", kernel))
        if is_asked:
            cell.replay(InputWanted("who? "))
        returning = asyncio.ensure_future(input_clients.wait_for_return(cell))
        await asyncio.sleep(0)
        if not is_asked:
            cell.ask_input("who? ", password=False)
        await returning
        assert cell.asks == is_asked
        assert kernel.refused == ([] if is_asked else ["1"])

    asyncio.run(asyncio.wait_for(work(), SECONDS))
