"""Run JupyterLab and look at it with a headless Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.kernels import wait_until
from tests.support.servers import free_port

WAIT_SECONDS = 30
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
    "--hide-scrollbars",
)


class Lab:
    """A JupyterLab server whose files are in `folder`."""

    def __init__(self, folder: Path, process: psutil.Process, port: int, token: str) -> None:
        self.folder, self.process = folder, process
        self._port, self._token = port, token

    def url(self, path: str = "") -> str:
        """Give the address of a page, with the token that opens it. `reset` drops the tabs of earlier tests."""
        return f"http://127.0.0.1:{self._port}/lab{path}?token={self._token}&reset"

    def api(self, path: str, method: str = "GET") -> Any:
        """Call the server's REST interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self._token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def answers(self) -> bool:
        """Tell whether the server is up."""
        with contextlib.suppress(OSError):
            return bool(self.api("status"))
        return False

    def end_sessions(self) -> None:
        """Shut down what a test has started."""
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """Serve JupyterLab on loopback, with this process's Jupyter folders."""
    settings = Path(os.environ["JUPYTER_CONFIG_DIR"], "lab/user-settings/@jupyterlab/apputils-extension")
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        *(f"--ServerApp.root_dir={folder}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    log = folder.parent / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder)
    try:
        lab = Lab(folder, psutil.Process(server.pid), port, token)
        if not wait_until(lambda: server.poll() is not None or lab.answers(), 60) or server.poll() is not None:
            raise RuntimeError(f"JupyterLab does not answer:\n{log.read_text()}")
        yield lab
    finally:
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def running_browser(folder: Path) -> Iterator[WebDriver]:
    """Run a Chromium that keeps nothing, 1400 by 900 pixels."""
    options = Options()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
    try:
        driver.set_window_size(1400, 900)
        yield driver
    finally:
        driver.quit()


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise RuntimeError(f"there is no {names[0]}: install it, or run scripts/test, which does")
    return found


class Page:
    """JupyterLab as a person sees it: the tab in front, its notebook, its toolbar and menus."""

    def __init__(self, lab: Lab, driver: WebDriver) -> None:
        self.lab, self.driver = lab, driver

    def open(self, path: str = "") -> None:
        """Load JupyterLab with the file at `path` in front, or with the launcher."""
        self.driver.get(self.lab.url(f"/tree/{path}" if path else ""))
        self.wait("the application", lambda: self.driver.execute_script("return !!window.jupyterapp"))
        self.driver.execute_async_script("window.jupyterapp.restored.then(arguments[arguments.length - 1])")

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """Wait until a condition holds and give its value; `what` is for the message when it never does."""
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: condition(), f"no {what}\n{self.text()}")

    def find(self, css: str, text: str = "") -> WebElement:
        """Wait for a visible element with this text in it."""

        def look() -> WebElement | None:
            for element in self.driver.find_elements(By.CSS_SELECTOR, css):
                with contextlib.suppress(Exception):  # it may go while we look
                    if element.is_displayed() and text in element.text:
                        return element
            return None

        found: WebElement = self.wait(f"{css} with {text!r}", look)
        return found

    def text(self) -> str:
        """Give all text of the outputs, for messages."""
        return "\n".join(e.text for e in self.driver.find_elements(By.CSS_SELECTOR, ".jp-OutputArea"))

    def wait_for_kernel(self) -> None:
        """Wait until the notebook in front has a kernel that answers."""
        self.wait("idle kernel", lambda: self._status() == "idle", 60)

    def wait_busy(self) -> None:
        """Wait until the kernel runs a cell."""
        self.wait("busy kernel", lambda: self._status() == "busy")

    def _status(self) -> str:
        script = "return window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        return str(self.driver.execute_script(script))

    def run(self, code: str) -> None:
        """Put code into the notebook's last cell and press Shift and Enter."""
        editor = self.driver.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell .cm-content")[-1]
        editor.click()
        self.command("notebook:replace-selection", text=code)
        editor.send_keys(Keys.SHIFT, Keys.ENTER)

    def command(self, name: str, **arguments: Any) -> None:
        """Do what a menu entry does."""
        script = """
            const [name, args, done] = arguments;
            window.jupyterapp.commands.execute(name, args).then(() => done(), error => done(String(error)));
        """
        error = self.driver.execute_async_script(script, name, arguments)
        assert error is None, error

    def outputs(self, text: str) -> WebElement:
        """Wait for an output with this text in it."""
        return self.find(".jp-OutputArea-output", text)

    def press(self, command: str) -> None:
        """Click the button of the notebook's toolbar that is bound to a command."""
        self.find(f".jp-NotebookPanel-toolbar [data-command='{command}']").click()

    def choose(self, menu: str, command: str) -> None:
        """Open a menu of the menu bar and click an entry."""
        self.find(".lm-MenuBar-item", menu).click()
        self.find(f".lm-Menu-item[data-command='{command}']").click()
