"""Which suites there are, how they are fetched and run, and what is known of their differences."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import tomllib

from tests.support.interpreters import cache_folder, environment, run

DIFFERENCES = Path(__file__).with_name("differences.toml")
SUITE_SECONDS = 1500
TEST_SECONDS = 90

ENVIRONMENT = (
    "ipykernel[test]>=7,<8",
    "ipywidgets>=8.1",
    "jupyter-client[test]>=8",
    "jupyter-kernel-test>=0.7",
    "jupyter-server[test]>=2",
    "matplotlib>=3.8",
    "nbclient[test]>=0.10",
    "nbconvert>=7",
    "pandas>=2",
    "papermill>=2.6",
    "pytest-mock",
    "pytest-timeout",
)
"""What the suites, and the kernels of both sides, run in."""


@dataclass(frozen=True)
class Suite:
    """One project's tests, by the name of its distribution; `paths` are in its sdist."""

    project: str
    paths: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.project


SUITES = (
    Suite("jupyter-kernel-test", ("test_ipykernel.py",)),
    Suite("nbclient", ("tests",)),
    Suite(
        "ipykernel",
        tuple(
            f"tests/test_{name}.py"
            for name in ("async", "comm", "debugger", "displayhook", "kernel", "message_spec", "subshells")
        ),
    ),
    Suite(
        "jupyter-server",
        ("tests/services/kernels", "tests/services/sessions", "tests/services/nbconvert", "tests/nbconvert"),
    ),
    Suite(
        "jupyter-client",
        tuple(
            f"tests/test_{name}.py"
            for name in ("client", "kernelmanager", "manager", "multikernelmanager", "restarter", "transport_security")
        ),
    ),
    Suite("papermill", ("papermill/tests/test_execute.py", "papermill/tests/test_engines.py")),
)


def python() -> Path:
    """Return the interpreter that the suites, and the kernels of both sides, run under."""
    return environment(*ENVIRONMENT)


def unpack(suite: Suite, folder: Path) -> Path:
    """Unpack the sdist of the version that is installed, and return its top folder. It is fetched once."""
    program = f"import importlib.metadata as m; print(m.version({suite.project!r}))"
    version = subprocess.run([str(python()), "-c", program], capture_output=True, text=True, check=True, timeout=30)
    wanted = f"{suite.project}=={version.stdout.strip()}"
    fetched = cache_folder() / "sdists" / wanted
    if not any(fetched.glob("*.tar.gz")):
        pip = [str(python()), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", suite.project]
        run([*pip, "--dest", str(fetched), wanted])
    (archive,) = fetched.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


def verdicts(suite: Suite, top: Path, jupyter_path: Path) -> dict[str, str]:
    """Run a suite with the kernelspecs below `jupyter_path`; return `passed`, `failed` or `skipped` for each test.

    Raises RuntimeError where it cannot be run at all.
    """
    results = top.parent / f"{jupyter_path.name}.xml"
    command = [str(python()), "-m", "pytest", *suite.paths, f"--junitxml={results}", "--timeout", str(TEST_SECONDS)]
    # Their settings make errors of warnings, which newer versions of what they use give, and ask for other plugins.
    command += [
        "--timeout-method",
        "signal",
        "-o",
        "addopts=",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "-q",
        *suite.arguments,
    ]
    environ = {**os.environ, "JUPYTER_PATH": str(jupyter_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environ["PATH"] = f"{python().parent}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(
        command, cwd=top, env=environ, capture_output=True, text=True, timeout=SUITE_SECONDS, errors="replace"
    )
    top.parent.joinpath(f"{jupyter_path.name}.log").write_text(done.stdout + done.stderr)
    if not results.exists():
        raise RuntimeError(f"the suite of {suite} cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return _read(results)


def _read(results: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        verdict = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        if found.get(name) != "failed":  # a test that passes and fails to clean up has failed
            found[name] = verdict
    return found


def explained(suite: Suite, differences: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return why tests differ rightly, for those of `differences` that differences.toml knows."""
    known = tomllib.loads(DIFFERENCES.read_text())["difference"]
    return {
        test: entry["why"]
        for test in differences
        for entry in known
        if entry["project"] == suite.project and any(fnmatch(test, pattern) for pattern in entry["tests"])
    }
