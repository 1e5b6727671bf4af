"""Make the pictures of docs/ anew: `python -m tests.support.pictures [NAME...]`.

Each is what a real JupyterLab or VS Code in a real Chromium shows of kernels behind the tests' SSH servers. Takes about
two minutes. Those of VS Code need `code-server` in PATH.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from remote_kernel.cli.manager import main as manage
from tests.support.account import remote_account
from tests.support.interpreters import KERNEL, environment
from tests.support.isolation import isolated_environment
from tests.support.kernels import wait_until
from tests.support.lab import Page, running_browser, running_lab
from tests.support.rkernel import Rkernel, running_rkernel
from tests.support.servers import Server, running_servers
from tests.support.vscode import Window, running_vscode

DOCS = Path(__file__).parents[2] / "docs"
LARGEST_BYTES = 150_000
_KERNELS = (("gpu1", "Remote CUDA"), ("gpu1", "Project"), ("gpu2", "Remote CUDA on gpu2"))

PLOT = (  # a test runs these cells too
    "# The notebook is here, its kernel is there",
    """\
import getpass, platform

print(f"{getpass.getuser()} on {platform.node()}, Python {platform.python_version()}")""",
    """\
import matplotlib.pyplot as plt
import numpy as np

steps = np.arange(400)
loss = 0.15 + 2.2 * np.exp(-steps / 90) + np.random.default_rng(1).normal(0, 0.06, 400)
smooth = np.convolve(loss, np.ones(21) / 21, "valid")

figure, axes = plt.subplots(figsize=(9.6, 3.6))
axes.plot(steps, loss, color="#bfd0ea", label="each step")
axes.plot(steps[10:-10], smooth, color="#2a5599", linewidth=2, label="mean of 21 steps")
axes.set(xlabel="step", ylabel="loss", xlim=(0, 400), ylim=(0, None))
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)""",
)
_TRAINING = """\
import time

for epoch in range(1, 13):
    print(f"{time.strftime('%H:%M:%S')}  epoch {epoch:2}  loss {2.2 * 0.8**epoch:.3f}", flush=True)
    time.sleep(0.5)"""
_FINISHED = "epoch 12"


class Scene(NamedTuple):
    """What a picture is taken of."""

    page: Page
    target: Server
    folder: Path
    """Where JupyterLab's notebooks are."""


@contextmanager
def scene() -> Iterator[Scene]:
    """Run servers, JupyterLab and a browser, with kernelspecs for the hosts `gpu1` and `gpu2`."""
    with ExitStack() as undo:
        isolation = undo.enter_context(isolated_environment())
        account = undo.enter_context(remote_account())
        servers = undo.enter_context(running_servers(account, isolation.marker))
        config = Path(isolation.home, ".ssh", "config")
        config.parent.mkdir(mode=0o700)
        config.write_text(servers.ssh_config.read_text().replace("Host target", "Host gpu1 gpu2 target"))
        python = environment(*KERNEL)
        for host, name in _KERNELS:
            options = ("--ssh-config", str(config), "--python", str(python))
            assert manage(["add", host, "--name", name, *options, "--no-check"]) == 0
        top = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="rk-pictures-")))
        folder = top / "notebooks"
        folder.mkdir()
        lab = undo.enter_context(running_lab(folder))
        driver = undo.enter_context(running_browser(top / "chromium"))
        resize(driver, 900)
        undo.callback(lab.end_sessions)
        yield Scene(Page(lab, driver), servers.target, folder)


def resize(driver: WebDriver, height: int) -> None:
    """Give the page so many pixels of height."""
    size = {"width": 1400, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


class Shot(NamedTuple):
    """The file's name, the element that is shown, and how many pixels of its height; 0 for all."""

    file: str
    css: str
    height: int = 0


def plot(scene: Scene) -> Iterator[Shot]:
    """A notebook with a plot, in the whole window."""
    page = _notebook(scene, "remote.ipynb", *PLOT)
    page.command("application:toggle-left-area")
    page.choose("Run", "runmenu:run-all")
    page.find(".jp-OutputArea-output img")
    page.wait_for_kernel()
    page.command("notebook:move-cursor-up")
    page.command("notebook:move-cursor-up")
    page.command("docmanager:save")
    yield Shot("jupyterlab.png", ".jp-LabShell")


def menu(scene: Scene) -> Iterator[Shot]:
    """The launcher, and the dialog that asks for a notebook's kernel."""
    scene.page.open()
    scene.page.find(".jp-LauncherCard", "Remote CUDA on gpu2")
    yield Shot("launcher.png", ".jp-Launcher-body", 420)
    page = _notebook(scene, "menu.ipynb", "")
    page.driver.execute_script("window.jupyterapp.commands.execute('notebook:change-kernel')")
    select = page.find(".jp-Dialog select")
    # A list that hangs open is drawn outside the page: show the entries in their place.
    script = """
        const [select] = arguments;
        select.size = select.querySelectorAll('option, optgroup').length;
        for (const box of [select, select.parentElement, select.closest('.jp-Dialog-content')]) {
            for (const [name, value] of [['height', 'auto'], ['max-height', 'none'], ['background-image', 'none']]) {
                box.style.setProperty(name, value, 'important');
            }
        }
    """
    page.driver.execute_script(script, select)
    yield Shot("kernel-menu.png", ".jp-Dialog-content")
    page.find(".jp-Dialog-button.jp-mod-reject").click()


def cut(scene: Scene) -> Iterator[Shot]:
    """A cell during a cut of the connection, and after it."""
    page = _notebook(scene, "train.ipynb", "")
    page.run(_TRAINING)
    page.outputs("epoch  4")
    with scene.target.away():
        time.sleep(3)  # what the picture is of: nothing comes
        assert "epoch  7" not in page.text()
        yield Shot("cut-during.png", ".jp-NotebookPanel", 450)
    page.outputs(_FINISHED)
    page.wait_for_kernel()
    assert page.text().count("epoch") == 12
    yield Shot("cut-after.png", ".jp-NotebookPanel", 450)


def shared(scene: Scene) -> Iterator[Shot]:
    """A person's notebook beside the log of a session in the same kernel, with an agent's cells in it."""
    page = _notebook(scene, "analysis.ipynb", "")
    page.run("loss = [2.2 * 0.8**n for n in range(12)]\nlen(loss)")
    page.outputs("12")
    with _session(scene, "shared") as rkernel:
        assert rkernel("attach", "analysis.ipynb", "-s", "shared").status == 0
        assert rkernel.exec("from statistics import mean\nmean(loss)", "--author", "agent").status == 0
        page.run("# the person goes on with what the agent has defined\nround(mean(loss[-3:]), 3)")
        page.outputs("0.24")
        assert rkernel.exec("sorted(loss)[:2]", "--author", "agent").status == 0
        log = scene.folder / "rkernel-shared.ipynb"
        assert wait_until(lambda: log.exists() and log.read_text().count('"output_type"') == 3)
        page.command("docmanager:open", path=log.name, options={"mode": "split-right"})
        page.find(".jp-Dialog-button.jp-mod-reject", "No Kernel").click()
        page.wait("the log", lambda: "[0.188" in page.driver.find_element(By.CSS_SELECTOR, ".jp-LabShell").text)
        page.wait("closed dialog", lambda: not page.driver.find_elements(By.CSS_SELECTOR, ".jp-Dialog"))
        yield Shot("shared-log.png", "#jp-main-dock-panel", 450)


def vscode(scene: Scene) -> Iterator[Shot]:
    """VS Code with the log of a session, while a cell is run in its terminal; what it says before it has extensions."""
    with _session(scene, "work") as rkernel:
        assert rkernel("exec", "-k", "remote_cuda", "-c", PLOT[1]).status == 0
        environment = {**rkernel.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with running_vscode(scene.folder, environment, scene.folder.parent / "vscode") as address:
            resize(scene.page.driver, 620)
            window = Window(scene.page.driver, address)
            window.open("rkernel-work.ipynb")
            window.find(".view-lines", "getpass")
            window.press(Keys.CONTROL, "b")
            window.type_in_terminal("rkernel exec --code 'loss = [2.2 * 0.8**n for n in range(9)]; round(loss[-1], 3)'")
            window.find(".view-lines", "range")
            time.sleep(3)  # what a cell gave is drawn in a frame of its own, and the terminal on a canvas
            yield Shot("vscode-log.png", ".monaco-workbench")
            window.find(".kernel-action-view-item").click()
            window.find(".quick-input-widget", "suggested extensions")
            yield Shot("vscode-extensions.png", ".monaco-workbench", 200)


PICTURES: dict[str, Callable[[Scene], Iterator[Shot]]] = {
    "plot": plot,
    "menu": menu,
    "cut": cut,
    "shared": shared,
    "vscode": vscode,
}


@contextmanager
def _session(scene: Scene, name: str) -> Iterator[Rkernel]:
    """Give the command line for a session beside JupyterLab, which is closed afterwards, whatever happens."""
    runtime = os.environ["JUPYTER_RUNTIME_DIR"]
    with running_rkernel(scene.folder, session=name, JUPYTER_RUNTIME_DIR=runtime) as rkernel:
        (scene.folder / "runtime").rmdir()  # not used, and not for a picture
        try:
            yield rkernel
        finally:
            assert rkernel("close", name).status == 0


def _notebook(scene: Scene, name: str, *cells: str) -> Page:
    made = [
        nbformat.v4.new_markdown_cell(cell) if cell.startswith("# The") else nbformat.v4.new_code_cell(cell)
        for cell in cells
    ]
    metadata = {"kernelspec": {"name": "remote_cuda", "display_name": "Remote CUDA", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), scene.folder / name)
    scene.page.open(name)
    scene.page.wait_for_kernel()
    return scene.page


def _take(page: Page, shot: Shot) -> None:
    """Write what the window shows of an element as a PNG."""
    path = DOCS / shot.file
    # Two frames: one to lay the page out, one to draw it.
    page.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    box = page.driver.find_element(By.CSS_SELECTOR, shot.css).rect
    clip = {**box, "height": shot.height or box["height"], "scale": 1}
    taken = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
    path.write_bytes(base64.b64decode(taken["data"]))
    assert path.stat().st_size < LARGEST_BYTES, f"{path} has {path.stat().st_size} bytes"
    print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size // 1000} kB")


def main(names: list[str]) -> None:
    """Make the pictures of these names, or all."""
    for name in names or PICTURES:
        with scene() as found:
            for shot in PICTURES[name](found):
                _take(found.page, shot)


if __name__ == "__main__":
    main(sys.argv[1:])
