"""Several kernels on one host, and kernels that the remote host's own kernelspecs describe."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from remote_kernel.cli.manager import main as manage
from remote_kernel.jupyter.connection_file import CHANNELS
from tests.support.account import Account
from tests.support.frontends import Count, kernel_of, kernel_process
from tests.support.isolation import Isolation
from tests.support.kernels import manager_for, options_for, reply_to, run, running_kernel, write_kernelspec
from tests.support.servers import Server, Servers


def test_two_kernels_do_not_mix(tmp_path: Path, target: Server, ssh_config: Path, remote_python: Path) -> None:
    options = options_for("target", ssh_config, remote_python)
    with (
        running_kernel(tmp_path, options, "first") as (_, first),
        running_kernel(tmp_path, options, "second") as (_, second),
    ):
        run(first, "x = 'of the first'")
        run(second, "x = 'of the second'")

        assert run(first, "x").result == "'of the first'"
        assert run(second, "x").result == "'of the second'"
        assert kernel_process(first) != kernel_process(second)


def test_twelve_kernels_start_at_once_through_one_connection(
    tmp_path: Path, isolation: Isolation, servers: Servers, ssh_config: Path, remote_python: Path
) -> None:
    # sshd's MaxSessions is 10: the eleventh cannot go through the connection that the first one made.
    count = Count(isolation, servers)
    write_kernelspec(tmp_path, "remote", options_for("target", ssh_config, remote_python))
    with ExitStack() as undo:
        managers = [manager_for(tmp_path, "remote") for _ in range(12)]
        for manager in managers:
            manager.start_kernel()
            undo.callback(manager.cleanup_resources)
            undo.callback(manager.shutdown_kernel, now=True)
        clients = [manager.client() for manager in managers]
        for client in clients:
            client.start_channels()
            undo.callback(client.stop_channels)
        for client in clients:
            client.wait_for_ready(timeout=90)  # twelve times an import of IPython, on as few as two cores

        numbers = [run(client, f"import os; {number}, os.getpid()").result for number, client in enumerate(clients)]

        assert [text.strip("()").split(", ")[0] for text in numbers] == [str(number) for number in range(12)]
        assert len({text.strip("()").split(", ")[1] for text in numbers}) == 12
        for manager in managers:
            manager.shutdown_kernel(now=False)
        assert count.left() == []


# -- --kernel NAME


@pytest.fixture
def write_remote_kernelspec(account: Account, remote_folder: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that puts a kernelspec (`name`, and kernel.json's fields) into the remote user's own folder."""
    kernels = account.home / ".local/share/jupyter/kernels"
    made = []

    def write(name: str, **fields: Any) -> Path:
        folder = kernels / name
        folder.mkdir(parents=True)
        made.append(folder)
        spec = {"display_name": name, "language": "python", **fields}
        (folder / "kernel.json").write_text(json.dumps(spec))
        return folder

    yield write
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture
def script(account: Account, remote_folder: Path, remote_python: Path) -> Callable[[str], str]:
    """Give a function that writes an executable Python script to the remote host and gives its path.

    Under a name without `ipykernel`: such a kernel is not taken for one that speaks `ipc`.
    """

    def write(text: str) -> str:
        path = remote_folder / "own-kernel"
        path.write_text(f"#!{remote_python}\n{textwrap.dedent(text)}")
        path.chmod(0o755)
        os.chown(path, account.uid, account.gid)
        return str(path)

    return write


OWN_KERNEL = """
    import sys
    from ipykernel.kernelapp import launch_new_instance
    sys.exit(launch_new_instance())
"""


def test_remote_kernelspec_gives_argv_and_environment(
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    write_remote_kernelspec: Callable[..., Path],
    script: Callable[[str], str],
) -> None:
    folder = write_remote_kernelspec(
        "own",
        argv=[script(OWN_KERNEL), "-f", "{connection_file}", "--IPKernelApp.name={resource_dir}"],
        env={
            "COLOUR": "blue",
            "FROM_HOME": "${HOME}/x",
            "UNKNOWN": "${NO_SUCH_VARIABLE}",
            "ASKED": "spec",
            "PLAIN": "$HOME:$COLOUR",
            "PRICE": "$$5",
        },
    )
    options = options_for("target", ssh_config, remote_python, kernel="own", env=(("ASKED", "option"),))

    extra = ["--IPKernelApp.exec_lines=said = 'by the front end'", "--", "$HOME"]
    with running_kernel(tmp_path, options, extra_arguments=extra) as (_, client):
        assert run(client, "said").result == "'by the front end'"
        names = ["COLOUR", "FROM_HOME", "UNKNOWN", "ASKED", "PLAIN", "PRICE"]
        found = run(client, f"import json, os; print(json.dumps([os.environ[n] for n in {names}]))").streams["stdout"]
        argv = json.loads(run(client, "import sys; print(json.dumps(sys.argv))").streams["stdout"])

    home = folder.parents[4]
    assert json.loads(found) == ["blue", f"{home}/x", "${NO_SUCH_VARIABLE}", "option", f"{home}:$COLOUR", "$5"]
    assert Path(argv[0]).name == "own-kernel"
    assert argv[-4:] == [f"--IPKernelApp.name={folder}", *extra]


@pytest.mark.parametrize("runs", ["exec", ""])
def test_kernel_runs_under_the_wrapper_that_was_named(
    tmp_path: Path, ssh_config: Path, remote_python: Path, remote_folder: Path, runs: str
) -> None:
    """But for one that starts Python as its child, and would get the kernel's interrupts in its place."""
    wrapper = remote_folder / "my python"
    wrapper.write_text(f'#!/bin/sh\nexport COLOUR=blue\n{runs} {remote_python} -X dev "$@"\n')
    wrapper.chmod(0o755)
    options = options_for("target", ssh_config, f"~/{remote_folder.name}/my python")
    with running_kernel(tmp_path, options) as (manager, client):
        found = run(client, "import os, sys; f\"{sys.flags.dev_mode} {os.environ['COLOUR']} {sys.executable}\"").result
        assert found == repr(f"{runs == 'exec'} blue {remote_python}")
        client.execute("import time; print('begun', flush=True); time.sleep(60)")
        while client.get_iopub_msg(timeout=10)["content"].get("text") != "begun\n":
            pass
        manager.interrupt_kernel()
        while client.get_iopub_msg(timeout=10)["msg_type"] != "error":
            pass


def test_env_written_into_kernel_json_by_hand_reaches_the_kernel(
    tmp_path: Path, ssh_config: Path, remote_python: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    options = options_for("target", ssh_config, remote_python, env=(("ASKED", "option"),))
    for name, more in {"other": {"COLOUR": "red", "LEVEL": "1"}, "spec": {"COLOUR": "blue", "THERE": "$HOME"}}.items():
        file = write_kernelspec(tmp_path / "kernels", name, options) / "kernel.json"
        env = {**more, "ASKED": "spec", "REMOTE_KERNEL_TRANSPORT": "openssh"}
        file.write_text(json.dumps({**json.loads(file.read_text()), "env": env}))
    junk = tmp_path / "kernels" / "junk"
    junk.mkdir()
    (junk / "kernel.json").write_text("[" * 100_000)
    with running_kernel(tmp_path / "kernels", options, "spec") as (_, client):
        names = ["COLOUR", "THERE", "ASKED", "LEVEL", "REMOTE_KERNEL_TRANSPORT"]
        found = run(client, f"import os; [os.environ.get(name) for name in {names}]").result
    assert found == f"['blue', '{account.home}', 'option', None, None]"


@pytest.mark.parametrize("argv0", ["python", "python3"])
def test_remote_kernelspec_with_a_bare_python_runs_the_chosen_interpreter(
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    write_remote_kernelspec: Callable[..., Path],
    argv0: str,
) -> None:
    write_remote_kernelspec("bare", argv=[argv0, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python, kernel="bare")) as (_, client):
        assert run(client, "import sys; print(sys.executable)").streams["stdout"].strip() == str(remote_python)


def test_kernel_that_may_not_speak_ipc_gets_other_ports_than_the_front_end(
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    write_remote_kernelspec: Callable[..., Path],
    script: Callable[[str], str],
) -> None:
    # The remote host is this machine, so the launcher itself occupies the five ports of the connection file there.
    write_remote_kernelspec("own", argv=[script(OWN_KERNEL), "-f", "{connection_file}"])
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python, kernel="own")) as (manager, client):
        code = "import sys\nprint(open(sys.argv[sys.argv.index('-f') + 1]).read())"
        there = json.loads(run(client, code).streams["stdout"])

        assert there["transport"] == "tcp"
        assert not {there[f"{channel}_port"] for channel in CHANNELS} & set(manager.ports)


@pytest.mark.parametrize("channel", CHANNELS)
def test_kernel_that_loses_a_port_is_started_again_with_others(
    tmp_path: Path,
    ssh_config: Path,
    remote_python: Path,
    remote_folder: Path,
    account: Account,
    write_remote_kernelspec: Callable[..., Path],
    script: Callable[[str], str],
    channel: str,
) -> None:
    runs = remote_folder / "runs"
    runs.touch()
    os.chown(runs, account.uid, account.gid)
    loses_a_port = f"""
        import json, socket, sys
        with open({str(runs)!r}, "a+") as runs:
            runs.seek(0)
            is_first = not runs.read()
            port = json.load(open(sys.argv[2]))["{channel}_port"]
            runs.write(f"{{port}}\\n")
        if is_first:
            taken = socket.create_server(("127.0.0.1", port))
    """
    program = textwrap.dedent(loses_a_port) + textwrap.dedent(OWN_KERNEL)
    write_remote_kernelspec("unlucky", argv=[script(program), "-f", "{connection_file}"])
    with running_kernel(tmp_path, options_for("target", ssh_config, remote_python, kernel="unlucky")) as (_, client):
        assert run(client, "1 + 1").result == "2"

    assert len(set(runs.read_text().split())) == 2, "two runs with different ports"


def test_remote_kernelspec_with_message_interrupts_gets_the_request(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ssh_config: Path,
    remote_python: Path,
    write_remote_kernelspec: Callable[..., Path],
    script: Callable[[str], str],
) -> None:
    # SIGINT does nothing to this one, as to a kernel on a JVM; interrupt_request does.
    deaf = """
        import os, signal, sys
        from ipykernel.ipkernel import IPythonKernel
        from ipykernel.kernelapp import IPKernelApp

        class Deaf(IPythonKernel):
            def pre_handler_hook(self):
                pass
            def post_handler_hook(self):
                pass
            def _send_interrupt_children(self):
                os.kill(os.getpid(), signal.SIGUSR1)

        class App(IPKernelApp):
            kernel_class = Deaf
            def init_signal(self):
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGUSR1, signal.default_int_handler)

        sys.exit(App.launch_instance())
    """
    argv = [script(deaf), "-f", "{connection_file}"]
    write_remote_kernelspec("deaf", argv=argv, interrupt_mode="message")
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path))
    where = ["target", "--ssh-config", str(ssh_config), "--python", str(remote_python)]
    assert manage(["add", *where, "--kernel", "deaf", "--name", "Deaf"]) == 0
    with kernel_of(manager_for(tmp_path, "deaf")) as (manager, client):
        request = client.execute("import time; time.sleep(600)")
        while client.get_iopub_msg(timeout=15)["msg_type"] != "execute_input":
            pass

        manager.interrupt_kernel()

        assert reply_to(client, request)["content"]["ename"] == "KeyboardInterrupt"
        manager.shutdown_kernel(now=False)
