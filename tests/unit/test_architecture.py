"""Keep the arrows between modules, and a few habits that a reader cannot see from one module alone."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import remote_kernel
from remote_kernel.bootstrap import SHIPPED

ROOT = Path(remote_kernel.__file__).parent

# Who may import whom: only what is lower, or beside it. A name is a folder or a single file of the package.
LAYERS = (
    {"errors", "process", "signals", "terminal_safe", "typed_json"},
    {"link", "jupyter"},  # both ends
    {"remote"},  # there
    {"endpoint"},
    {"options"},
    {"files"},
    {"transport"},
    {"bootstrap"},
    {"advice", "handshake"},
    {"kernelspec"},
    {"launcher"},
    {"kept", "session", "sync", "demo", "doctor"},
    {"cli"},
    {"__main__"},
)

# What runs on the remote host: the standard library and each other, nothing else.
REMOTE = {module for modules in SHIPPED.values() for module in modules} | {"remote.stage"}
REMOTE |= {module.rpartition(".")[0] for module in REMOTE if "." in module}  # empty packages there, so no more here

# What runs as a process of its own, and so may print and exit; as may what has an `if __name__ == "__main__"`.
PROGRAMS = {"cli", "__main__", "launcher.launcher", "remote.stage"}

# The launcher runs for every kernel's start; each of these would cost it a tenth of a second or so.
SLOW = {"typer", "click", "rich", "paramiko", "sshtunnel", "jupyter_client", "zmq", "tornado"}


_parse = functools.cache(ast.parse)


class Import(NamedTuple):
    """One import: the module's full name, and whether it happens while the importing module loads."""

    name: str
    at_load: bool


class Module(NamedTuple):
    """One source file of the package; `name` is dotted, without the package, and empty for the package itself."""

    name: str
    source: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.source)

    @property
    def part(self) -> str:
        return self.name.split(".")[0]

    def imports(self) -> Iterator[Import]:
        """Give every import that is not for type checking only."""
        package = ["remote_kernel", *self.name.split(".")[:-1]]
        waiting = [(node, True) for node in self.tree.body]
        while waiting:
            node, at_load = waiting.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, at_load) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
                source = ".".join(filter(None, (base, node.module)))
                yield Import(source, at_load)
                yield from (Import(f"{source}.{alias.name}", at_load) for alias in node.names)
            at_load = at_load and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            waiting += [(child, at_load) for child in ast.iter_child_nodes(node)]

    def own_imports(self, *, at_load: bool = False) -> set[str]:
        """Give the modules of this package that it imports, named as in MODULES."""
        return {
            name
            for imported in self.imports()
            if imported.at_load or not at_load
            if imported.name.startswith("remote_kernel.")
            if (name := imported.name.removeprefix("remote_kernel.")) in MODULES and name != self.name
        }

    def foreign_imports(self, *, at_load: bool = False) -> set[str]:
        """Give the top-level packages that it imports and that are neither ours nor the standard library's."""
        tops = {imported.name.split(".")[0] for imported in self.imports() if imported.at_load or not at_load}
        return {top for top in tops if top not in sys.stdlib_module_names and top != "remote_kernel"}

    def is_program(self) -> bool:
        """Tell whether it is run as a program: it has an `if __name__ == "__main__"`."""
        return any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in self.tree.body)


def _read_modules() -> dict[str, Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path.read_text())
    return found


MODULES = _read_modules()
EVERY_MODULE = pytest.mark.parametrize("module", [pytest.param(module, id=name) for name, module in MODULES.items()])


@pytest.fixture(autouse=True)
def allowed_to_stay() -> None:
    """Look for nothing left behind, in place of the fixture of all tests: sources are read here, a thousand times."""


def _layer(part: str) -> int:
    if not part:
        return 0
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


@EVERY_MODULE
def test_imports_point_down(module: Module) -> None:
    upward = [name for name in module.own_imports() if _layer(name.split(".")[0]) > _layer(module.part)]
    assert not upward, f"{module.name} imports {upward}: move the code, or give the module a place in LAYERS"


def test_imports_make_no_circle() -> None:
    # Parts, not modules: a package's __init__ and its modules may know each other.
    arrows: dict[str, set[str]] = {}
    for module in MODULES.values():
        parts = {name.split(".")[0] for name in module.own_imports()}
        arrows.setdefault(module.part, set()).update(parts - {module.part})
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names them


@EVERY_MODULE
def test_remote_modules_need_only_the_standard_library(module: Module) -> None:
    if module.name not in REMOTE:
        return
    assert module.own_imports() <= REMOTE
    assert not module.foreign_imports()


@EVERY_MODULE
def test_remote_modules_have_the_grammar_of_python_3_8(module: Module) -> None:
    if module.name in {*REMOTE, "session.host.kernel_side"}:  # the latter runs in the kernel
        ast.parse(module.source, feature_version=(3, 8))


def test_link_imports_nothing_of_ours_but_its_parts() -> None:
    assert MODULES["link.link"].own_imports() == {"link.pace", "link.spool"}


@EVERY_MODULE
def test_ssh_libraries_stay_in_transport(module: Module) -> None:
    if module.foreign_imports() & {"paramiko", "sshtunnel"}:
        assert module.name.startswith(("transport.paramiko.", "demo.embedded", "sync.sftp_client"))


@EVERY_MODULE
def test_only_choice_knows_the_stand_in_for_ssh(module: Module) -> None:
    if any(name.startswith("transport.paramiko") for name in module.own_imports()):
        assert module.name.startswith(("transport.choice", "transport.paramiko."))


@EVERY_MODULE
def test_only_programs_print_or_exit(module: Module) -> None:
    if module.part in PROGRAMS or module.name in PROGRAMS or module.is_program():
        return
    calls = [ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    assert not {"print", "input", "exit", "quit", "sys.exit", "SystemExit"}.intersection(calls)


@EVERY_MODULE
def test_module_has_a_noun_and_a_purpose(module: Module) -> None:
    words = {word for part in module.name.split(".") for word in part.split("_")}
    assert not words & {"util", "utils", "helper", "helpers", "common", "misc"}
    assert not module.tree.body or ast.get_docstring(module.tree), "the first line says what the module is for"


def test_launcher_loads_nothing_slow() -> None:
    seen: set[str] = set()
    waiting = ["launcher.launcher"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module = MODULES[name]
        loaded = {imported.name.split(".")[0] for imported in module.imports() if imported.at_load}
        assert not loaded & SLOW, f"{name} is loaded at every kernel's start"
        waiting += module.own_imports(at_load=True)


def test_packages_of_remote_modules_are_empty() -> None:
    packages = {name for name in REMOTE if any(module.startswith(f"{name}.") for module in REMOTE)}
    assert packages
    for name in packages:
        assert len(MODULES[name].tree.body) == 1, "the remote host has no more of it than the name"


def test_no_modules_import_each_other() -> None:
    TopologicalSorter({name: module.own_imports() for name, module in MODULES.items()}).prepare()


@EVERY_MODULE
def test_module_has_40_to_450_lines(module: Module) -> None:
    lines = len(module.source.splitlines())
    is_package = module.name in {name.rpartition(".")[0] for name in MODULES}
    assert lines <= 450, "split it by its nouns"
    assert lines >= 40 or is_package, "fold it into the module that uses it"


def test_no_class_name_means_two_things() -> None:
    places: dict[str, list[str]] = {}
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module.name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


# A docstring says what its function does: "Return the pid", "True if it runs"; these say it in a roundabout way.
_ROUNDABOUT = ("Give ", "Gives ", "Say ", "Says ", "Tell ", "Tells ", "Take note ", "Have ", "Be ", "Whether ")


@EVERY_MODULE
def test_docstrings_begin_with_a_plain_verb(module: Module) -> None:
    functions = [node for node in ast.walk(module.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [node.name for node in functions if (ast.get_docstring(node) or "").startswith(_ROUNDABOUT)] == []
