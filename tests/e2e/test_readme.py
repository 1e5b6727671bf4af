"""Every command that the README and the pages of docs/ show works as it stands there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from remote_kernel.session.events import VERDICTS
from tests.support.pages import PAGES, Shown, shown_commands
from tests.support.servers import Servers

# What is shown and not run here, and why.
NOT_RUN = {
    "uv tool install .": "it is installed already; a nightly test installs and uninstalls it so",
    "uv tool uninstall rkernel": "as above",
    "pipx install .": "pipx is an installer like uv",
    "python3 -m venv ~/.local/share/rkernel": "a nightly test makes it",
    "~/.local/share/rkernel/bin/pip install .": "as above",
    'export PATH="$PATH:$HOME/.local/share/rkernel/bin"': "it is of use only to the shell that runs it",
    "rkernel close --all": "there is one session at a time here, closed by its name",
    "remote_kernel delete --all": "the pages behind it use the kernelspecs",
    "scripts/test": "it runs this test",
    "remote_kernel add me@gpu1.internal -J me@gate.example.org,me@inner:2222": "there are no such hosts",
    "remote_kernel doctor remote_cuda": "that of another kernelspec, and of a host, are run",
    "scripts/demo": "it sets up an environment of its own and then runs the demo, which is run here",
}
NEEDS = {
    "remote_cuda": 'remote_kernel add gpu1 --name "Remote CUDA"',
    "project": "remote_kernel add gpu1 --name \"Project\" --python '~/.venv/bin/python'",
    "R on gpu1": 'remote_kernel add gpu1 --name "R on gpu1" --kernel ir',
    "remote:work": "remote_kernel sync remote_cuda . remote:work",
    "login gpu1 --status": "remote_kernel login gpu1",
}
"""What a page takes for granted that the README has shown: the command for it, by words of those that need it."""
KEPT = "3fa2"
"""The id in the README's examples; a kept kernel of the kernelspec shown there takes its place."""

SECONDS = 90


def commands_to_run() -> Iterator[Shown]:
    """Yield the commands of the README, then those of the pages; of `remote_kernel` none twice."""
    seen = set(NOT_RUN)
    for page in PAGES:
        for shown in shown_commands(page):
            if shown.command not in seen:
                yield shown
            if not shown.command.startswith("rkernel"):
                seen.add(shown.command)


COMMANDS = {page: [shown.command for shown in group] for page, group in groupby(commands_to_run(), lambda it: it.page)}


@pytest.fixture
def environment(tmp_path: Path, servers: Servers, remote_python: Path) -> Iterator[dict[str, str]]:
    """Give the world that the README takes for granted: the hosts gpu1 and gate, and what is installed on gpu1."""
    config = tmp_path / "ssh_config"
    text = servers.ssh_config.read_text().replace("Host target behind", "Host gpu1 target behind")
    text = text.replace("Host jump", "Host gate jump")
    config.write_text(text)
    programs = tmp_path / "bin"
    programs.mkdir()
    # Users and ports given on the command line win over the configuration; those of the README are examples.
    (programs / "ssh").write_text(
        f"""#!/usr/bin/env python3
import os, sys
words = sys.argv[1:]
for option, value in (("-l", "me"), ("-p", "2222")):
    if option in words and words[words.index(option) + 1] == value:
        del words[words.index(option):words.index(option) + 2]
words = ["gate" if word == "me@gate" else word for word in words]
os.execv({shutil.which("ssh")!r}, ["ssh", "-F", {str(config)!r}, *words])
"""
    )
    (programs / "ssh").chmod(0o755)
    home = servers.account.home
    made = [home / ".venv", home / "project", home / ".bash_profile", home / ".local/share/jupyter/kernels/ir"]
    made[0].symlink_to(remote_python.parent.parent)
    made[1].mkdir()
    os.chown(made[1], servers.account.uid, servers.account.gid)
    made[2].write_text("module() { :; }\n")
    made[3].mkdir(parents=True)
    argv = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (made[3] / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "R", "language": "R"}))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "loss.csv").write_text("0.1\n")
    yield {
        **os.environ,
        "PATH": os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOME": str(tmp_path),
        "REMOTE_KERNEL_PYTHON": str(remote_python),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
    }
    for path in made[:1] + made[2:3]:
        path.unlink()
    shutil.rmtree(home / "work", ignore_errors=True)  # what `sync` made
    for path in (made[1], made[3]):
        shutil.rmtree(path)


def kept_kernel(environment: dict[str, str], name: str) -> str:
    """Give the id of the kernel that is kept on gpu1; start one and close its front end when there is none yet."""
    ps = ["remote_kernel", "ps", "--json"]
    found = json.loads(subprocess.run(ps, env=environment, capture_output=True, timeout=SECONDS, check=True).stdout)
    if not found:
        code = (
            "from jupyter_client.manager import start_new_kernel\n"
            f"manager, client = start_new_kernel(kernel_name={name!r})\n"
            "client.stop_channels(); manager.shutdown_kernel()"
        )
        subprocess.run([sys.executable, "-c", code], env=environment, timeout=SECONDS, check=True)
        return kept_kernel(environment, name)
    return str(found[0]["id"])


@pytest.mark.timeout(300)  # up to twenty commands, each a process of its own
@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: page.name)
def test_commands_of_a_page_work(environment: dict[str, str], tmp_path: Path, page: Path) -> None:
    if not os.access("/var/tmp", os.W_OK) or os.getuid() != 0:
        pytest.skip("the remote home is somebody's own, where the README's ~/.venv and ~/project may not be put")
    shown = COMMANDS[page]
    needed = [command for words, command in NEEDS.items() if words in "\n".join(shown)]
    for command in [*(command for command in needed if command not in shown), *shown]:
        if KEPT in command:
            command = command.replace(KEPT, kept_kernel(environment, "remote_cuda"))
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        expected = VERDICTS["running" if "--detach" in command else "ok"]
        assert done.returncode == expected, f"{command}\n{done.stdout}{done.stderr}"


def test_commands_that_pages_need_are_shown_in_the_readme() -> None:
    assert set(NEEDS.values()) <= set(COMMANDS[PAGES[0]])
    assert sum(map(len, COMMANDS.values())) >= 40


def test_commands_that_are_not_run_are_shown() -> None:
    commands = {shown.command for page in PAGES for shown in shown_commands(page)}
    assert not set(NOT_RUN) - commands
