"""What a real kernel sends, as a reader gets it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from remote_kernel.session.events import Clear, Display, Done, Error, Event, Stream, Update
from remote_kernel.session.render import make_renderer
from remote_kernel.session.render.view import View

SECONDS = 60


@pytest.fixture(scope="module")
def kernel() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def event_of(kind: str, content: dict[str, Any]) -> Event | None:
    """Return the event that a message on iopub stands for."""
    name = content.get("transient", {}).get("display_id", "")
    if kind == "stream":
        return Stream(content["name"], content["text"])
    if kind in ("display_data", "execute_result"):
        return Display(content["data"], content["metadata"], name, kind == "execute_result")
    if kind == "update_display_data":
        return Update(name, content["data"], content["metadata"])
    if kind == "clear_output":
        return Clear(content["wait"])
    if kind == "error":
        return Error(content["ename"], content["evalue"], tuple(content["traceback"]))
    return None


@pytest.fixture
def run(kernel: BlockingKernelClient, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    def run(code: str, **options: Any) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        files, path = str(tmp_path / "files"), str(tmp_path / "output.txt")
        renderer = make_renderer("text", out, err, View(files=files, output_file=path, **options))
        sent = kernel.execute(code)
        deadline = time.monotonic() + SECONDS
        while True:
            message = kernel.get_iopub_msg(timeout=deadline - time.monotonic())
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["content"].get("execution_state") == "idle":
                break
            if event := event_of(message["msg_type"], message["content"]):
                renderer.feed(event)
        renderer.feed(Done("ok", 0.0))
        return out.getvalue(), err.getvalue()

    return run


def test_traceback_through_a_library_is_a_few_lines(run: Callable[..., tuple[str, str]]) -> None:
    _, err = run("import json\ndef read(text):\n    return json.loads(text)\n\nread('{bad')")

    assert "return json.loads(text)" in err
    assert "2 frames in json left out" in err
    assert "json/decoder.py:" in err and "scan_once" in err
    assert err.splitlines()[-1].startswith("JSONDecodeError: Expecting property name")
    assert len(err.splitlines()) < 20 and "\x1b" not in err


def test_full_traceback_has_the_librarys_frames(run: Callable[..., tuple[str, str]]) -> None:
    _, err = run("import json; json.loads('{bad')", full_traceback=True)

    assert "_default_decoder.decode(s)" in err and "left out" not in err


def test_deep_recursion_is_short(run: Callable[..., tuple[str, str]]) -> None:
    _, err = run("def f(n): return f(n - 1) if n else 1 / 0\nf(60)")

    assert "the same frame 60 more times" in err
    assert len(err.splitlines()) < 15


@pytest.mark.parametrize("code", ["x = = 1", "raise SystemExit(3)", "%%nope\nx", "%%bash\nexit 3", "exec('1/0')"])
def test_every_failure_ends_in_its_message(run: Callable[..., tuple[str, str]], code: str) -> None:
    _, err = run(code)

    assert len(err.splitlines()) < 40
    assert any(word in err for word in ("SyntaxError", "SystemExit", "nope", "exit status 3", "ZeroDivisionError"))


def test_plot_is_a_file(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    out, _ = run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.show()")

    (path,) = (tmp_path / "files").iterdir()
    assert out.splitlines()[-1].startswith("[image/png ") and out.rstrip().endswith(f"{path}]")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_updates_and_clears_leave_the_last_state(run: Callable[..., tuple[str, str]]) -> None:
    code = """
    from IPython.display import clear_output, display
    shown = display("0 of 300", display_id=True)
    for step in range(301):
        shown.update(f"{step} of 300")
    """
    assert run(code)[0] == "'0 of 300'\n'300 of 300'\n"

    code = "for step in range(300):\n    clear_output(wait=True)\n    print(step)"
    assert run(code)[0] == "299\n"


def test_progress_bar_in_a_terminal_of_a_shell_command_is_one_line(run: Callable[..., tuple[str, str]]) -> None:
    out, _ = run("!for i in 1 2 3; do printf '\\r\\033[K\\033[32m%s of 3\\033[0m' $i; done; echo")

    assert out == "3 of 3\n"


def test_flood_with_an_exception_at_its_end_shows_both(run: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    out, err = run("for i in range(50_000): print('line', i)\n1 / 0")

    assert len(out) < 8300 and out.startswith("line 0\n") and out.endswith("line 49999\n")
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert (tmp_path / "output.txt").read_text() == "".join(f"line {number}\n" for number in range(50_000))


def test_text_that_is_no_utf_8_passes(run: Callable[..., tuple[str, str]]) -> None:
    # A lone surrogate that stands for a byte; ipykernel cannot send others.
    out, _ = run("print('a\\udcffb', 'é')\n!printf 'c\\377d\\n'")

    first, second = out.encode("utf-8", "backslashreplace").decode().splitlines()
    assert first.startswith("a") and first.endswith("b é")
    assert second.startswith("c") and second.endswith("d")
