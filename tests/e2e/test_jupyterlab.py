"""JupyterLab in a real browser runs a remote kernel like a local one."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from remote_kernel.cli.manager import main as manage
from remote_kernel.session.candidates import list_candidates
from remote_kernel.session.events import Done, Stream
from remote_kernel.session.notebook.log import LogFacts, NotebookLog
from tests.support.ends import ask_agents
from tests.support.kernels import options_for, run, running_kernel, wait_until
from tests.support.lab import Lab, Page, running_browser, running_lab
from tests.support.pictures import PLOT
from tests.support.rkernel import Rkernel, Said, running_rkernel
from tests.support.servers import Server, is_alive

NAME = "Remote GPU"
SLUG = "remote_gpu"


@pytest.fixture(scope="module")
def kernelspec(target: Server, ssh_config: Path, remote_python: Path) -> Iterator[str]:
    """Install a kernelspec with `remote_kernel add` where JupyterLab looks for it."""
    where = ["target", "--ssh-config", str(ssh_config), "--python", str(remote_python)]
    assert manage(["add", *where, "--name", NAME, "--no-check"]) == 0
    yield SLUG
    assert manage(["delete", SLUG]) == 0


@pytest.fixture(scope="module")
def lab(kernelspec: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the module."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    folder.mkdir()
    with running_lab(folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """One Chromium for the module."""
    with running_browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(lab: Lab, browser: WebDriver, allowed_to_stay: set[int], target: Server) -> Iterator[Page]:
    """JupyterLab in the browser; the kernels of the test end with it."""
    yield Page(lab, browser)
    lab.end_sessions()
    # Chromium starts and ends processes as it likes. The server's own children are kernels and have to go.
    allowed_to_stay.update(process.pid for process in psutil.Process(browser.service.process.pid).children(True))


@pytest.fixture
def notebook(page: Page, request: pytest.FixtureRequest) -> Page:
    """Give an empty notebook with the remote kernel, open and ready."""
    name = f"{request.node.name}.ipynb"
    write_notebook(page.lab.folder / name, "")
    page.open(name)
    page.wait_for_kernel()
    return page


def write_notebook(path: Path, *cells: str, kernelspec: tuple[str, str] = (SLUG, NAME)) -> None:
    """Write a notebook that wants the remote kernel; a cell that begins with `#` and a space is Markdown."""
    made = [
        nbformat.v4.new_markdown_cell(cell) if cell.startswith("# ") else nbformat.v4.new_code_cell(cell)
        for cell in cells
    ]
    slug, name = kernelspec
    metadata = {"kernelspec": {"name": slug, "display_name": name, "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), path)


def remote_kernel_process(target: Server) -> psutil.Process:
    """Give the one kernel that runs on the remote host."""
    (found,) = [process for process in target.processes() if "ipykernel_launcher" in process.cmdline()]
    return found


def test_launcher_starts_a_notebook_on_the_remote_host(page: Page, target: Server) -> None:
    page.open()
    page.find(".jp-LauncherCard", NAME).click()
    page.wait_for_kernel()

    page.run("import getpass; print('user', getpass.getuser())")

    page.outputs(f"user {target.user}")
    assert page.find(".jp-KernelName").text == NAME


def test_plot_is_shown(notebook: Page) -> None:
    notebook.run("import matplotlib.pyplot as plt; plt.plot([1, 3, 2]);")

    image = notebook.find(".jp-OutputArea-output img")
    notebook.wait("image", lambda: int(image.get_property("naturalWidth")) > 100)


def test_widget_talks_to_the_kernel(notebook: Page) -> None:
    notebook.run("import ipywidgets; slider = ipywidgets.IntSlider(5); slider")

    handle = notebook.find(".widget-slider .noUi-handle")
    handle.click()
    handle.send_keys(Keys.ARROW_RIGHT)
    notebook.find(".widget-readout", "6")
    notebook.run("print('value', slider.value)")

    notebook.outputs("value 6")


def test_input_is_asked_in_the_page(notebook: Page) -> None:
    notebook.run("answer = input('who? '); print('hello', answer)")

    notebook.find("input.jp-Stdin-input").send_keys("world", Keys.ENTER)

    notebook.outputs("hello world")


def test_interrupt_ends_a_running_cell(notebook: Page) -> None:
    notebook.run("x = 1; import time; print('asleep'); time.sleep(60)")
    notebook.outputs("asleep")
    notebook.wait_busy()

    notebook.press("notebook:interrupt-kernel")

    notebook.outputs("KeyboardInterrupt")
    notebook.wait_for_kernel()
    notebook.run("print('x is', x)")
    notebook.outputs("x is 1")


def test_restart_forgets_the_variables(notebook: Page, target: Server) -> None:
    notebook.run("x = 1; print('set')")
    notebook.outputs("set")
    old = remote_kernel_process(target)

    notebook.press("notebook:restart-kernel")
    notebook.find(".jp-Dialog-button.jp-mod-accept").click()

    assert wait_until(lambda: not is_alive(old))
    notebook.wait_for_kernel()
    notebook.run("x")
    notebook.outputs("NameError")


def test_shutdown_ends_the_kernel_on_the_remote_host(notebook: Page, target: Server) -> None:
    notebook.run("print('here')")
    notebook.outputs("here")
    kernel = remote_kernel_process(target)

    notebook.choose("Kernel", "kernelmenu:shutdown")

    assert wait_until(lambda: not is_alive(kernel))
    assert wait_until(lambda: notebook.lab.api("kernels") == [])


def test_cell_that_finishes_in_an_outage_is_finished_in_the_page(notebook: Page, target: Server) -> None:
    def prompts() -> list[str]:
        return [prompt.text for prompt in notebook.driver.find_elements(By.CSS_SELECTOR, ".jp-InputPrompt")]

    done = Path(target.home) / "cell-is-done"
    count = "import pathlib, time\nfor n in range(12):\n    print(f'step {n}.')\n    time.sleep(0.2)"
    notebook.run(f"{count}\nprint('all done')\npathlib.Path('{done}').touch()")
    notebook.outputs("step 3.")
    with target.away():
        assert wait_until(done.exists)
        done.unlink()
        assert prompts()[0] == "[*]:"
        assert "all done" not in notebook.text()

    notebook.outputs("all done")
    notebook.wait("number in place of the star", lambda: prompts()[0] == "[1]:")
    assert [line for line in notebook.text().splitlines() if line] == [*(f"step {n}." for n in range(12)), "all done"]
    notebook.run("print(n + 1)")
    notebook.outputs("12")


def test_kept_kernel_is_resumed_with_its_variables_and_can_be_restarted(
    page: Page, target: Server, ssh_config: Path, remote_python: Path, tmp_path: Path
) -> None:
    options = options_for("target", ssh_config, remote_python, keep=True)
    with running_kernel(tmp_path, options) as (_, client):
        assert run(client, "x = 'from before'").status == "ok"
        (kernel,) = ask_agents(options)
    assert manage(["resume", kernel["id"], "--name", "Monday"]) == 0
    write_notebook(page.lab.folder / "resumed.ipynb", "", kernelspec=("monday", "Monday"))
    page.open("resumed.ipynb")
    page.wait_for_kernel()
    assert page.find(".jp-KernelName").text == "Monday"

    page.run("print('it is', x)")

    page.outputs("it is from before")
    old = remote_kernel_process(target)
    page.press("notebook:restart-kernel")
    page.find(".jp-Dialog-button.jp-mod-accept").click()
    assert wait_until(lambda: not is_alive(old))
    page.wait_for_kernel()
    page.run("x")
    page.outputs("NameError")
    assert manage(["stop", "--all", "--yes"]) == 0


def test_log_that_a_person_overwrites_from_an_older_version_loses_nothing(page: Page) -> None:
    path = page.lab.folder / "log.ipynb"

    def cells() -> list[Any]:
        with contextlib.suppress(nbformat.reader.NotJSONError):  # JupyterLab's server writes into the file
            return list(nbformat.read(path, as_version=4).cells)
        return []

    with NotebookLog(path, LogFacts("train", "gpu1", SLUG, NAME)) as log:
        log.begin("c1", "train()")
        log.add("c1", Stream("stdout", "epoch 1\n"))
        assert log.flush()
        page.open(path.name)
        page.outputs("epoch 1")
        log.add("c1", Stream("stdout", "epoch 2\n"))
        log.add("c1", Done("ok", time.time()))
        log.begin("c2", "evaluate()")
        assert log.flush()

        page.command("notebook:insert-cell-above")
        page.command("notebook:change-cell-to-markdown")
        page.command("notebook:replace-selection", text="my note")
        page.driver.execute_script("window.jupyterapp.commands.execute('docmanager:save')")
        page.find(".jp-Dialog-button", "Overwrite").click()

        # The log has nothing to write: it finds by itself that the person's version lacks something.
        sources = ["my note", "train()", "evaluate()"]
        assert wait_until(lambda: [cell.source for cell in cells()] == sources, 30)
    note, first, second = cells()
    assert (note.cell_type, second.id) == ("markdown", "c2")
    assert (first.id, first.outputs[0].text, first.metadata.remote_kernel.verdict) == ("c1", "epoch 1\nepoch 2\n", "ok")
    nbformat.validate(nbformat.read(path, as_version=4))


AGENT = """\
import time
for line in range(4): print('{name} {number} line', line, flush=True); time.sleep(.02)
{last}"""


class Agent(threading.Thread):
    """A coding agent: one cell after the other, each by its own process; every third fails. Keeps what they gave."""

    def __init__(self, rkernel: Rkernel, name: str, stop: threading.Event) -> None:
        super().__init__(name=name)
        self.gave: list[Said] = []
        self._rkernel, self._over = rkernel, stop

    def run(self) -> None:
        while not self._over.is_set():
            self.gave.append(self._rkernel.exec(self.code(len(self.gave)), "--author", self.name))

    def code(self, number: int) -> str:
        """Give the code of its cell of this number, from 0."""
        return AGENT.format(name=self.name, number=number, last="1 / 0" if number % 3 == 2 else f"'end {number}'")

    def check(self) -> None:
        """See that each cell's own output came, whole, and nothing else."""
        for number, said in enumerate(self.gave):
            lines = [f"{self.name} {number} line {line}" for line in range(4)]
            failed = number % 3 == 2
            assert said.status == (1 if failed else 0), said
            assert said.out.splitlines() == lines + ([] if failed else [f"'end {number}'"])
            assert ("ZeroDivisionError" in said.err) == failed


def outputs_in(page: Page) -> list[tuple[str, str]]:
    """Give each code cell's prompt and the text that it shows, but for the empty cell at the end."""
    script = """
        return [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].map(cell => [
            cell.querySelector('.jp-InputPrompt').textContent,
            [...cell.querySelectorAll('.jp-OutputArea-output')].map(output => output.textContent).join('')])
    """
    return [(prompt, text) for prompt, text in page.driver.execute_script(script)][:-1]


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.nightly)])
def test_two_agents_and_a_person_share_a_kernel(notebook: Page, tmp_path: Path, seconds: float) -> None:
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    over = threading.Event()
    with running_rkernel(tmp_path, session="shared", JUPYTER_RUNTIME_DIR=str(runtime)) as rkernel:
        (candidate,) = list_candidates()
        assert re.search(r"/test_two_agents\S*\.ipynb$", candidate.notebook)
        said = rkernel("attach", "-s", "shared")  # the notebook's kernel is the only one that is open
        assert said.status == 0, said
        agents = [Agent(rkernel, name, over) for name in ("ada", "bob")]
        for agent in agents:
            agent.start()
        try:
            asked = []
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(asked) < 5:
                asked.append("raise ValueError('mine')" if len(asked) % 3 == 1 else f"print('person {len(asked)}.')")
                notebook.run(asked[-1])
                notebook.wait("end of the cell", lambda: re.match(r"\[\d+\]:", outputs_in(notebook)[-1][0]), 60)
        finally:
            over.set()
            for agent in agents:
                agent.join(60)

        for agent in agents:
            assert len(agent.gave) >= 3
            agent.check()
        shown = outputs_in(notebook)
        assert len(shown) == len(asked)
        for number, (prompt, text) in enumerate(shown):
            assert re.fullmatch(r"\[\d+\]:", prompt)
            assert "ValueError: mine" in text if number % 3 == 1 else text == f"person {number}.\n"
        expected = [(agent.name, agent.code(number)) for agent in agents for number in range(len(agent.gave))]
        assert rkernel("close", "shared").status == 0  # the log is written to its end
    cells = nbformat.read(tmp_path / "rkernel-shared.ipynb", as_version=4).cells
    logged = [(cell.metadata.remote_kernel.get("author"), cell.source) for cell in cells]
    assert [source for _, source in logged if source in asked] == asked
    assert sorted(entry for entry in logged if entry[1] not in asked) == sorted(expected)
    persons = {author for author, source in logged if source in asked}
    assert len(persons) == 1
    assert not persons & {"ada", "bob"}
    assert {cell.metadata.remote_kernel.verdict for cell in cells} == {"ok", "error"}


def test_notebook_file_runs_from_top_to_bottom(page: Page, target: Server) -> None:
    write_notebook(page.lab.folder / "remote.ipynb", *PLOT)
    page.open("remote.ipynb")
    page.wait_for_kernel()

    page.choose("Run", "runmenu:run-all")

    page.outputs(f"{target.user} on ")
    page.find(".jp-OutputArea-output img")
    page.wait_for_kernel()
    assert [kernel["name"] for kernel in page.lab.api("kernels")] == [SLUG]
