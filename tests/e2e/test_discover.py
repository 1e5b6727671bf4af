"""`remote_kernel add --discover` on a host with environments of every kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
import typer

from remote_kernel.cli import add_discovered
from remote_kernel.cli.manager import main
from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import KernelNotInstalled, UsageError
from remote_kernel.kernelspec.discovery import Discovery, Environment, install_ipykernel, make_environment, probe
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.options import LaunchOptions, find_program
from tests.support.interpreters import UV, base_python, environment
from tests.support.kernels import options_for
from tests.support.servers import Server


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a kernels folder of the test's own."""
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def make_venv(folder: Path, *packages: str, cfg: str = "") -> Path:
    """Make an environment without pip, and pretend that packages are installed; give its interpreter."""
    subprocess.run([str(base_python()), "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in packages:
        name, version = package.split("==")
        (site / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    with (folder / "pyvenv.cfg").open("a") as file:
        file.write(cfg)
    return folder / "bin" / "python"


@pytest.fixture
def environments(target: Server, remote_folder: Path, remote_python: Path) -> Iterator[dict[str, Path]]:
    """Put one environment of each kind where its tool does; give their interpreters by what they are called."""
    conda = target.home / "miniforge3"
    made = {
        "conda base": make_venv(conda),
        "conda": make_venv(conda / "envs" / "vision", "torch==2.4.1"),
        "venv": make_venv(remote_folder / "plain" / "venv", "jax==0.4.30"),
        "uv": make_venv(remote_folder / "quick" / ".venv", cfg="uv = 0.4.18\n"),
        "pixi": make_venv(remote_folder / "deep" / ".pixi" / "envs" / "default"),
        "good": remote_folder / "good" / ".venv" / "bin" / "python",
    }
    for prefix in (conda, conda / "envs" / "vision", made["pixi"].parents[1]):
        (prefix / "conda-meta").mkdir()
    (remote_folder / "good").mkdir()
    (remote_folder / "good" / ".venv").symlink_to(remote_python.parents[1])
    broken = remote_folder / "broken" / "venv"
    (broken / "bin").mkdir(parents=True)
    (broken / "pyvenv.cfg").touch()
    (broken / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (broken / "bin" / "python").chmod(0o755)
    made["broken"] = broken / "bin" / "python"
    r = target.home / ".local/share/jupyter/kernels/ir"
    r.mkdir(parents=True)
    (r / "kernel.json").write_text(
        json.dumps({"argv": ["R", "{connection_file}"], "display_name": "R", "language": "R"})
    )
    yield made
    shutil.rmtree(conda)
    shutil.rmtree(r)


def found(ssh_config: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Give what `--json` tells."""
    capfd.readouterr()
    assert main(["add", "--discover", "target", "--ssh-config", str(ssh_config), "--json"]) == 0
    return dict(json.loads(capfd.readouterr().out))


def test_every_kind_is_found_and_told_apart(
    environments: dict[str, Path], ssh_config: Path, remote_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    everything = found(ssh_config, capfd)
    assert time.monotonic() - began < 15  # 5 s where nothing else runs
    by_path = {one["python"]: one for one in everything["environments"]}
    kinds = {name: by_path[str(python)]["kind"] for name, python in environments.items() if name != "broken"}
    names = {name: by_path[str(python)]["name"] for name, python in environments.items() if name != "broken"}
    assert kinds == {
        "conda base": "conda",
        "conda": "conda",
        "venv": "venv",
        "uv": "uv",
        "pixi": "pixi",
        "good": "venv",
    }
    assert names == {
        "conda base": "miniforge3 base",
        "conda": "vision",
        "venv": "plain",
        "uv": "quick",
        "pixi": "deep",
        "good": "good",
    }
    assert by_path[str(environments["conda"])]["torch"] == "2.4.1"
    assert by_path[str(environments["venv"])]["jax"] == "0.4.30"
    assert int(by_path[str(environments["good"])]["ipykernel"].split(".")[0]) >= 7
    assert by_path[str(environments["uv"])]["ipykernel"] is None
    assert everything["silent"] == [str(environments["broken"])]
    assert {"name": "ir", "display_name": "R", "language": "R"} in everything["kernelspecs"]
    assert [one["kind"] for one in by_path.values()].count("system") >= 1
    assert list_kernelspecs() == []


def test_all_adds_what_can_run_a_kernel(
    environments: dict[str, Path], ssh_config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["add", "--discover", "target", "--ssh-config", str(ssh_config), "--all", "--no-check"]
    assert main(words) == 0
    said = capfd.readouterr()
    specs = {spec.slug: spec.options for spec in list_kernelspecs()}
    assert set(specs) == {"good_target", "r_target"}
    assert specs["good_target"] and specs["good_target"].python == str(environments["good"])
    assert specs["r_target"] and specs["r_target"].kernel == "ir"
    assert f"{environments['uv']} has no ipykernel: give --install" in said.err
    assert "system's own" in said.err
    assert main(words) == 0  # once more adds nothing
    assert f"{environments['good']} is here already, as good_target" in capfd.readouterr().err
    assert len(list_kernelspecs()) == 2


def test_interpreter_that_is_here_already_is_known_by_the_tilde_and_as_the_default(
    target: Server, ssh_config: Path, remote_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = make_venv(target.home / "it" / ".venv")
    words = ["target", "--ssh-config", str(ssh_config), "--no-check", "--name"]
    try:
        assert main(["add", *words, "By the tilde", "--python", "~/it/.venv/bin/python"]) == 0
        assert main(["add", *words, "Default"]) == 0
        slugs = {one["python"]: one["slug"] for one in found(ssh_config, capfd)["environments"]}
    finally:
        shutil.rmtree(target.home / "it")
    assert slugs[str(python)] == "by_the_tilde"
    assert "default" in [slug for path, slug in slugs.items() if Path(path).name.startswith("python3")]


def test_nobody_is_asked_where_nothing_can_be_added(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    python = "/home/me/it/bin/python"
    bare = Environment(python, "venv", "it", "3.12.0", ipykernel="", torch="", jax="")
    monkeypatch.setattr(add_discovered, "discover", lambda _: Discovery("gpu1", "/home/me", "", [], [bare], [], [], []))
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: pytest.fail("somebody is asked"))
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert main(["add", "--discover", "gpu1"]) == 0
    assert f"{python} has no ipykernel: give --install to put it there\nnothing is added\n" in capfd.readouterr().err
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: "none")
    assert main(["add", "--discover", "gpu1", "--install"]) == 0
    assert "nothing is added" not in capfd.readouterr().err


@pytest.mark.parametrize("answer", ["0", "3", "²", "x", "all 1", "9" * 5000])
def test_answer_that_is_no_choice_is_refused(answer: str) -> None:
    offer = add_discovered.Addable(("",) * 8, Draft("x", LaunchOptions(Endpoint("gpu1"))), False, False, "")
    with pytest.raises(UsageError, match="write numbers from 1 to 2, 'all' or 'none'"):
        add_discovered._picked(answer, [offer, offer], install=False)


def test_chosen_at_the_terminal_is_tried_and_added(environments: dict[str, Path], ssh_config: Path) -> None:
    program = find_program()
    assert program
    words = ["add", "--discover", "target", "--ssh-config", str(ssh_config)]
    env = {**os.environ, "COLUMNS": "250"}  # pytest's own may say otherwise
    spawned = pexpect.spawn(program, words, encoding="utf-8", timeout=60, dimensions=(60, 250), env=env)
    try:
        spawned.expect(r"(\d+) +good +venv [^\n]*\n")
        assert spawned.match
        number = spawned.match[1]
        spawned.expect("add which")
        spawned.sendline("99")
        spawned.expect("'99' is not a choice")
        spawned.expect("add which")
        spawned.sendline(number)
        spawned.expect("it answered after")
        spawned.expect("added 'good .target.' as good_target")
        spawned.expect(pexpect.EOF)
    finally:
        spawned.close(force=True)
    assert [spec.slug for spec in list_kernelspecs()] == ["good_target"]


@pytest.mark.parametrize(("kind", "tool"), [("conda", "miniforge3/bin/conda"), ("uv", ".local/bin/uv")])
def test_install_uses_the_tool_of_the_environment(
    environments: dict[str, Path], target: Server, ssh_config: Path, remote_folder: Path, kind: str, tool: str
) -> None:
    # A stand-in for the tool notes what it is asked for: the real ones would download half a gigabyte.
    path = target.home / tool
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" > {remote_folder}/asked\n')
    path.chmod(0o755)
    os.chown(remote_folder, target.account.uid, target.account.gid)
    python = environments[kind]
    try:
        said = install_ipykernel(options_for("target", ssh_config, python))
        asked = (remote_folder / "asked").read_text().split()
        assert said.split() == [str(path), *asked]
        expected = ["-p", str(python.parents[1])] if kind == "conda" else ["--python", str(python)]
        assert set(expected) < set(asked) and "ipykernel" in asked
    finally:
        path.unlink()


@pytest.fixture
def wheels(remote_folder: Path) -> Path:
    """Return a folder with a small ipykernel to install, in place of a package index."""
    wheel = remote_folder / "wheels" / "ipykernel-7.99.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "ipykernel-7.99.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ipykernel\nVersion: 7.99.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return wheel.parent


@pytest.fixture
def uv(target: Server, wheels: Path) -> Iterator[Path]:
    """Give the real uv, where its installer puts it; it takes packages from a folder, which has a small ipykernel."""
    config = target.home / ".config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'find-links = ["{wheels}"]\nno-index = true\n')
    program = target.home / ".local" / "bin" / "uv"
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(environment(*UV).parent / "uv", program)
    yield program
    program.unlink()
    shutil.rmtree(config.parent)
    shutil.rmtree(target.home / ".cache" / "uv", ignore_errors=True)


def test_environment_of_the_real_uv_is_found_and_gets_ipykernel_from_uv(
    uv: Path, target: Server, ssh_config: Path, remote_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = remote_folder / "quick"
    made = f"{uv} venv --quiet --python {base_python()} {project}/.venv"
    subprocess.run(["ssh", "-F", str(ssh_config), "target", made], check=True, timeout=60, stdin=subprocess.DEVNULL)
    python = project / ".venv" / "bin" / "python"

    before = {one["python"]: one for one in found(ssh_config, capfd)["environments"]}[str(python)]
    assert (before["kind"], before["name"], before["ipykernel"]) == ("uv", "quick", None)
    assert not list(project.glob(".venv/lib/*/site-packages/pip"))  # so nothing else than uv can do it
    assert install_ipykernel(options_for("target", ssh_config, python)).startswith(f"{uv} pip install")
    after = {one["python"]: one for one in found(ssh_config, capfd)["environments"]}[str(python)]
    assert after["ipykernel"] == "7.99.0"


def test_what_pixi_has_to_install_is_told(environments: dict[str, Path], ssh_config: Path) -> None:
    python = environments["pixi"]
    with pytest.raises(KernelNotInstalled) as told:
        install_ipykernel(options_for("target", ssh_config, python))
    assert told.value.hint == f"run 'pixi add ipykernel' in {python.parents[4]}"


def test_the_systems_python_is_left_alone(ssh_config: Path) -> None:
    with pytest.raises(KernelNotInstalled, match="the system's own Python, which is never changed"):
        install_ipykernel(options_for("target", ssh_config, "/usr/bin/python3"))


def test_new_environment_is_made_at_a_path_that_did_not_exist_or_not_at_all(
    target: Server, ssh_config: Path, wheels: Path
) -> None:
    options = options_for("target", ssh_config, "/usr/bin/python3")
    mine, made, config = target.home / ".venv", target.home / ".venv-2", target.home / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    mine.symlink_to("/nowhere")  # a link to a disk that is away is there too
    try:
        config.write_text(f"[global]\nno-index = true\nfind-links = {wheels}/none\n")
        with pytest.raises(KernelNotInstalled, match=r"-m pip install .* failed .*ipykernel"):
            make_environment(options)
        assert not made.exists()
        config.write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")
        python = make_environment(options)
        assert python == str(made / "bin" / "python")
        answer = probe(options._replace(python=python))
        assert (answer.ipykernel_version, answer.is_the_systems) == ("7.99.0", False)
        assert answer.new_environment == "~/.venv-3"
        assert mine.readlink() == Path("/nowhere")
    finally:
        mine.unlink()
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(config.parent)


def test_managed_python_is_left_alone(ssh_config: Path, remote_folder: Path, target: Server) -> None:
    # An interpreter in a folder of its own, marked as PEP 668 has it: Homebrew's is one, and those that uv installs.
    prefix = remote_folder / "managed"
    (prefix / "bin").mkdir(parents=True)
    real = base_python().resolve()
    (prefix / "bin" / "python3").symlink_to(real)
    version = subprocess.run(
        [str(real), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True
    )
    stdlib = prefix / "lib" / f"python{version.stdout.decode().strip()}"
    (prefix / "lib").mkdir()
    shutil.copytree(
        real.parents[1] / "lib" / stdlib.name, stdlib, symlinks=True, ignore=shutil.ignore_patterns("test*")
    )
    (stdlib / "EXTERNALLY-MANAGED").write_text("[externally-managed]\nError=use an environment\n")
    with pytest.raises(KernelNotInstalled, match="never changed"):
        install_ipykernel(options_for("target", ssh_config, prefix / "bin" / "python3"))
