"""Kernels that outlive their front end: kept, listed, stopped, and resumed in another front end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import nbformat
import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from remote_kernel.cli.manager import main
from remote_kernel.kernelspec.installed import Kernelspec, list_kernelspecs
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.kernelspec.writing import write_kernelspec as install
from remote_kernel.options import find_program
from tests.support.isolation import Isolation
from tests.support.kernels import (
    launch,
    log_of,
    manager_for,
    options_for,
    run,
    running_kernel,
    wait_until,
    write_connection_file,
)
from tests.support.servers import Server


class Said(NamedTuple):
    """What the manager's command line said."""

    status: int
    out: str
    err: str


Manage = Callable[..., Said]


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a kernels folder of the test's own, in which Jupyter looks too."""
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return tmp_path / "kernels"


@pytest.fixture
def manage(target: Server, capfd: pytest.CaptureFixture[str]) -> Iterator[Manage]:
    """Run the manager's commands; whatever kernels there are at the end of the test are stopped."""

    def call(*words: str) -> Said:
        capfd.readouterr()
        status = main(list(words))
        return Said(status, *capfd.readouterr())

    yield call
    call("stop", "--all")


@pytest.fixture
def kept(kernels: Path, ssh_config: Path, remote_python: Path) -> Kernelspec:
    """Install a kernelspec whose kernels are kept."""
    return install(Draft("Kept", options_for("target", ssh_config, remote_python, keep=True)), kernels)


def listed(manage: Manage) -> list[dict[str, Any]]:
    """Give what `ps` says."""
    said = manage("ps", "--json")
    assert said.status == 0, said.err
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def only(manage: Manage) -> dict[str, Any]:
    """Give the one kernel that runs."""
    rows = listed(manage)
    assert len(rows) == 1, rows
    (kernel,) = rows
    return kernel


@contextmanager
def front_end(folder: Path, slug: str, **start: Any) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """Start a kernelspec as jupyter_client does, and close it so."""
    with running_kernel(folder, None, slug, **start) as both:  # type: ignore[arg-type]
        yield both


def start_kept(kernels: Path, kept: Kernelspec, code: str) -> None:
    """Start a kernel, run a cell, and close the front end as jupyter_client does."""
    with front_end(kernels, kept.slug) as (_, client):
        assert run(client, code).status == "ok"


def resumed(manage: Manage, identity: str, *more: str) -> str:
    """Resume a kernel and give its kernelspec's slug."""
    said = manage("resume", identity, *more)
    assert said.status == 0, said.err
    return next(spec.slug for spec in list_kernelspecs() if spec.options and spec.options.resume)


@pytest.mark.over_both
def test_kernel_lives_when_its_front_end_closes_and_can_be_resumed(
    manage: Manage, kernels: Path, kept: Kernelspec
) -> None:
    with front_end(kernels, "kept") as (manager, client):
        assert run(client, "x = 41").status == "ok"
        kernel = only(manage)
        assert (kernel["state"], kernel["slug"], kernel["keep"]) == ("connected", "kept", True)
        assert kernel["memory"] > 10 << 20
        manager.shutdown_wait_time = 60.0  # the launcher is not to need a signal
        begun = time.monotonic()
    assert time.monotonic() - begun < 20, "a kept kernel's front end closes at once"
    assert wait_until(lambda: only(manage)["state"] == "kept")
    kernel = only(manage)

    slug = resumed(manage, kernel["id"][:5])
    with front_end(kernels, slug) as (_, client):
        assert run(client, "x + 1").result == "42"
        assert only(manage)["state"] == "connected"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(x)")])
    specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    done = NotebookClient(notebook, kernel_name=slug, kernel_manager_class=_manager_class(specs)).execute()
    assert done.cells[0].outputs[0]["text"] == "41\n"
    assert only(manage)["id"] == kernel["id"]

    said = manage("stop", kernel["id"])
    assert (said.status, said.out) == (0, f"ended {kernel['id']} on {kernel['host']}\n")
    assert listed(manage) == []
    assert [spec.slug for spec in list_kernelspecs()] == ["kept"], "the resumed kernel's kernelspec went with it"


def _manager_class(specs: KernelSpecManager) -> type:
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        def __init__(self, **more: Any) -> None:
            super().__init__(kernel_spec_manager=specs, **more)

    return Manager


def test_running_cell_goes_on_when_the_front_end_closes(
    manage: Manage, kernels: Path, kept: Kernelspec, remote_folder: Path
) -> None:
    with front_end(kernels, "kept") as (_, client):
        run(client, "import time, os")
        client.execute(f"for n in range(30): open({str(remote_folder / 'n')!r}, 'w').write(str(n)); time.sleep(0.1)")
        assert wait_until((remote_folder / "n").exists)
    assert wait_until(lambda: (remote_folder / "n").read_text() == "29"), "jupyter_client's interrupt reached the cell"


def test_interrupt_and_restart_still_work_on_a_kept_kernel(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    with front_end(kernels, "kept") as (manager, client):
        run(client, "x = 1; import time")
        client.execute("time.sleep(60)")
        assert client.get_iopub_msg(timeout=10)["content"]["execution_state"] == "busy"
        manager.interrupt_kernel()
        while client.get_iopub_msg(timeout=10)["msg_type"] != "error":
            pass
        before = only(manage)["id"]
        manager.restart_kernel()
        client.wait_for_ready(timeout=60)
        assert "NameError" in run(client, "x").error
        assert only(manage)["id"] != before, "a restart ends the old kernel, kept or not"


def test_restart_ends_a_kept_kernel_that_does_not_heed_it(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    """Such as one whose cell computes in C, which is why it is restarted: nobody would miss it, and it goes on."""
    with front_end(kernels, "kept") as (manager, client):
        run(client, "import signal, time")
        client.execute("signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)")
        while client.get_iopub_msg(timeout=10)["content"].get("text") != "deaf\n":
            pass
        before = only(manage)["id"]
        manager.restart_kernel()
        client.wait_for_ready(timeout=60)
        assert only(manage)["id"] != before


def test_restart_of_a_resumed_kernel_gives_a_fresh_one_of_its_kind(
    manage: Manage,
    kernels: Path,
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    isolation: Isolation,
) -> None:
    there = remote_folder / "work"
    (tmp_path / "project").mkdir()
    pushed = tmp_path / "project/mine.txt"
    pushed.write_text("0")
    options = options_for("target", ssh_config, remote_python, keep=True, env=(("WHO", "me"),), workdir=str(there))
    kept = install(Draft("Kept", options._replace(on_start=str(tmp_path / "project"))), kernels)
    start_kept(kernels, kept, "x = 1")
    old = only(manage)["id"]
    history = "get_ipython().history_manager.hist_file"
    more = ["--HistoryManager.hist_file=:memory:"]
    with front_end(kernels, resumed(manage, old), extra_arguments=more) as (manager, client):
        assert ":memory:" not in run(client, history).result, "that is for a kernel that starts"
        assert f"ignored, because it runs already: {more[0]}" in log_of(manager)
        for turn in ("1", "2"):
            run(client, "x = 2")
            assert run(client, "open('mine.txt').read()").result == f"'{int(turn) - 1}'"
            pushed.write_text(turn)
            manager.restart_kernel()
            client.wait_for_ready(timeout=60)
            assert "NameError" in run(client, "x").error
            assert run(client, "import os\nos.environ['WHO'], os.getcwd()").result == f"('me', '{there}')"
            assert run(client, "open('mine.txt').read()").result == f"'{turn}'"
            assert run(client, history).result == "':memory:'"
            fresh = only(manage)
            assert fresh["id"] != old and fresh["slug"] == "kept" and fresh["keep"]
    assert wait_until(lambda: only(manage)["state"] == "kept")
    assert wait_until(lambda: not (isolation.runtime / "remote_kernel" / f"restart-{old}").exists())


def test_killed_launcher_leaves_a_kept_kernel(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    with front_end(kernels, "kept") as (manager, client):
        run(client, "x = 'still here'")
        psutil.Process(manager.provisioner.pid).kill()  # type: ignore[union-attr]
        assert wait_until(lambda: not manager.is_alive())
    assert wait_until(lambda: not only(manage)["launchers"], 20)
    with front_end(kernels, resumed(manage, only(manage)["id"])) as (_, client):
        assert run(client, "x").result == "'still here'"


def test_keep_saves_a_running_kernel_that_was_not_to_be_kept(
    manage: Manage, kernels: Path, ssh_config: Path, remote_python: Path
) -> None:
    install(Draft("Plain", options_for("target", ssh_config, remote_python)), kernels)
    with front_end(kernels, "plain") as (_, client):
        run(client, "x = 1")
        said = manage("keep", only(manage)["id"])
        assert said.status == 0, said.err
    assert wait_until(lambda: only(manage)["state"] == "kept")


def test_two_front_ends_have_their_own_replies_and_all_output(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    with front_end(kernels, "kept") as (_, one):
        run(one, "x = 1")
        slug = resumed(manage, only(manage)["id"])
        with front_end(kernels, slug) as (_, two):
            assert run(two, "x += 1; x").result == "2"
            seen = [one.get_iopub_msg(timeout=10) for _ in range(4)]
            while not any(message["msg_type"] == "execute_result" for message in seen):
                seen.append(one.get_iopub_msg(timeout=10))
            assert run(one, "x += 1; x").result == "3"
            kernel = only(manage)
            assert (kernel["launchers"], kernel["state"]) == (2, "connected")
        assert run(one, "x").result == "3", "the first front end goes on when the second leaves"


def test_input_and_interrupt_and_buffers_through_the_relay(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    start_kept(kernels, kept, "import time")
    slug = resumed(manage, only(manage)["id"])
    with front_end(kernels, slug) as (manager, client):
        request = client.execute("answer = input('who? ')", allow_stdin=True)
        assert client.get_stdin_msg(timeout=10)["content"]["prompt"] == "who? "
        client.input("me")
        assert client.get_shell_msg(timeout=10)["parent_header"]["msg_id"] == request
        assert run(client, "answer").result == "'me'"

        client.execute("time.sleep(60)")
        time.sleep(0.5)  # the kernel's busy comes before the cell runs; what is meant is a cell that sleeps
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=10)["content"]
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")

        while True:
            try:
                client.get_iopub_msg(timeout=0.5)
            except Empty:
                break
        client.execute(
            "from comm import create_comm\n"
            "create_comm(target_name='t', data={'n': 1}, buffers=[bytes(range(256)) * 40000, b'second'])"
        )
        while (message := client.get_iopub_msg(timeout=10))["msg_type"] != "comm_open":
            pass
        assert [bytes(part) for part in message["buffers"]] == [bytes(range(256)) * 40000, b"second"]
        large = run(client, "print('0123456789' * 2_000_000)", timeout=60)
        assert len(large.streams["stdout"]) == 20_000_001
        assert client.hb_channel.is_beating()


def test_start_as_vs_code_starts_it(manage: Manage, kernels: Path, kept: Kernelspec, tmp_path: Path) -> None:
    """New ports and a new key each time; no shutdown_request ever, but SIGTERM; the restart overlaps."""
    start_kept(kernels, kept, "x = 7")
    slug = resumed(manage, only(manage)["id"])
    argv = json.loads((kernels / slug / "kernel.json").read_text())["argv"]
    running = []
    for number in range(2):
        path = write_connection_file(tmp_path / f"kernel-v3{number}.json")
        words = [word.replace("{connection_file}", str(path)) for word in argv]
        running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE))
        client = BlockingKernelClient(connection_file=str(path))
        client.load_connection_file()
        client.start_channels(hb=False)
        try:
            client.wait_for_ready(timeout=30)
            assert run(client, "x").result == "7"
        finally:
            client.stop_channels()
    for process in running:
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert (process.returncode, said) == (0, b"")
    assert wait_until(lambda: only(manage)["state"] == "kept")


def test_forged_message_does_not_reach_the_kernel(
    manage: Manage, kernels: Path, kept: Kernelspec, isolation: Isolation
) -> None:
    start_kept(kernels, kept, "x = 1")
    with front_end(kernels, resumed(manage, only(manage)["id"])) as (manager, client):
        forger = BlockingKernelClient(connection_file=manager.connection_file)
        forger.load_connection_file()
        forger.session.key = b"guessed"
        forger.start_channels()
        try:
            forger.execute("x = 'forged'")
            log = isolation.jupyter_runtime / f"remote_kernel-{Path(manager.connection_file).stem}.log"
            assert wait_until(lambda: "wrongly signed came from the front end on shell" in log.read_text())
            assert "guessed" not in log.read_text()
        finally:
            forger.stop_channels()
        assert run(client, "x").result == "1"


def test_crashed_machine_finds_its_kernel_again(
    manage: Manage, kernels: Path, target: Server, ssh_config: Path, remote_python: Path
) -> None:
    """Launcher and ssh are gone at once and the connection with them: nobody says bye."""
    install(Draft("Plain", options_for("target", ssh_config, remote_python)), kernels)
    manager = manager_for(kernels, "plain")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        run(client, "x = 'long work'")
    finally:
        client.stop_channels()
    launcher = psutil.Process(manager.provisioner.pid)  # type: ignore[union-attr]
    target.freeze(sessions=True)
    launcher.kill()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):  # another test's, which has just ended
            if process.name() == "ssh" and str(ssh_config) in " ".join(_words(process)):
                process.kill()
    target.kill_sessions()
    target.thaw()
    manager.shutdown_kernel(now=True)

    assert wait_until(lambda: only(manage)["state"] == "away")
    slug = resumed(manage, only(manage)["id"])
    with front_end(kernels, slug) as (_, client):
        assert run(client, "x").result == "'long work'"


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_kernel_that_ends_takes_its_kernelspec_along(
    manage: Manage, kernels: Path, kept: Kernelspec, tmp_path: Path
) -> None:
    start_kept(kernels, kept, "x = 1")
    slug = resumed(manage, only(manage)["id"])
    spec = next(spec for spec in list_kernelspecs() if spec.slug == slug)
    with front_end(kernels, slug) as (manager, client):
        client.execute("exit()")
        assert wait_until(lambda: not manager.is_alive())
        assert not (kernels / slug).exists()

    assert spec.options
    spec.folder.mkdir()
    document = {"argv": [find_program(), *spec.options.to_arguments()], "display_name": "Again", "language": "python"}
    document["metadata"] = {"remote_kernel": {"version": "1", "host": os.uname().nodename}}
    (spec.folder / "kernel.json").write_text(json.dumps(document))
    done = launch(spec.options, write_connection_file(tmp_path / "gone.json"))
    assert done.returncode == 51
    assert "is no longer on" in done.stderr
    assert not spec.folder.exists()


def test_ps_names_a_host_that_does_not_answer(
    manage: Manage, kernels: Path, kept: Kernelspec, ssh_config: Path, remote_python: Path
) -> None:
    nowhere = options_for("nobody@127.0.0.1:1", ssh_config, remote_python)
    install(Draft("Nowhere", nowhere), kernels)
    start_kept(kernels, kept, "x = 1")
    said = manage("ps")
    assert said.status == 0
    assert " kept " in said.out
    assert said.err.count("\n") == 1 and "127.0.0.1:1" in said.err
    said = manage("ps", "nowhere")
    assert (said.status, said.out) == (24, "")
    said = manage("stop", "0123456789ab")
    assert said.status == 53
    assert "no answer came from nobody@127.0.0.1:1" in said.err


@pytest.mark.parametrize("command", ["stop", "keep", "logs", "resume"])
def test_unknown_id_is_an_error(manage: Manage, kept: Kernelspec, command: str) -> None:
    said = manage(command, "0123456789ab")
    assert (said.status, said.out) == (53, "")
    assert "there is no kernel '0123456789ab'" in said.err
    assert manage(command, "012").status == 2


def test_logs_shows_what_the_kernel_process_printed(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    start_kept(kernels, kept, "import os; os.write(2, b'one\\ntwo\\nthree\\n')")
    said = manage("logs", only(manage)["id"], "-n", "2")
    assert said.status == 0, said.err
    assert "two\nthree\n" in said.out
    assert "one" not in said.out


def test_what_cells_printed_while_nobody_was_there_is_shown(
    manage: Manage, kernels: Path, kept: Kernelspec, remote_folder: Path
) -> None:
    with front_end(kernels, "kept") as (_, client):
        run(client, "import time, os; print('seen')")
        client.execute(
            f"while not os.path.exists({str(remote_folder / 'go')!r}): time.sleep(0.05)\n"
            "for n in range(2000): print('meanwhile', n)\n"
            "1 / 0"
        )
        assert client.get_iopub_msg(timeout=10)
    (remote_folder / "go").touch()
    identity = only(manage)["id"]
    assert wait_until(lambda: "ZeroDivisionError" in manage("logs", identity, "-n", "5").out)
    said = manage("logs", identity, "-n", "100000").out
    assert [line for line in said.splitlines() if line.startswith("meanwhile")] == [
        f"meanwhile {n}" for n in range(2000)
    ]
    assert "seen" not in said

    slug = resumed(manage, identity)
    with front_end(kernels, slug) as (_, client):
        run(client, "print('heard by a front end')")
    assert "heard by a front end" not in manage("logs", identity, "-n", "100000").out


def test_ps_tells_busy_from_idle(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    with front_end(kernels, "kept") as (manager, client):
        run(client, "1")
        assert wait_until(lambda: not only(manage)["busy"])
        client.execute("while True: pass")
        assert wait_until(lambda: only(manage)["busy"])
        manager.interrupt_kernel()
        client.get_shell_msg(timeout=10)


def test_stop_ends_a_kernel_whose_front_end_is_attached(manage: Manage, kernels: Path, kept: Kernelspec) -> None:
    with front_end(kernels, "kept") as (manager, client):
        run(client, "1")
        assert manage("stop", "--all").status == 0
        assert wait_until(lambda: not manager.is_alive())
    assert listed(manage) == []


def test_a_chosen_folder_keeps_what_was_in_it(
    kept: Kernelspec,
    manage: Manage,
    tmp_path: Path,
    remote_folder: Path,
    target: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("data/a.csv", "0123456789ab/kernel.json", "top.txt"):
        path = remote_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for path in (remote_folder, *remote_folder.rglob("*")):
        os.chown(path, target.account.uid, target.account.gid)
    before = sorted(path for path in remote_folder.rglob("*"))
    mode = remote_folder.stat().st_mode
    monkeypatch.setenv("REMOTE_CONN_DIR", str(remote_folder))
    assert kept.options
    with running_kernel(tmp_path, kept.options):
        identity = only(manage)["id"]
        assert (remote_folder / f"remote_kernel-{target.account.uid}" / identity).is_dir()
    assert manage("stop", identity).status == 0
    assert listed(manage) == []
    assert sorted(path for path in remote_folder.rglob("*")) == before
    assert remote_folder.stat().st_mode == mode
