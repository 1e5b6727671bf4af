"""What the package imports is declared, and the lowest versions that pyproject.toml allows give the same commands."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import remote_kernel
from tests.support.interpreters import lowest_environment

ROOT = Path(remote_kernel.__file__).parent
RUN_NOT_IMPORTED = {"ipykernel"}
# What is sent into a kernel finds there what ipykernel depends on.
RUN_IN_THE_KERNEL = {ROOT / "session" / "host" / "kernel_side.py"}

_COMMANDS = """
import json, typer
from remote_kernel.cli import manager
top = typer.main.get_command(manager.build())
found = {"": top, **top.commands}
shown = {name: [[one.name, one.param_type_name, sorted(one.opts)] for one in it.params] for name, it in found.items()}
print(json.dumps({name: [one for one in ones if "completion" not in one[0]] for name, ones in shown.items()}))
"""


def _declared() -> set[str]:
    text = (ROOT.parent / "pyproject.toml").read_text()
    listed = re.findall(r"^(?:dependencies|keyring) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert len(listed) == 2
    return {name.lower() for name in re.findall(r'"([\w-]+)>=', "".join(listed))}


def _imported() -> set[str]:
    names = set()
    for path in set(ROOT.rglob("*.py")) - RUN_IN_THE_KERNEL:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"remote_kernel"}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    packages = packages_distributions()
    imported = {packages[name][0].lower().replace("_", "-") for name in _imported()}
    assert imported | RUN_NOT_IMPORTED == _declared()


@pytest.mark.timeout(300)  # the environment is built here where scripts/test has not built it
def test_commands_have_the_same_parameters_with_the_lowest_versions() -> None:
    def commands(python: str | Path) -> object:
        done = subprocess.run([str(python), "-c", _COMMANDS], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert commands(lowest_environment()) == commands(sys.executable)
