"""Output of every size, a reader that does not read, and a disk that is full."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernels import wait_until
from tests.support.rkernel import Rkernel, finish

# A comm of 8 MB, as a widget makes, and a display with buffers.
BUFFERS = """
from ipykernel.comm import Comm
Comm(target_name='nobody', data={}, buffers=[bytes(8_000_000)])
kernel = get_ipython().kernel
content = {'data': {'text/plain': 'with buffers'}, 'metadata': {}, 'transient': {}}
kernel.session.send(kernel.iopub_socket, 'display_data', content, kernel.get_parent(), buffers=[bytes(8_000_000)]);
"""


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


@pytest.mark.parametrize("size", [4_000_000, pytest.param(40_000_000, marks=pytest.mark.nightly)])
def test_large_image_is_a_file(shared: Rkernel, size: int) -> None:
    code = f"import os\nfrom IPython.display import Image\ndata = b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom({size})"
    known = set(shared.place("files").glob("*.png"))
    said = shared.exec(f"{code}\nImage(data=data, format='png')")
    assert said.status == 0
    (path,) = set(shared.place("files").glob("*.png")) - known
    assert str(path) in said.out
    assert path.stat().st_size == size + 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives back what it likes")
def test_memory_of_much_output_is_given_back(alone: Rkernel) -> None:
    alone.open()
    host = alone.host()
    before = host.memory_info().rss
    assert alone.exec("for _ in range(2000): print('x' * 100_000, flush=True)", "--budget", "100").status == 0
    assert wait_until(lambda: host.memory_info().rss - before < 40 << 20), host.memory_info().rss - before


def test_binary_buffers_disturb_nobody(shared: Rkernel) -> None:
    said = shared.exec(BUFFERS, "--jsonl")
    assert said.status == 0, said
    events = [json.loads(line) for line in said.out.splitlines()]
    (shown,) = [event for event in events if event["event"] == "display"]
    assert shown["data"]["text/plain"] == "with buffers"
    assert Path(shown["data"]["application/vnd.remote-kernel.buffers+json"]["path"]).stat().st_size > 8_000_000
    assert shared.exec("'usable'").out == "'usable'\n"


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_many_updates_of_one_display_end_in_the_last(shared: Rkernel, count: int) -> None:
    said = shared.exec(f"h = display(0, display_id=True)\nfor i in range({count}): h.update(i)", seconds=300)
    assert said.status == 0
    assert said.out.splitlines()[-1] == str(count - 1)
    assert len(said.out.splitlines()) < count


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.nightly)])
def test_progress_bar_is_its_last_state(shared: Rkernel, seconds: int) -> None:
    bar = f"from tqdm import tqdm\nimport time\nfor _ in tqdm(range({100 * seconds}), mininterval=0): time.sleep(0.01)"
    said = shared.exec(bar, seconds=60 + 3 * seconds)
    assert (said.status, said.out) == (0, "")
    (line,) = said.err.splitlines()
    assert line.startswith("100%|") and f"{100 * seconds}/{100 * seconds}" in line


def test_progress_bar_that_is_a_widget_is_its_last_state(shared: Rkernel) -> None:
    begin = "from tqdm.auto import tqdm\nimport time\nbar = tqdm(range(30), desc='load')"
    said = shared.exec(f"{begin}\nfor _ in bar: time.sleep(0.05)", "--json")
    (display,) = json.loads(said.out)["displays"]
    assert re.fullmatch(r"load: 100% \|█{10}\| 30/30 \[.*it/s\]", display["text"])
    number = json.loads(said.out)["cell"]
    shown = shared("wait", number)
    assert "  0%" in shown.out.splitlines()[0]
    assert shown.out.splitlines()[-1] == display["text"]
    updates = [line for line in shared("wait", number, "--jsonl").out.splitlines() if '"update"' in line]
    assert 1 <= len(updates) <= 4, "thirty changes in 1.5 s"
    assert wait_until(lambda: display["text"] in (shared.folder / "rkernel-work.ipynb").read_text(), 10)


def test_text_that_is_no_text_is_shown(shared: Rkernel) -> None:
    code = "import os\nprint('\\x1b[2J' * 1000 + '\\x00|\\x1b[31mred\\x1b[0m|')\nos.write(1, b'\\xff\\xfe|\\n');"
    said = shared.exec(code)
    assert said.status == 0
    assert "|red|" in said.out
    assert "\x1b" not in said.out


@pytest.mark.parametrize("count", [20_000, pytest.param(2_000_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("flood", ["\\x1b[31m", "\\x1b[2Ka\\r", "\\x1b[A", "\\x1b]0;title\\a", "\\x1b"])
def test_flood_of_control_sequences_leaves_the_text(shared: Rkernel, flood: str, count: int) -> None:
    said = shared.exec(f"print('one\\n' + '{flood}' * {count} + '\\x1b[0m\\ntwo')", seconds=110)
    assert said.status == 0
    assert said.out.startswith("one\n")
    assert said.out.endswith("two\n")
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
    """Yield a folder on a disk of 2 MB."""
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
        said = alone("tail", "--budget", "0")
        assert (said.status, said.out) == (0, "w" * 20000 + "\n"), said
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


def test_log_on_a_full_disk_is_told(small_disk: Path, alone: Rkernel) -> None:
    log = small_disk / "log.ipynb"
    assert alone.exec("0", "-k", "python3", "--log", str(log)).status == 0
    with full(small_disk):
        alone.exec("print('w' * 50_000)")
        assert wait_until(lambda: "No space left on device" in alone.status()["log_trouble"], 30)
        said = alone.exec("6 * 7")
        assert (said.status, said.out) == (0, "42\n")
        assert f"the notebook {log} cannot be written: No space left on device; it will be tried again" in said.err
    assert wait_until(lambda: not alone.status()["log_trouble"], 60)
    assert alone("close", "work").status == 0
    assert "wwww" in log.read_text()
    log.unlink()
