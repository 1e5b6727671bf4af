"""Interpreters, folders, variables and init code with every character that a shell could trip over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernels import options_for, run, running_kernel
from tests.support.servers import Server

NAMES = (
    "with space",
    "it's",
    'double"quote',
    "dollar$HOME",
    "bang!",
    "back\\slash",
    "smörgås 🙂",
    "a;b&c|d",
    "-dash",
    "{a,b}*?[x]",
    "%s%n",
    "line\nbreak",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shell", ["/usr/bin/bash", "/usr/bin/fish", "/usr/bin/tcsh"])
def test_path_of_python_may_hold_any_character(
    tmp_path: Path,
    target: Server,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    name: str,
    shell: str,
) -> None:
    folder = remote_folder / name
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nRK_THROUGH=yes exec {remote_python} "$@"\n')
    (folder / "python").chmod(0o755)
    options = options_for("target", ssh_config, folder / "python")
    with target.login_shell(shell), running_kernel(tmp_path, options) as (_, client):
        assert run(client, "import os; os.environ['RK_THROUGH']").result == "'yes'"


def test_python_may_be_named_from_the_home_folder(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    folder = remote_folder / "my env"
    folder.mkdir()
    (folder / "python").symlink_to(remote_python)
    asked = "~/" + str((folder / "python").relative_to(target.home))
    # A symlink from outside is no virtual environment: what runs is the interpreter that it leads to.
    (folder / "python").unlink()
    (folder / "python").write_text(f'#!/bin/sh\nexec {remote_python} "$@"\n')
    (folder / "python").chmod(0o755)
    with running_kernel(tmp_path, options_for("target", ssh_config, asked)) as (_, client):
        assert run(client, "import sys; sys.executable").result == f"'{remote_python}'"


@pytest.mark.parametrize("name", NAMES)
def test_workdir_may_hold_any_character(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path, name: str
) -> None:
    (remote_folder / name).mkdir()
    options = options_for("target", ssh_config, remote_python, workdir=str(remote_folder / name))
    with running_kernel(tmp_path, options) as (_, client):
        assert run(client, "import os; os.getcwd()").result == repr(str(remote_folder / name))


def test_workdir_is_the_home_folder_by_default(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python)) as (_, client):
        assert run(client, "import os; os.getcwd()").result == repr(str(target.home))


def test_variables_arrive_as_they_are(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    values = {f"RK_{i}": f"{name} = {name}\n\t{name}" for i, name in enumerate(NAMES)}
    values.update(RK_EMPTY="", RK_LONG="x" * 20000, RK_LINES="\n\n\r\n", RK_JSON='{"a": ["\\u00e9", null]}')
    options = options_for("target", ssh_config, remote_python, env=tuple(values.items()))
    with running_kernel(tmp_path, options) as (_, client):
        code = "import os; {k: v for k, v in os.environ.items() if k.startswith('RK_') and not k.startswith('RK_TEST')}"
        assert eval(run(client, code).result) == values


INIT = {
    "quotes": """export RK_A="it's" RK_B='say "hi"' """,
    "newlines": "export RK_A=one\n\n# a comment\nexport RK_B=two\n",
    "a pipe": "RK_A=$(printf 'a\\nb\\n' | tail -n 1); export RK_A; export RK_B=$((1 + 2))",
    "a function": 'module() { export RK_A=loaded RK_B="$*"; }\nmodule load cuda/12.4 | cat; module load cuda/12.4',
    "noise": "echo loading; echo problems >&2; export RK_A=x RK_B=y",
    "unset options": "set -u; export RK_A=x RK_B=y",
}
INIT_VALUES = {
    "quotes": ("it's", 'say "hi"'),
    "newlines": ("one", "two"),
    "a pipe": ("b", "3"),
    "a function": ("loaded", "load cuda/12.4"),
    "noise": ("x", "y"),
    "unset options": ("x", "y"),
}


@pytest.mark.parametrize("name", INIT)
def test_init_code_runs_before_the_kernel(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, name: str
) -> None:
    options = options_for("target", ssh_config, remote_python, init=INIT[name])
    with running_kernel(tmp_path, options) as (_, client):
        code = "import os; (os.environ['RK_A'], os.environ['RK_B'])"
        assert eval(run(client, code).result) == INIT_VALUES[name]


def test_init_code_may_bring_the_python(
    tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    # What `module load` and `conda activate` do: the name is on PATH only once the code has run.
    (remote_folder / "only-after-init").write_text(f'#!/bin/sh\nexec {remote_python} "$@"\n')
    (remote_folder / "only-after-init").chmod(0o755)
    options = options_for("target", ssh_config, "only-after-init", init=f'export PATH="{remote_folder}:$PATH"')
    with running_kernel(tmp_path, options) as (_, client):
        assert run(client, "1 + 1").result == "2"


@pytest.mark.parametrize("major", [6, 7])
def test_both_ipykernels_answer(
    tmp_path: Path, target: Server, ssh_config: Path, major: int, request: pytest.FixtureRequest
) -> None:
    python = request.getfixturevalue("remote_python" if major == 7 else "remote_python_ipykernel6")
    with running_kernel(tmp_path, options_for("target", ssh_config, python)) as (manager, client):
        assert run(client, "import ipykernel; ipykernel.version_info[0]").result == str(major)
        client.execute("import time; print('begun', flush=True); time.sleep(60)")
        while client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=10))["msg_type"] != "execute_reply":
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert run(client, "'alive'").result == "'alive'"
