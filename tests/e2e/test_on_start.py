"""A folder that is pushed to the kernel's workdir before each start."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from remote_kernel import errors
from remote_kernel.cli.manager import main
from remote_kernel.options import LaunchOptions, find_program
from tests.support.kernels import (
    launch,
    log_of,
    options_for,
    run,
    running_kernel,
    wait_until,
    write_connection_file,
)
from tests.support.relay import Relay
from tests.support.servers import Server


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with a module that a kernel can import, and something that is left out."""
    folder = tmp_path / "my project"
    (folder / "sub").mkdir(parents=True)
    (folder / "mine.py").write_text("VALUE = 1\n")
    (folder / "sub/data.txt").write_text("data")
    (folder / ".gitignore").write_text("*.ckpt\n")
    (folder / "large.ckpt").write_text("stays here")
    return folder


def pushing(config: Path, python: Path | str, project: Path, there: Path, **more: object) -> LaunchOptions:
    return options_for("target", config, python, on_start=str(project), workdir=f"{there}/work", **more)


def push_processes() -> list[psutil.Process]:
    """Give the push programs that run, and what carries their bytes."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "remote_kernel.sync.on_start" in (process.info["cmdline"] or []):
            found += [process, *process.children(recursive=True)]
    return found


@pytest.mark.parametrize("way", ["openssh", "paramiko"])
def test_kernel_finds_the_folder_as_it_is_at_each_start(
    tmp_path: Path, project: Path, ssh_config: Path, remote_python: Path, remote_folder: Path, way: str
) -> None:
    options = pushing(ssh_config, remote_python, project, remote_folder, transport=way)
    with running_kernel(tmp_path, options) as (manager, client):
        found = run(client, "import os; sorted(os.listdir()), open('sub/data.txt').read()")
        assert found.result == "(['.gitignore', 'mine.py', 'sub'], 'data')", found.error
        assert run(client, "import mine; mine.VALUE").result == "1"
        (project / "mine.py").write_text("VALUE = 'changed'\n")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        assert "changed" in run(client, "import mine; mine.VALUE").result
        assert "pushed 1 files, " in log_of(manager)
    assert not push_processes()


def test_start_fails_with_a_status_of_its_own_where_the_push_does(
    tmp_path: Path, project: Path, ssh_config: Path, remote_python: Path, remote_folder: Path, target: Server
) -> None:
    file = write_connection_file(tmp_path / "kernel.json")
    options = pushing(ssh_config, remote_python, project, remote_folder)
    gone = launch(options._replace(on_start=f"{project}/gone"), file)
    assert gone.returncode == errors.PushFailed.exit_status
    assert f"there is no folder '{project}/gone' here" in gone.stderr.splitlines()[-1]
    assert "edit KERNELSPEC --on-start ''" in gone.stderr.splitlines()[-1]
    work = remote_folder / "work"
    (work / "mine.py").mkdir(parents=True)  # a folder is in the file's place
    subprocess.run(["chown", "-R", f"{target.account.uid}", str(work)], check=True)
    failed = launch(options, file)
    assert failed.returncode == errors.PushFailed.exit_status
    last = failed.stderr.splitlines()[-1]
    assert f"cannot push '{project}' to target before the kernel starts: 1 path could not be copied: 'mine.py'" in last
    assert (work / "sub/data.txt").exists()
    assert not target.processes()


def test_way_there_that_fails_is_told_as_without_a_push(
    tmp_path: Path, project: Path, ssh_config: Path, remote_python: Path, remote_folder: Path
) -> None:
    file = write_connection_file(tmp_path / "kernel.json")
    options = pushing(ssh_config, "/no/such/python", project, remote_folder)
    with_it, without = launch(options, file), launch(options._replace(on_start="", workdir=""), file)
    assert (with_it.returncode, with_it.stderr) == (without.returncode, without.stderr)
    assert with_it.returncode == errors.PythonNotFound.exit_status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("way", ["openssh", "paramiko"])
def test_launcher_that_ends_in_the_middle_of_a_push_leaves_nothing(
    number: signal.Signals,
    way: str,
    tmp_path: Path,
    project: Path,
    network: tuple[Relay, Path],
    remote_python: Path,
    remote_folder: Path,
    target: Server,
) -> None:
    relay, config = network
    (project / "huge").write_bytes(os.urandom(20 << 20))
    relay.bytes_per_second = 2 << 20
    file = write_connection_file(tmp_path / "kernel.json")
    options = pushing(config, remote_python, project, remote_folder, transport=way)
    program = find_program()
    assert program
    launcher = subprocess.Popen(
        [program, *options._replace(connection_file=str(file)).to_arguments()],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: list((remote_folder / "work").glob(".remote_kernel-*.part")), 60)
        assert push_processes()
        os.killpg(launcher.pid, number)  # what jupyter_client does
        began = time.monotonic()
        launcher.wait(30)
        assert number == signal.SIGKILL or time.monotonic() - began < 10
        assert wait_until(lambda: not push_processes(), 20)
        relay.bytes_per_second = 0
        assert wait_until(lambda: not target.processes(), 30)
    finally:
        launcher.kill()
        launcher.wait()
    assert not (remote_folder / "work/huge").exists()


def test_connection_cut_in_the_middle_of_a_push_delays_the_start_only(
    tmp_path: Path, project: Path, network: tuple[Relay, Path], remote_python: Path, remote_folder: Path
) -> None:
    relay, config = network
    (project / "huge").write_bytes(os.urandom(10 << 20))
    relay.bytes_per_second = 5 << 20
    cuts = []

    def cut_once() -> bool:
        parts = list((remote_folder / "work").glob(".remote_kernel-*.part"))
        if parts and parts[0].stat().st_size > 2 << 20:
            relay.cut()
            relay.bytes_per_second = 0
            cuts.append(1)
        return bool(cuts)

    import threading

    thread = threading.Thread(target=wait_until, args=(cut_once, 60))
    thread.start()
    with running_kernel(tmp_path, pushing(config, remote_python, project, remote_folder)) as (_, client):
        thread.join()
        assert cuts
        assert run(client, "import os; os.path.getsize('huge')").result == str(10 << 20)


def test_setting_is_added_shown_changed_and_examined(
    tmp_path: Path,
    project: Path,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    monkeypatch.chdir(project.parent)
    words = ["--ssh-config", str(ssh_config), "--python", str(remote_python), "--workdir", f"{remote_folder}/new"]
    assert main(["add", "target", "--name", "It", *words, "--on-start", "nowhere"]) == 2
    assert f"there is no folder {project.parent}/nowhere here" in capfd.readouterr().err
    assert main(["add", "target", "--name", "It", *words, "--on-start", project.name]) == 0  # starts a kernel once
    assert (remote_folder / "new/mine.py").exists()
    capfd.readouterr()
    assert main(["list", "--json"]) == 0
    assert f'"on_start": "{project}"' in capfd.readouterr().out
    assert main(["doctor", "it", "--no-start"]) == 0
    assert f"once '{project}' has been pushed there" in capfd.readouterr().out
    project.rename(project.with_name("away"))
    assert main(["doctor", "it", "--no-start"]) != 0
    assert f"there is no folder '{project}' here" in capfd.readouterr().out
    assert main(["edit", "it", "--on-start", ""]) == 0
    assert main(["list", "--json"]) == 0
    assert '"on_start": ""' in capfd.readouterr().out
