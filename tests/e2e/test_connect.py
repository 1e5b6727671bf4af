"""`remote_kernel connect` at a real terminal and off it: the kernel's folder, interpreter, variables; the keys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from remote_kernel.cli.connect import shell_command
from remote_kernel.cli.manager import main
from remote_kernel.endpoint import Endpoint
from remote_kernel.options import LaunchOptions, find_program
from remote_kernel.transport import masters
from tests.support.kernels import options_for, write_kernelspec
from tests.support.servers import Server, Servers, server_with_terminals

OVER = pytest.mark.parametrize("over", ["openssh", "paramiko"])


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a kernels folder of the test's own."""
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture(scope="module")
def terminals(servers: Servers) -> Iterator[Path]:
    """Give an ssh config whose `target` gives terminals."""
    folder = Path(tempfile.mkdtemp(prefix="rk-terminals-", dir="/var/tmp"))
    with server_with_terminals(servers, folder) as config:
        yield config
    shutil.rmtree(folder)


@pytest.fixture
def options(target: Server, terminals: Path, bare_python: Path, remote_folder: Path) -> Iterator[LaunchOptions]:
    """Give settings of a kernel with all that a shell has to follow; end the connection in the end."""
    (remote_folder / "the work").mkdir()
    found = options_for(
        "target",
        terminals,
        bare_python,
        workdir=str(remote_folder / "the work"),
        env=(("COLOUR", "it's \\blue & 'öd'"), ("HISTFILE", "/dev/null")),
        init='GREETING="from the init"; export GREETING',
    )
    yield found
    masters.end_masters(found)


def connect(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the command off any terminal."""
    program = find_program()
    assert program
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [program, "connect", *words], capture_output=True, text=True, timeout=60, start_new_session=True, **more
    )


@contextmanager
def terminal(*words: str, **variables: str) -> Iterator[pexpect.spawn]:
    """Run the command at a terminal of 40 lines and 132 columns."""
    program = find_program()
    assert program
    env = {**os.environ, "TERM": "dumb", **variables}
    with_terminal = pexpect.spawn(
        program, ["connect", *words], encoding="utf-8", timeout=20, dimensions=(40, 132), env=env
    )
    try:
        with_terminal.expect("[$%>#] ")  # what is typed before, some shells throw away
        yield with_terminal
    finally:
        with_terminal.close(force=True)


def asked(shell: pexpect.spawn, line: str) -> str:
    """Run a line in the remote shell; give what it printed."""
    shell.sendline(f"echo be''gin; {line}; echo do''ne")
    shell.expect(r"begin\r\n((?:.*\r\n)?)done\r\n")
    assert shell.match
    return str(shell.match[1]).strip()


@OVER
def test_shell_is_where_and_as_the_kernel_runs(kernels: Path, options: LaunchOptions, over: str) -> None:
    write_kernelspec(kernels, "mine", options._replace(transport=over))
    home = Path(options.workdir).parent.parent
    (home / ".bashrc").write_text("PATH=/bin:$PATH; alias hello='echo from the rc file'; export VIRTUAL_ENV=/other\n")
    try:
        with terminal("mine") as shell:
            assert asked(shell, "pwd") == options.workdir
            assert asked(shell, "command -v python") == options.python
            assert asked(shell, "echo $VIRTUAL_ENV") == str(Path(options.python).parent.parent)
            assert asked(shell, 'echo "$COLOUR, $GREETING"') == "it's \\blue & 'öd', from the init"
            assert asked(shell, "hello") == "from the rc file"
            shell.sendline("exit 3")
            shell.expect(pexpect.EOF)
            shell.wait()
            assert shell.exitstatus == 3
    finally:
        (home / ".bashrc").unlink()


@OVER
def test_ctrl_c_is_the_remote_commands_and_so_is_the_size(options: LaunchOptions, kernels: Path, over: str) -> None:
    write_kernelspec(kernels, "mine", options._replace(transport=over))
    with terminal("mine") as shell:
        assert asked(shell, "stty size") == "40 132"
        shell.setwinsize(24, 90)
        shell.sendline(
            "until [ \"$(stty size)\" = '24 90' ]; do sleep 0.05; done; sh -c \"echo resi''zed; exec sleep 100\""
        )
        shell.expect("resized\r\n")
        shell.sendintr()
        assert asked(shell, "echo still here") == "still here"
        shell.sendeof()
        shell.expect(pexpect.EOF)


@OVER
def test_command_has_its_words_bytes_and_status(options: LaunchOptions, kernels: Path, over: str) -> None:
    write_kernelspec(kernels, "mine", options._replace(transport=over))
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), sys.prefix, sys.stdin.read()]))"
    words = ["two words", "$HOME", "it's", 'a "b"', "--env", "", "*"]
    done = connect("mine", "--", "python", "-c", code, *words, input="from here\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [words, options.workdir, str(Path(options.python).parents[1]), "from here\n"]
    assert connect("mine", "--", "sh", "-c", "kill -9 $$").returncode in (128 + signal.SIGKILL, 255)
    assert connect("mine", "--", "sh", "-c", "exit 7").returncode == 7


def test_cdpath_leads_to_no_other_folder(tmp_path: Path) -> None:
    for place in ("home", "elsewhere"):
        (tmp_path / place / "work").mkdir(parents=True)
    options = LaunchOptions(Endpoint("gpu1"), workdir="work")
    line = shell_command(options, ("pwd",), interactive=False)
    environment = {**os.environ, "CDPATH": str(tmp_path / "elsewhere")}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path / "home", env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path}/home/work\n", "")


def test_shell_off_a_terminal_reads_its_commands(options: LaunchOptions, kernels: Path) -> None:
    write_kernelspec(kernels, "mine", options)
    done = connect("mine", input="pwd\necho $COLOUR >&2\nexit 5\n")
    assert (done.returncode, done.stdout, done.stderr) == (5, f"{options.workdir}\n", "it's \\blue & 'öd'\n")


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh"])
def test_every_login_shell(options: LaunchOptions, kernels: Path, target: Server, shell: str) -> None:
    write_kernelspec(kernels, "mine", options)
    with target.login_shell(shell):
        done = connect("mine", "--", "python", "-c", "import os, sys; print(os.getcwd(), sys.prefix)")
        assert done.stdout.strip() == f"{options.workdir} {Path(options.python).parents[1]}", done.stderr
        with terminal("mine") as spawned:
            spawned.sendline("which python")
            spawned.expect_exact(str(options.python))
            spawned.sendline("exit")
            spawned.expect(pexpect.EOF)


RC = {
    "bash": ("/bin/bash", {".bashrc": "PATH=/usr/bin:$PATH; export VIRTUAL_ENV=/other; alias hello='echo rc'"}),
    "dash": ("/bin/dash", {}),
    "fish": ("/usr/bin/fish", {".config/fish/config.fish": "set -gx PATH /usr/bin $PATH; alias hello 'echo rc'"}),
    "tcsh": ("/bin/tcsh", {".tcshrc": "setenv PATH /usr/bin:$PATH; setenv VIRTUAL_ENV /other; alias hello echo rc"}),
    "csh": ("/bin/tcsh", {".cshrc": "setenv PATH /usr/bin:$PATH; alias hello echo rc"}),
    "zsh": ("/bin/zsh", {".zshrc": "path=(/usr/bin $path); export VIRTUAL_ENV=/other; alias hello='echo rc'"}),
    "zsh elsewhere": (
        "/bin/zsh",
        {".zshenv": "export ZDOTDIR=$HOME/dots", "dots/.zshrc": "PATH=/usr/bin:$PATH; alias hello='echo rc'"},
    ),
}


@pytest.mark.parametrize("case", RC)
def test_rc_files_do_not_put_another_python_first(
    options: LaunchOptions, kernels: Path, target: Server, case: str
) -> None:
    shell, files = RC[case]
    write_kernelspec(kernels, "mine", options)
    before = set(os.listdir("/tmp"))
    made = [target.home / name for name in files]
    for path, text in zip(made, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    try:
        with target.login_shell(shell), terminal("mine") as spawned:
            spawned.sendline("which python3")
            spawned.expect_exact(str(Path(options.python).parent / "python3"))
            spawned.sendline("echo $VIRTUAL_ENV at $HOME")
            spawned.expect_exact(f"{Path(options.python).parents[1]} at {target.home}\r\n")
            if files:
                spawned.sendline("hello")
                spawned.expect(r"rc\r\n")
            spawned.sendline("env")
            spawned.sendline("echo the e''nd")
            spawned.expect("the end")
            assert "RK_" not in (spawned.before or "").replace("RK_TEST_REMOTE", "")
            spawned.sendline("exit 4")
            spawned.expect(pexpect.EOF)
            spawned.wait()
            assert spawned.exitstatus == 4
    finally:
        for path in made:
            path.unlink()
        shutil.rmtree(target.home / "dots", ignore_errors=True)
    left = [name for name in set(os.listdir("/tmp")) - before if _owner(f"/tmp/{name}") == target.account.uid]
    assert not [name for name in left if name.startswith("tmp.")]


def _owner(path: str) -> int:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return -1


def test_missing_folder_and_interpreter(options: LaunchOptions, kernels: Path) -> None:
    write_kernelspec(kernels, "folder", options._replace(workdir="~/no such"))
    write_kernelspec(kernels, "python", options._replace(python="/opt/none/bin/python", init=""))
    done = connect("folder", "--", "true")
    assert done.returncode == 40
    assert "no folder '~/no such'" in done.stderr
    done = connect("python", "--", "true")
    assert done.returncode == 41
    assert "no interpreter '/opt/none/bin/python'" in done.stderr
    with terminal("python") as shell:  # a person may mend it
        assert "no interpreter '/opt/none/bin/python'" in shell.before
        assert asked(shell, "pwd") == options.workdir


def test_host_with_one_kernelspec_stands_for_it(options: LaunchOptions, kernels: Path, terminals: Path) -> None:
    write_kernelspec(kernels, "one", options)
    assert connect("target", "--", "pwd").stdout.strip() == options.workdir
    write_kernelspec(kernels, "two", options)
    done = connect("target", "--", "pwd")
    assert done.stdout.strip() == str(Path(options.workdir).parents[1])
    assert "several kernelspecs (one, two)" in done.stderr
    given = connect("target", "--ssh-config", str(terminals), "--workdir", "/usr", "--", "pwd")
    assert given.stdout.strip() == "/usr"


def test_without_a_name_lists_kernelspecs_and_their_jump_hosts(
    options: LaunchOptions, kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_kernelspec(kernels, "mine", options._replace(jumps=(options.endpoint._replace(host="gate"),)))
    assert main(["connect"]) == 0
    assert [line.split()[3:5] for line in capfd.readouterr().out.splitlines()][1] == ["target", "gate"]


def test_host_that_cannot_be_reached_is_told_as_for_a_kernel() -> None:
    done = connect("no-such-host.invalid", "--", "true")
    assert done.returncode == 23
    assert "no-such-host.invalid has no address" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("connect", "remote_cuda.invalid", "--", "true"),
        ("doctor", "remote_cuda.invalid", "--no-start"),
        ("forward", "remote_cuda.invalid", "6006"),
        ("login", "remote_cuda.invalid"),
        ("sync", "remote_cuda.invalid", ".", "remote:w"),
    ],
    ids=lambda words: words[0],
)
def test_name_without_an_address_may_be_a_mistyped_slug(
    words: tuple[str, ...], options: LaunchOptions, kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_kernelspec(kernels, "remote_cuda", options)
    assert main(list(words)) == 23
    said = " ".join("".join(capfd.readouterr()).split())
    assert "did you mean 'remote_cuda'? Else check the spelling, the network and the VPN" in said


def test_host_of_a_kernelspec_is_no_mistyped_slug(
    options: LaunchOptions, kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_kernelspec(kernels, "remote_cuda", options._replace(endpoint=Endpoint("remote_cuda.invalid")))
    assert main(["connect", "remote_cuda.invalid", "--", "true"]) == 23
    assert "did you mean" not in capfd.readouterr().err
