"""A cell's journal: whole lines whatever happens, and what becomes of it when there is no room."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from remote_kernel.session.events import Done, Queued, Started, Stream, read_done, read_journal
from remote_kernel.session.host import journal as module
from remote_kernel.session.host.journal import Journal

DONE = Done("ok", 2.0)


def texts(path: Path) -> list[str]:
    return [event.text for event in read_journal(str(path)) if isinstance(event, Stream)]


async def followed(journal: Journal) -> bytes:
    return b"".join([piece async for piece in journal.follow()])


def test_line_that_a_killed_host_left_half_written_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    first = Journal(str(path))
    first.append(Stream("stdout", "whole"))
    first.close()
    with path.open("ab") as file:
        file.write(b'{"event": "stream", "name": "stdout", "text": "' + b"x" * (1 << 19))
    second = Journal(str(path))
    second.append(DONE)
    second.close()
    assert texts(path) == ["whole"]
    assert read_done(str(path)) == DONE


@pytest.mark.parametrize("content", [b"", b'{"event": "str'], ids=["empty", "half a line"])
def test_journal_without_one_whole_line_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.jsonl"
    path.write_bytes(content)
    journal = Journal(str(path))
    journal.append(Stream("stdout", "a"))
    journal.close()
    assert texts(path) == ["a"]


def test_cell_that_prints_for_ever_is_kept_up_to_a_limit_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    path = tmp_path / "1.jsonl"
    journal = Journal(str(path))
    for _ in range(100):
        journal.append(Stream("stdout", "x" * 100))
    journal.append(DONE)
    journal.close()
    done = read_done(str(path))
    assert path.stat().st_size < 1500
    assert 0 < len(texts(path)) < 10
    assert done
    assert done.message.endswith("bytes of what it gave are left out: 1000 of a cell are kept")


class Disk:
    """`os.writev` and `os.write` as on a disk that is full while `is_full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.tries = 0
        self._writev = os.writev
        monkeypatch.setattr(os, "writev", self.writev)

    def writev(self, fd: int, parts: list[bytes]) -> int:
        self.tries += 1
        if self.is_full:
            raise OSError(28, "No space left on device")
        return self._writev(fd, parts)


def test_full_disk_is_not_tried_with_every_message_and_used_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 60.0)
    path = tmp_path / "1.jsonl"
    journal = Journal(str(path))
    journal.append(Queued("1", 1.0))
    disk.is_full = True
    for number in range(1000):
        journal.append(Stream("stdout", f"{number}\n"))
    assert disk.tries < 10
    assert texts(path) == []
    disk.is_full = False
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    journal._retry_at = 0.0
    journal.append(Stream("stdout", "room\n"))
    assert texts(path) == [*(f"{number}\n" for number in range(1000)), "room\n"]
    assert not journal.is_held
    journal.append(DONE)
    journal.close()
    assert read_done(str(path)) == DONE


def test_what_neither_disk_nor_memory_can_take_is_counted_and_what_comes_later_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(module, "HELD_BYTES", 500)
    path = tmp_path / "1.jsonl"
    journal = Journal(str(path))
    disk.is_full = True
    for _ in range(20):
        journal.append(Stream("stdout", "y" * 100))
    assert journal.lost_bytes > 1000
    disk.is_full = False
    journal._retry_at = 0.0
    journal.append(Stream("stdout", "later"))
    journal.append(Stream("stdout", "last"))
    journal.append(DONE)
    given = asyncio.run(followed(journal))
    journal.close()
    assert given == path.read_bytes()
    assert texts(path)[-1] == "last"
    done = read_done(str(path))
    assert done
    assert f"{journal.lost_bytes} bytes of what it gave are lost" in done.message


def test_end_of_a_journal_is_known_only_from_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    journal = Journal(str(path))
    journal.append(Started(1.0))
    assert read_done(str(path)) is None
    journal.append(DONE)
    journal.close()
    assert read_done(str(path)) == DONE
    path.write_bytes(path.read_bytes()[:-4])
    assert read_done(str(path)) is None


def test_reader_gets_every_line_once_though_a_full_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> bytes:
        journal = Journal(str(tmp_path / "1.jsonl"))
        journal.append(Stream("stdout", "first"))
        got = bytearray()

        async def read() -> None:
            async for piece in journal.follow():
                got.extend(piece)

        async def read_all_of(count: int) -> None:
            while got.count(b"\n") < count:
                await asyncio.sleep(0)

        reading = asyncio.ensure_future(read())
        await read_all_of(1)
        with monkeypatch.context() as full:
            full.setattr(journal, "_write", lambda parts: False)
            journal.append(Stream("stdout", "second"))
            await read_all_of(2)
        journal._retry_at = 0.0
        journal.append(Stream("stdout", "third"))
        journal.append(Done("ok", 1.0))
        await asyncio.wait_for(reading, 10)
        journal.close()
        return bytes(got)

    found = asyncio.run(asyncio.wait_for(run(), 30))
    assert found == (tmp_path / "1.jsonl").read_bytes()
    assert [found.count(word) for word in (b'"first"', b'"second"', b'"third"')] == [1, 1, 1]
