"""Run VS Code in a browser, as code-server serves it, and look at it with a headless Chromium.

Only for pictures: code-server has VS Code's notebooks, but not Microsoft's extensions, and so no kernels.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.kernels import wait_until
from tests.support.servers import free_port

WAIT_SECONDS = 60
EXTENSIONS_SECONDS = 15  # until its own extensions run, it takes a notebook for a text
_SETTINGS = {
    "workbench.colorTheme": "Default Light Modern",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.commandCenter.enabled": False,
    "window.menuBarVisibility": "compact",
    "terminal.integrated.defaultProfile.linux": "sh",
    "terminal.integrated.shellIntegration.enabled": False,
    "terminal.integrated.initialHint": False,
}


class Window:
    """One window of VS Code with a folder."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        driver.get(url)
        self.find(".explorer-folders-view .monaco-list-row")

    def find(self, css: str, text: str = "") -> WebElement:
        """Wait for a visible element with this text in it."""

        def look(_: WebDriver) -> WebElement | None:
            for element in self.driver.find_elements(By.CSS_SELECTOR, css):
                with contextlib.suppress(Exception):  # it may go while we look
                    if element.is_displayed() and text in element.text:
                        return element
            return None

        found: WebElement = WebDriverWait(self.driver, WAIT_SECONDS, 0.1).until(look, f"no {css} with {text!r}")
        return found

    def open(self, name: str) -> None:
        """Open a notebook for good, by a double click."""
        time.sleep(EXTENSIONS_SECONDS)
        row = self.find(".explorer-folders-view .monaco-list-row", name)
        ActionChains(self.driver).double_click(row).perform()
        self.find(".notebook-toolbar-container")

    def press(self, *keys: str) -> None:
        """Press keys together."""
        actions = ActionChains(self.driver)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    def type_in_terminal(self, line: str) -> None:
        """Run a command in the terminal, which is opened for it."""
        if not self.driver.find_elements(By.CSS_SELECTOR, ".terminal-wrapper .xterm"):
            self.press(Keys.CONTROL, "`")
        self.find(".terminal-wrapper .xterm").click()
        ActionChains(self.driver).send_keys(line, Keys.ENTER).perform()


@contextlib.contextmanager
def running_vscode(folder: Path, environment: Mapping[str, str], data: Path) -> Iterator[str]:
    """Serve VS Code on loopback and give the address of a window with a folder. `data` is for its own files."""
    program = shutil.which("code-server")
    if not program:
        raise RuntimeError("there is no code-server in PATH: install it")
    (data / "User").mkdir(parents=True)
    shell = {"path": "/bin/sh", "env": {"PS1": "$ ", "PATH": environment["PATH"]}}
    settings = {**_SETTINGS, "terminal.integrated.profiles.linux": {"sh": shell}}
    (data / "User/settings.json").write_text(json.dumps(settings))
    port = free_port()
    words = [program, "--auth=none", f"--bind-addr=127.0.0.1:{port}", f"--user-data-dir={data}"]
    words += [f"--extensions-dir={data}/extensions", f"--config={data}/config.yaml", "--disable-telemetry"]
    words += ["--disable-update-check", "--disable-workspace-trust", "--disable-getting-started-override"]
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"{address}/healthz", timeout=5).read())
        return False

    log = data / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environment), cwd=folder
        )
    try:
        if not wait_until(answers, WAIT_SECONDS):
            raise RuntimeError(f"code-server does not answer:\n{log.read_text()}")
        yield f"{address}/?folder={folder}"
    finally:
        server.terminate()
        server.wait(30)
