"""Programs that read kernel.json run a remote kernel without knowing it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pexpect
import pytest

from tests.support.kernels import options_for, write_kernelspec
from tests.support.servers import Server


@pytest.fixture
def installed(
    target: Server, ssh_config: Path, remote_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Install a kernelspec where Jupyter looks first, and return its name.

    To a kernelspec of this name nbclient, and with it nbconvert and papermill, adds an argument of ipykernel's.
    """
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return write_kernelspec(tmp_path / "kernels", "python3", options_for("target", ssh_config, remote_python)).name


@pytest.mark.over_both
def test_nbclient_runs_a_notebook_file(installed: str, tmp_path: Path, target: Server) -> None:
    cells = [
        "import getpass, os\nx = 20\nprint(getpass.getuser())",
        "from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))\nx + 1",
        "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
        "raise ValueError('allowed')",
        "try:\n    input()\nexcept Exception as error:\n    print(type(error).__name__)",
        "x + 22, get_ipython().history_manager.hist_file",
    ]
    path = tmp_path / "notebook.ipynb"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": installed, "display_name": "Far"}},
    )
    nbformat.write(notebook, path)

    done = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        done, timeout=30, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    user, shown, plot, error, refused, last = (cell.outputs for cell in done.cells)
    assert user[0].text == f"{target.user}\n"
    assert shown[0].data["text/html"] == "<b>bold</b>"
    assert shown[1].data["text/plain"] == "21"
    assert "image/png" in plot[0].data
    assert error[0].ename == "ValueError"
    assert refused[0].text == "StdinNotImplementedError\n"
    assert last[0].data["text/plain"] == "(42, ':memory:')"
    nbformat.validate(done)


def test_nbclient_stops_at_an_error(installed: str, tmp_path: Path) -> None:
    cells = ["1 / 0", "print('not reached')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=30, kernel_name=installed)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        client.execute()

    assert notebook.cells[1].outputs == []


def test_jupyter_console_answers(installed: str, target: Server) -> None:
    # No jupyter on PATH is needed: the console is run as the module that it is.
    console = pexpect.spawn(
        sys.executable,
        ["-m", "jupyter_console", "--kernel", installed, "--simple-prompt"],
        env={**os.environ, "TERM": "dumb", "PYTHONWARNINGS": "ignore"},
        encoding="utf-8",
        timeout=60,
        echo=False,
    )
    try:
        console.expect(r"In \[1\]:")
        console.sendline("import getpass; print('user', getpass.getuser(), 1 + 1)")
        console.expect(f"user {target.user} 2")
        console.expect(r"In \[2\]:")
        console.sendline("exit")
        console.expect(pexpect.EOF)
        console.wait()
        assert console.exitstatus == 0
    finally:
        console.close(force=True)
