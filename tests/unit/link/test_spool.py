"""The queue of bytes that waits for a laptop: the same bytes come out, whatever of it is in memory or on disk."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from remote_kernel.link import spool as module
from remote_kernel.link.spool import Spool

MEMORY, REFILL = 64, 16


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file come into play after 64 bytes in place of eight million."""
    monkeypatch.setattr(module, "MEMORY_BYTES", MEMORY)
    monkeypatch.setattr(module, "REFILL_BYTES", REFILL)
    monkeypatch.setattr(module, "SPARE_BYTES", 8)
    monkeypatch.setattr(module, "SMALL_BYTES", 8)


def drain(spool: Spool, step: int = 10) -> bytes:
    """Take everything out, in pieces."""
    out = b""
    while len(spool):
        piece = spool.read(spool.base, step)
        assert piece
        out += piece
        spool.release(spool.base + len(piece))
    return out


class SpoolMachine(RuleBasedStateMachine):
    """Compare a spool with a plain bytearray."""

    @initialize(file=st.booleans(), limit=st.integers(100, 1000))
    def start(self, file: bool, limit: int) -> None:
        self.spool = Spool(limit, ("/tmp",) if file else ())
        self.model = bytearray()
        self.base = self.counter = 0

    @rule(size=st.integers(1, 200))
    def append(self, size: int) -> None:
        data = bytes((self.counter + i) % 251 for i in range(size))
        self.counter += size
        self.spool.append(data)
        self.model += data

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        if self.model:
            count = data.draw(st.integers(0, min(len(self.model), MEMORY - REFILL)))
            self.spool.release(self.base + count)
            del self.model[:count]
            self.base += count

    @rule(data=st.data(), count=st.integers(0, 100))
    def read(self, data: Any, count: int) -> None:
        start = data.draw(st.integers(0, min(len(self.model), MEMORY - REFILL)))
        found = self.spool.read(self.base + start, count)
        assert found == self.model[start : start + len(found)]
        assert found or not count or start >= min(len(self.model), MEMORY - REFILL)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "spool"):
            assert len(self.spool) == len(self.model)
            assert (self.spool.base, self.spool.end) == (self.base, self.base + len(self.model))
            assert not self.spool.full or len(self.model) >= 64

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert drain(self.spool) == self.model
            assert not self.spool.full
            self.spool.close()


def test_a_spool_gives_back_what_a_bytearray_would() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(SpoolMachine, settings=settings(max_examples=150, stateful_step_count=30, deadline=None))


def test_the_file_has_no_name_and_its_space_is_given_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    spool = Spool(10_000, (str(tmp_path),))
    spool.append(b"a" * MEMORY)
    spool.append(b"b" * 1000)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert list(tmp_path.iterdir()) == []
    assert drain(spool) == b"a" * MEMORY + b"b" * 1000
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_file_does_not_outgrow_the_limit_when_it_is_never_empty(tmp_path: Path) -> None:
    """A reader that is slower than the kernel for a day must not fill the disk."""
    spool = Spool(2000, (str(tmp_path),))
    sent = got = b""
    for n in range(400):
        data = bytes([n % 251]) * 100
        if not spool.full:
            spool.append(data)
            sent += data
        if n > 15:
            piece = spool.read(spool.base, 50)
            got += piece
            spool.release(spool.base + len(piece))
    assert os.fstat(spool._fd).st_size <= 2000 + 200
    assert got + drain(spool) == sent


@pytest.mark.parametrize("folders", [("/nowhere",), ("/proc",), ("/nowhere", "/proc/1")])
def test_a_folder_that_takes_no_file_is_a_limit_that_is_reached(folders: tuple[str, ...]) -> None:
    spool = Spool(10_000, folders)
    spool.append(b"a" * MEMORY)
    assert not spool.full
    spool.append(b"b" * 100)
    assert spool.full
    assert drain(spool) == b"a" * MEMORY + b"b" * 100
    assert not spool.full


def test_the_next_folder_is_taken_when_the_first_takes_no_file(tmp_path: Path) -> None:
    spool = Spool(10_000, ("/nowhere", str(tmp_path)))
    spool.append(b"a" * MEMORY)
    spool.append(b"b" * 100)
    assert not spool.full
    spool.close()


def test_a_disk_that_fills_up_pushes_back_and_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.pwrite, [150]

    def pwrite(fd: int, data: Any, offset: int) -> int:  # a fake: takes what is left, then no more
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        written = real(fd, bytes(data)[: left[0]], offset)
        left[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    spool = Spool(10_000, (str(tmp_path),))
    data = [bytes([n]) * 100 for n in range(5)]
    for piece in data[:4]:
        spool.append(piece)
    assert spool.full
    assert drain(spool) == b"".join(data[:4])
    assert not spool.full
    left[0] = 1000
    spool.append(data[4] * 2)
    spool.append(data[4])
    assert not spool.full
    assert drain(spool) == data[4] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a file system of one megabyte."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small file system here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_full_disk_pushes_back(small_disk: Path) -> None:
    spool = Spool(100 << 20, (str(small_disk),))
    sent = b""
    while not spool.full:
        data = os.urandom(100_000)
        spool.append(data)
        sent += data
    assert (1 << 20) - 100_000 < len(sent) < (1 << 20) + 200_000
    assert drain(spool, 5000) == sent
    spool.append(b"c" * 1000)
    assert not spool.full
    spool.close()


def test_a_file_size_limit_pushes_back(tmp_path: Path) -> None:
    """`ulimit -f`, as batch systems set it: the write is refused, and SIGXFSZ must not kill (Python ignores it)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        spool = Spool(100_000, (str(tmp_path),))
        for _ in range(20):
            spool.append(b"x" * 100)
        assert spool.full
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert drain(spool) == b"x" * 2000
