"""Output of every size, a reader that does not read, and a disk that is full."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernels import wait_until
from tests.support.rkernel import Rkernel, finish


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (20_000, 100),
        (4, 1_000_000),
        pytest.param(500_000, 100, marks=pytest.mark.nightly),
        pytest.param(50, 1_000_000, marks=pytest.mark.nightly),
    ],
)
def test_text_of_any_size_arrives_whole(shared: Rkernel, count: int, size: int) -> None:
    line = "x" * (size - 8)
    said = shared.exec(f"for i in range({count}): print(f'{{i:07d}}' + 'x' * {size - 8})", "--budget", "0", seconds=110)
    assert said.status == 0
    assert said.out == "".join(f"{i:07d}{line}\n" for i in range(count))


def test_code_of_5_mb_runs(shared: Rkernel) -> None:
    said = shared("exec", text="text = '''" + "y" * 5_000_000 + "'''\nlen(text)")
    assert (said.status, said.out) == (0, "5000000\n")


def test_large_image_is_a_file(shared: Rkernel) -> None:
    code = "import os\nfrom IPython.display import Image\ndata = b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(4_000_000)"
    said = shared.exec(f"{code}\nImage(data=data, format='png')")
    assert said.status == 0
    (path,) = [path for path in shared.place("files").iterdir() if path.suffix == ".png"]
    assert str(path) in said.out
    assert path.stat().st_size == 4_000_008


def test_many_updates_of_one_display_end_in_the_last(shared: Rkernel) -> None:
    said = shared.exec("h = display(0, display_id=True)\nfor i in range(3000): h.update(i)")
    assert said.status == 0
    assert said.out.splitlines()[-1] == "2999"
    assert len(said.out.splitlines()) < 3000


def test_text_that_is_no_text_is_shown(shared: Rkernel) -> None:
    code = "import os\nprint('\\x1b[2J' * 1000 + '\\x00|\\x1b[31mred\\x1b[0m|')\nos.write(1, b'\\xff\\xfe|\\n');"
    said = shared.exec(code)
    assert said.status == 0
    assert "|red|" in said.out
    assert "\x1b" not in said.out


def test_host_stays_small_while_a_client_does_not_read(shared: Rkernel) -> None:
    host = shared.host()
    before = host.memory_info().rss
    known = set(shared.place("cells").glob("*.jsonl"))
    client = shared.start("exec", "--budget", "0", "-c", "for i in range(40): print('z' * 1_000_000)\nprint('end')")
    assert wait_until(lambda: set(shared.place("cells").glob("*.jsonl")) - known)
    client.send_signal(signal.SIGSTOP)
    try:
        (journal,) = set(shared.place("cells").glob("*.jsonl")) - known
        assert wait_until(lambda: "end" in shared("tail", journal.stem).out, 60)
        assert host.memory_info().rss - before < 100 << 20
    finally:
        client.send_signal(signal.SIGCONT)
    said = finish(client)
    assert said.status == 0
    assert len(said.out) == 40 * 1_000_001 + 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of 2 MB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a disk")
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(folder)], check=True, timeout=30)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


def test_full_disk_ends_no_cell(small_disk: Path, alone: Rkernel) -> None:
    alone.open()
    said = alone.exec("for i in range(30): print('w' * 99_999)", "--budget", "0")
    assert said.status == 0
    assert len(said.out) == 3_000_000
    assert alone("wait", "--budget", "0").out == said.out
    with full(small_disk):
        said = alone.exec("print('one')\n1 / 0")
        assert (said.status, said.out) == (1, "one\n")
        assert alone.exec("print('w' * 20000)").status == 0
        assert alone.exec("print('w' * 20000)", "--budget", "0").out == "w" * 20000 + "\n"
    assert alone.exec("6 * 7").out == "42\n"


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no room on a folder's disk inside the block."""
    path = folder / "fill"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, b"0" * size)
        yield
    finally:
        os.close(fd)
        path.unlink()
