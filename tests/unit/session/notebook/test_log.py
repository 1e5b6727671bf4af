"""The notebook log: valid at every instant, shared with people who edit it, and never in its caller's way."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from remote_kernel.session.events import Display, Done, Event, Started, Stream, Update
from remote_kernel.session.notebook.log import LogFacts, NotebookLog
from remote_kernel.session.notebook.nbformat import NotebookError
from tests.support.kernels import wait_until

FACTS = LogFacts("train", "gpu1", "remote_cuda", "Remote CUDA", {"name": "python", "version": "3.11.2"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.ipynb"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def log(path: Path, said: list[str]) -> Iterator[NotebookLog]:
    with NotebookLog(path, FACTS, said.append) as opened:
        yield opened


def read(path: Path) -> Any:
    """Give the notebook, which must be valid, and in the very layout that nbformat writes."""
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == text
    return notebook


def run(log: NotebookLog, cell_id: str, code: str, *events: Event, **of_begin: Any) -> None:
    log.begin(cell_id, code, **of_begin)
    for event in events:
        log.add(cell_id, event)
    log.add(cell_id, Done("ok", time.time(), seconds=0.5))


def edit(path: Path, change: Any, version: bytes = b"") -> None:
    """Change the present version, or another one, and write it as JupyterLab's server does: in place."""
    document = json.loads(version or path.read_bytes())
    change(document["cells"])
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": text, "metadata": {}, "source": [text]}


def ids(path: Path) -> list[str]:
    return [cell.id for cell in read(path).cells]


def test_running_cell_is_there_within_a_second_with_what_it_gave(path: Path, log: NotebookLog) -> None:
    log.begin("c1", "print(1)", at=1000.0)
    log.add("c1", Started(1000.5, execution_count=4, generation=2))
    log.add("c1", Stream("stdout", "1\n"))
    began = time.monotonic()

    assert wait_until(lambda: path.exists() and read(path).cells and read(path).cells[0].outputs, 20)
    assert time.monotonic() - began < 5  # 0.5 s on an idle machine
    [cell] = read(path).cells
    assert (cell.id, cell.source, cell.execution_count) == ("c1", "print(1)", 4)
    assert cell.metadata.remote_kernel.verdict == "running"


def test_cell_says_who_ran_it_where_when_and_how_it_ended(path: Path, log: NotebookLog) -> None:
    log.begin("c1", "1", "JupyterLab", 1, 1000.0)
    log.add("c1", Started(1000.25, execution_count=4, generation=2))
    log.add("c1", Done("error", 1002.5, seconds=2.25, execution_count=4, generation=2))
    assert log.flush()

    metadata = read(path).cells[0].metadata
    assert metadata.remote_kernel == {
        "session": "train",
        "host": "gpu1",
        "author": "JupyterLab",
        "generation": 2,
        "start": "1970-01-01T00:16:40.250000Z",
        "end": "1970-01-01T00:16:42.500000Z",
        "duration": 2.25,
        "verdict": "error",
        "message": "",
        "revision": 1,
    }
    assert metadata.execution == {
        "iopub.execute_input": "1970-01-01T00:16:40.250000Z",
        "iopub.status.idle": "1970-01-01T00:16:42.500000Z",
        "shell.execute_reply": "1970-01-01T00:16:42.500000Z",
    }


def test_notebook_says_what_kernel_it_is_of(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    log.flush()
    log.describe(FACTS._replace(language_info={"name": "python", "version": "3.12.0"}))
    assert log.flush()

    metadata = read(path).metadata
    assert metadata.kernelspec == {"name": "remote_cuda", "display_name": "Remote CUDA", "language": "python"}
    assert metadata.language_info == {"name": "python", "version": "3.12.0"}
    assert metadata.remote_kernel.sessions.train.host == "gpu1"


def test_verdict_that_the_outputs_do_not_tell_is_an_output(path: Path, log: NotebookLog) -> None:
    log.begin("c1", "1")
    log.add("c1", Done("lost", time.time(), "the kernel died: out of memory"))
    assert log.flush()

    assert read(path).cells[0].outputs[0].text == "[the kernel died: out of memory]\n"


def test_what_is_no_unicode_and_no_json_leaves_a_valid_file(path: Path, log: NotebookLog) -> None:
    data: dict[str, Any] = {"text/plain": 7, "application/x+json": {"a": float("nan")}, "text/html": "\udfff"}
    events = [Stream("stdout", "\ud83d"), Stream("stdout", "\ude00 \ud800"), Display(data, {})]
    run(log, "c1", "'\ud800'", *events)
    assert log.flush()

    text, display = read(path).cells[0].outputs
    assert text.text == "😀 \ufffd"
    assert display.data == {"text/plain": "7", "application/x+json": {"a": None}, "text/html": "\ufffd"}


def test_update_reaches_a_cell_that_has_ended(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1", Stream("stdout", "x"), Display({"text/plain": "old"}, {}, "d"))
    assert log.flush()
    log.begin("c2", "2")
    for number in range(1000):
        log.add("c2", Update("d", {"text/plain": str(number)}, {}))
    assert log.flush()

    assert read(path).cells[0].outputs[1].data == {"text/plain": "999"}


def test_what_comes_after_a_cells_end_stays_with_it(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1", Stream("stdout", "x\n"))
    log.add_after("c1", Stream("stdout", "at once\n"))
    assert log.flush()
    for number in range(3):
        log.add_after("c1", Stream("stderr", f"{number}\n"))
        assert log.flush()
    before = path.stat().st_ino
    log.add_after("unknown", Stream("stdout", "nowhere"))
    assert log.flush()
    assert path.stat().st_ino == before  # it was not written anew
    log.add_after("c1", Display({"text/plain": "old"}, {}, "d"))
    assert log.flush()
    log.add_after("c1", Update("d", {"text/plain": "new"}, {}))
    assert log.flush()

    (cell,) = read(path).cells
    assert [output.get("text") for output in cell.outputs] == ["x\nat once\n", "0\n1\n2\n", None]
    assert cell.outputs[2].data == {"text/plain": "new"}


def test_what_comes_after_the_ends_of_many_cells_and_a_persons_edits_loses_nothing(
    path: Path, log: NotebookLog
) -> None:
    for number in range(120):
        run(log, f"c{number}", f"{number}", Stream("stdout", "x\n"))
    assert log.flush()

    def clear(cells: list[Any]) -> None:
        cells[7]["outputs"] = []
        cells[8] = markdown("text")

    for text in ("a", "b"):
        for number in range(120):
            log.add_after(f"c{number}", Stream("stdout", f"{text}{number}\n"))
        assert log.flush()
    edit(path, clear)
    for number in range(120):
        log.add_after(f"c{number}", Stream("stdout", f"c{number}\n"))
    assert log.flush()

    cells = read(path).cells
    for number in {*range(120)} - {7, 8}:
        text = "".join(output.text for output in cells[number].outputs)
        assert text == f"x\na{number}\nb{number}\nc{number}\n"
    assert "".join(output.text for output in cells[7].outputs).endswith("c7\n")


def test_edits_of_a_person_are_kept(path: Path, log: NotebookLog) -> None:
    for number in range(4):
        run(log, f"c{number}", f"{number}", Stream("stdout", f"{number}"))
    log.begin("busy", "sleep()")
    assert log.flush()

    def change(cells: list[Any]) -> None:
        cells[0]["source"] = ["mine"]
        cells[1]["outputs"] = []
        cells[1]["metadata"]["tags"] = ["keep"]
        del cells[2]
        cells[3]["source"] = ["sleep()  # why?"]
        cells[1], cells[2] = cells[2], cells[1]
        cells.insert(0, markdown("title"))

    edit(path, change)
    log.add("busy", Stream("stdout", "done"))
    run(log, "new", "5")
    assert log.flush()

    notebook = read(path)
    assert [cell.id for cell in notebook.cells] == ["title", "c0", "c3", "c1", "busy", "new"]
    by_id = {cell.id: cell for cell in notebook.cells}
    assert by_id["c0"].source == "mine" and by_id["c0"].outputs[0].text == "0"
    assert by_id["c1"].outputs == [] and by_id["c1"].metadata.tags == ["keep"]
    assert by_id["busy"].source == "sleep()  # why?" and by_id["busy"].outputs[0].text == "done"


def test_file_saved_from_an_older_version_loses_no_newer_cell(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    log.begin("c2", "2")
    assert log.flush()
    older = path.read_bytes()
    log.add("c2", Stream("stdout", "late"))
    log.add("c2", Done("ok", time.time()))
    run(log, "c3", "3")
    assert log.flush()

    edit(path, lambda cells: cells.pop(0), older)
    run(log, "c4", "4")
    assert log.flush()

    assert ids(path) == ["c2", "c3", "c4"]
    assert read(path).cells[0].outputs[0].text == "late"


def test_running_cell_cannot_be_removed_but_an_ended_one_stays_removed(path: Path, log: NotebookLog) -> None:
    log.begin("c1", "1")
    assert log.flush()
    edit(path, lambda cells: cells.clear())
    log.add("c1", Stream("stdout", "x"))
    assert log.flush()
    assert ids(path) == ["c1"]

    log.add("c1", Done("ok", time.time()))
    assert log.flush()
    edit(path, lambda cells: cells.clear())
    run(log, "c2", "2")
    assert log.flush()
    assert ids(path) == ["c2"]


def test_cell_that_a_person_ran_in_this_notebook_is_there_once(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    assert log.flush()
    mine = {"cell_type": "code", "id": "own", "metadata": {}, "source": ["6 * 7"], "outputs": [], "execution_count": 2}
    saved = path.read_bytes()
    run(log, "c2", "6 * 7", Started(time.time(), execution_count=2), author="JupyterLab")
    assert log.flush()
    edit(path, lambda cells: cells.append(mine), saved)
    run(log, "c3", "3")
    assert log.flush()

    assert ids(path) == ["c1", "own", "c3"]


def test_image_and_widget_are_kept_in_the_layout_of_nbformat(path: Path, log: NotebookLog) -> None:
    widget = {"model_id": "1", "version_major": 2, "version_minor": 0}
    data = {
        "image/png": "iVBOR\n",
        "image/svg+xml": "<svg>\n</svg>",
        "application/vnd.jupyter.widget-view+json": widget,
    }
    run(log, "c1", "1", Display(data, {"image/png": {"width": 3}}))
    assert log.flush()

    [display] = read(path).cells[0].outputs
    assert display.data == data and display.metadata == {"image/png": {"width": 3}}


def test_what_breaks_the_writing_of_one_version_does_not_end_the_log(
    path: Path, log: NotebookLog, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("remote_kernel.session.notebook.merge.MergedNotebook.encode", lambda notebook: 1 / 0)
        run(log, "c1", "1")
        assert not log.flush(1)
    assert len(said) == 1 and "ZeroDivisionError" in said[0]
    run(log, "c2", "2")

    assert log.flush(20)
    assert ids(path) == ["c1", "c2"]


def test_save_into_the_file_that_has_just_been_replaced_is_not_lost(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    assert log.flush()
    with path.open("r+b") as slow:
        document = json.loads(slow.read())
        run(log, "c2", "2")
        assert log.flush()
        document["cells"].append(markdown("late"))
        slow.seek(0)
        slow.truncate()
        slow.write(json.dumps(document).encode())

    assert wait_until(lambda: "late" in ids(path), 20)
    assert sorted(ids(path)) == ["c1", "c2", "late"]


def test_half_written_file_is_waited_for(path: Path, log: NotebookLog, said: list[str]) -> None:
    run(log, "c1", "1")
    assert log.flush()
    document = json.loads(path.read_bytes())
    document["cells"].append(markdown("whole"))
    text = json.dumps(document)
    path.write_text(text[: len(text) // 2])
    run(log, "c2", "2")
    assert not log.flush(1)
    path.write_text(text)

    assert log.flush()
    assert ids(path) == ["c1", "whole", "c2"]
    assert said == []


def test_what_is_no_notebook_is_moved_aside(
    path: Path, log: NotebookLog, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote_kernel.session.notebook.writer._SETTLE_SECONDS", 0.5)
    run(log, "c1", "1")
    assert log.flush()
    path.write_text("<<<<<<< HEAD")
    run(log, "c2", "2")
    assert log.flush()

    aside = path.with_name(".train.ipynb.damaged-1")
    assert aside.read_text() == "<<<<<<< HEAD"
    assert str(aside) in said[0] and len(said) == 1
    assert ids(path) == ["c1", "c2"]


def test_removed_file_comes_back_whole(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    assert log.flush()
    path.unlink()
    run(log, "c2", "2")
    assert log.flush()

    assert ids(path) == ["c1", "c2"]


def test_missing_folder_is_told_once_and_made_up_for(path: Path, log: NotebookLog, said: list[str]) -> None:
    run(log, "c1", "1")
    assert log.flush()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    for number in range(3):
        run(log, f"d{number}", "2")
        assert not log.flush(0.3)
    assert len(said) == 1 and "cannot be written" in said[0]
    away.rename(path.parent)

    assert log.flush(20)
    assert ids(path) == ["c1", "d0", "d1", "d2"]
    assert wait_until(lambda: len(said) == 2, 10) and "complete" in said[1]


@pytest.fixture
def small_disk(path: Path) -> Iterator[Path]:
    """Put the log's folder on a file system of one megabyte, and give the folder."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(path.parent)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small file system here: {done.stderr.decode().strip()}")
    yield path.parent
    subprocess.run(["umount", str(path.parent)], check=True)


def test_full_disk_is_told_once_and_made_up_for(small_disk: Path, path: Path, said: list[str]) -> None:
    with NotebookLog(path, FACTS, said.append) as log:
        run(log, "c1", "1")
        assert log.flush()
        hog = small_disk / "hog"
        with contextlib.suppress(OSError):
            hog.write_bytes(bytes(2 << 20))
        for number in range(3):
            run(log, f"d{number}", "2", Stream("stdout", "x" * 20_000))
            assert not log.flush(0.3)
        assert ids(path) == ["c1"] and sorted(os.listdir(small_disk)) == ["hog", path.name]
        assert said == [f"the notebook {path} cannot be written: No space left on device; it will be tried again"]
        hog.unlink()
        assert log.flush(20)

    assert ids(path) == ["c1", "d0", "d1", "d2"]


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log look at its file more often while it has nothing to write."""
    monkeypatch.setattr("remote_kernel.session.notebook.writer._LOOK_SECONDS", (0.3,))


@pytest.mark.usefixtures("quick_looks")
def test_person_saves_an_older_version_while_nothing_happens(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    log.begin("busy", "sleep()")
    assert log.flush()
    older = path.read_bytes()
    run(log, "c2", "2")
    assert log.flush()
    edit(path, lambda cells: cells.pop(), older)

    assert wait_until(lambda: ids(path) == ["c1", "busy", "c2"], 20)


@pytest.mark.usefixtures("quick_looks")
def test_version_of_a_person_that_lacks_nothing_is_left_as_it_is(path: Path, log: NotebookLog) -> None:
    run(log, "c1", "1")
    assert log.flush()
    edit(path, lambda cells: cells.insert(0, markdown("title")))
    before = path.stat()
    looks = log._looks

    assert wait_until(lambda: log._looks >= looks + 2, 20)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    run(log, "c2", "2")
    assert log.flush()
    assert ids(path) == ["title", "c1", "c2"]


def test_log_of_an_earlier_host_process_goes_on(path: Path) -> None:
    with NotebookLog(path, FACTS) as log:
        run(log, "c1", "1", Stream("stdout", "x"))
        log.begin("c2", "2")
    with NotebookLog(path, FACTS) as log:
        run(log, "c2", "2", Stream("stdout", "y"))
        run(log, "c3", "3")

    cells = read(path).cells
    assert [cell.id for cell in cells] == ["c1", "c2", "c3"]
    assert [cell.metadata.remote_kernel.verdict for cell in cells] == ["ok", "ok", "ok"]
    assert [cell.outputs[0].text for cell in cells[:2]] == ["x", "y"]


def test_notebook_of_a_person_is_added_to(path: Path) -> None:
    theirs = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("mine", id="mine")])
    theirs.metadata.kernelspec = {"name": "own", "display_name": "Own"}
    del theirs.cells[0]["id"]
    theirs.nbformat_minor = 4
    path.write_text(nbformat.writes(theirs))
    path.chmod(0o640)
    with NotebookLog(path, FACTS) as log:
        run(log, "c1", "1")

    notebook = read(path)
    assert [cell.source for cell in notebook.cells] == ["mine", "1"]
    assert notebook.metadata.kernelspec.name == "own"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", ["{", "[]", '{"cells": [], "nbformat": 5}', '{"worksheets": [], "nbformat": 3}'])
def test_file_that_is_no_notebook_is_refused(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(NotebookError, match="cannot log to"):
        NotebookLog(path, FACTS).open()
    assert path.read_text() == content


def test_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="No such file"):
        NotebookLog(tmp_path / "no" / "a.ipynb", FACTS).open()


def test_cell_id_that_nbformat_refuses_is_refused(log: NotebookLog) -> None:
    with pytest.raises(ValueError, match="cell id"):
        log.begin("a b", "1")


_WRITER = """
import itertools, os, sys, time
from remote_kernel.session.events import Done, Stream
from remote_kernel.session.notebook import writer
from remote_kernel.session.notebook.log import LogFacts, NotebookLog
writer.SHORTEST_PAUSE = writer.URGENT_PAUSE = 0
with NotebookLog(sys.argv[1], LogFacts("train")) as log:
    for number in itertools.count():
        cell = f"{os.getpid()}-{number}"
        log.begin(cell, "x" * 5_000)
        for line in range(100):
            log.add(cell, Stream("stdout", f"{line}\\n" * 100))
        log.add(cell, Done("ok", time.time()))
        log.flush()
"""


def test_reader_sees_a_valid_notebook_whenever_the_writer_is_killed(path: Path) -> None:
    cells = 0
    for kill in range(4):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)])
        try:
            assert wait_until(lambda before=cells: path.exists() and len(read(path).cells) > before + 1, 30)
            deadline = time.monotonic() + 0.03 * kill
            while time.monotonic() < deadline:
                cells = len(read(path).cells)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait(10)
        assert len(read(path).cells) >= cells
    with NotebookLog(path, FACTS):
        pass

    assert os.listdir(path.parent) == [path.name]


def test_five_thousand_cells_do_not_slow_the_caller(path: Path, log: NotebookLog) -> None:
    def seconds(numbers: range) -> float:
        began = time.thread_time()
        for number in numbers:
            run(log, f"c{number}", "print(1)", Started(1.0, number), Stream("stdout", "1\n" * 200))
        return time.thread_time() - began

    gc.collect()
    gc.freeze()  # a collection of all that pytest has in memory would count as the caller's time
    try:
        first = seconds(range(500))
        seconds(range(500, 4500))
        last = seconds(range(4500, 5000))
    finally:
        gc.unfreeze()
    assert log.flush(60)

    assert len(json.loads(path.read_bytes())["cells"]) == 5000
    assert last < 3 * first + 0.5, f"{first} s for the first 500 cells, {last} s for the last"


def test_idle_log_uses_no_cpu(log: NotebookLog) -> None:
    run(log, "c1", "1")
    assert log.flush()
    assert wait_until(lambda: not log._file._replaced >= 0, 20)
    before = time.process_time()
    time.sleep(0.5)  # there is nothing to wait for: nothing is to happen

    assert time.process_time() - before < 0.2
