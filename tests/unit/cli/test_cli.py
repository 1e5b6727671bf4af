"""The `remote_kernel` command line: help, wrong input, and each command's effect on the disk.

The remote host is a fake here, in the place of `kernelspec.discovery`, and a local ipykernel that of the
remote one. tests/e2e runs the same commands against real servers.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import typer

import remote_kernel
from remote_kernel.cli import check, connect, doctor, login, manager
from remote_kernel.cli import sync as sync_command
from remote_kernel.cli.settings import GivenSettings
from remote_kernel.doctor.finding import NOT_REACHED, STEPS, unknown
from remote_kernel.endpoint import Endpoint, print_jumps
from remote_kernel.errors import KernelDied, PythonNotFound, UsageError
from remote_kernel.kernelspec import discovery, trial
from remote_kernel.kernelspec.discovery import Discovery, Environment
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.writing import Draft
from remote_kernel.options import LaunchOptions, find_program

ROOT = Path(remote_kernel.__file__).parent.parent
COMMANDS: dict[str, Any] = {"": typer.main.get_command(manager.build())}
COMMANDS.update(COMMANDS[""].commands)
PARAMETERS = [
    pytest.param(name, parameter, id=f"{name} {parameter.name}".strip())
    for name, command in COMMANDS.items()
    for parameter in command.params
]
TERMINAL = SimpleNamespace(isatty=lambda: True)
OF_TYPER = {"--install-completion", "--show-completion"}


class Example(NamedTuple):
    """One line of the help: the command, empty for the program itself, and its arguments."""

    program: str
    command: str
    arguments: list[str]

    def __str__(self) -> str:
        return shlex.join(filter(None, [self.command, *self.arguments]))


def examples() -> Iterator[Example]:
    for command in COMMANDS.values():
        for line in command.epilog.splitlines():
            if line.startswith("  remote_kernel") and "-f {" not in line:
                program, *words = shlex.split(line)
                is_option = words[0].startswith("-")
                yield Example(program, *("", words) if is_option else (words[0], words[1:]))


EXAMPLES = list(examples())
SETTINGS = ("JUPYTER_PATH", "LOCAL_KERNELS_DIR", "REMOTE_KERNEL_PYTHON", "REMOTE_KERNEL_TRANSPORT", "VISUAL", "EDITOR")


class FakeKernelspec(NamedTuple):
    name: str = "ir"
    display_name: str = "R 4.4"
    language: str = "R"
    interrupt_mode: str = "message"
    argv: tuple[str, ...] = ("R",)


class FakeProbe(NamedTuple):
    host: str = "node7"
    user: str = "me"
    python: str = "/usr/bin/python3"
    python_version: str = "3.11.4"
    ipykernel_version: str = "7.0.0"
    is_the_systems: bool = False
    new_environment: str = "~/.venv-2"
    kernelspec: FakeKernelspec | None = None
    noise: str = ""


class FakeHost:
    """What add and edit ask instead of a remote host; `found` is its answer, or the error that it raises."""

    def __init__(self) -> None:
        self.found: FakeProbe | Exception = FakeProbe()
        self.asked: list[LaunchOptions] = []
        self.installed: list[LaunchOptions] = []

    def probe(self, options: LaunchOptions, timeout_seconds: float = 30.0) -> FakeProbe:
        self.asked.append(options)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def install_ipykernel(self, options: LaunchOptions, timeout_seconds: float = 600.0) -> str:
        self.installed.append(options)
        assert isinstance(self.found, FakeProbe)
        self.found = self.found._replace(ipykernel_version="7.1.0")
        return "pip install ipykernel"

    def make_environment(self, options: LaunchOptions, timeout_seconds: float = 600.0) -> str:
        assert isinstance(self.found, FakeProbe)
        self.found = self.found._replace(ipykernel_version="7.1.0", python="/home/me/.venv-2/bin/python")
        return self.found.python


class Said(NamedTuple):
    """What one command printed, and its exit status."""

    status: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's kernels folder of a machine where nobody has installed anything."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "data" / "kernels"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command as the program does."""

    def run_command(*arguments: str) -> Said:
        capsys.readouterr()
        status = manager.main(list(arguments))
        return Said(status, *capsys.readouterr())

    return run_command


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Put a fake host in the place of the probe, with a kernel that starts at once."""
    fake = FakeHost()
    for name in ("probe", "install_ipykernel", "make_environment"):
        monkeypatch.setattr(discovery, name, getattr(fake, name))
    for module in ("add", "edit"):
        monkeypatch.setattr(f"remote_kernel.cli.{module}.start_once", lambda draft, **_: 0.1)
    return fake


def settings_of(slug: str) -> LaunchOptions:
    (spec,) = [spec for spec in list_kernelspecs() if spec.slug == slug]
    assert spec.options is not None
    return spec.options


# Help


@pytest.mark.parametrize(("command", "parameter"), PARAMETERS)
def test_every_option_has_help_with_an_example(command: str, parameter: Any) -> None:
    assert parameter.help
    assert parameter.help[0].isupper()
    assert parameter.help.endswith((".", "..."))
    if getattr(parameter, "is_flag", False):
        shown = {word for _, name, words in EXAMPLES if name == command for word in words}
        assert shown & set(parameter.opts) or set(parameter.opts) <= OF_TYPER
        return
    flag = parameter.opts[:1] if parameter.opts[0].startswith("-") else []
    arguments = [*flag, *example_value(parameter.help)]
    if command == "edit" and flag:
        arguments.append("slug")
    if command in ("keep", "logs", "resume") and flag:
        arguments.append("3fa2")
    if command in ("login", "logout") and flag:
        arguments.append("gpu1")
    if command == "sync" and flag:
        arguments += [".", "remote:work"]
    if command == "forward":
        before, behind = ([], ["6006"]) if parameter.name == "name" else (["gpu1"], ["6006"] if flag else [])
        arguments = [*before, *arguments, *behind]
    with COMMANDS[command].make_context(command, arguments):
        pass


def example_value(text: str) -> list[str]:
    """Return the value that a help text shows, as the shell would."""
    found = re.search(r"""e\.g\. ("[^"]+"|'[^']+'|[^\s;]+)""", text)
    assert found, f"no example: {text}"
    return shlex.split(found[1].rstrip(".,"))


SETTINGS_SHOWN = [
    pytest.param(parameter.opts[0], parameter.help, id=parameter.name)
    for parameter in COMMANDS["edit"].params
    if parameter.opts[0].startswith("-") and not parameter.is_flag and parameter.name != "unset_env"
]


@pytest.mark.parametrize(("flag", "text"), SETTINGS_SHOWN)
def test_every_value_shown_is_taken(
    flag: str, text: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (value,) = example_value(text)
    if flag == "--ssh-config":
        monkeypatch.setenv("HOME", str(tmp_path))
        value = os.path.expanduser(value)
        Path(value).parent.mkdir()
        Path(value).touch()
    if flag == "--on-start":
        monkeypatch.setenv("HOME", str(tmp_path))
        value = os.path.expanduser(value)
        Path(value).mkdir()
    host = [] if flag == "--endpoint" else ["gpu1"]
    said = run("add", *host, flag, value, "--no-check")
    assert said.status == 0, said.err
    (spec,) = list_kernelspecs()
    assert spec.options
    words = [spec.display_name, *spec.options.to_arguments()]
    assert value in words or f"{flag}={value}" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMMANDS[name].help
    monkeypatch.setenv("COLUMNS", "80")
    for flag in ("-h", "--help"):
        said = run(*name.split(), flag)
        assert said.status == 0
        assert "Example" in said.out
        assert said.err == ""
        assert all(len(line) <= 80 for line in said.out.splitlines())
        for one in COMMANDS[name].params:  # each word whole, and nothing but words
            assert set((one.help or "").split()) <= set(said.out.split())
        assert not re.search(r"<\w+(\[\w+\])?>", said.out)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_every_summary_fits_the_command_list(name: str) -> None:
    assert not COMMANDS[name].get_short_help_str(60).endswith("...")


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example.command],
    ids=lambda example: shlex.join([example.command, *example.arguments]),
)
def test_every_example_is_one_that_the_command_accepts(example: Example) -> None:
    with COMMANDS[example.command].make_context(example.command, example.arguments):
        pass


def test_no_arguments_show_the_help(run: Run) -> None:
    assert run().out == run("--help").out


def test_version_shows_the_settings_in_force(run: Run, kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_CONN_DIR", "/somewhere")
    for flag in ("-v", "--version"):
        said = run(flag)
        assert said.status == 0
        assert said.out.startswith(f"remote_kernel {remote_kernel.__version__}\n")
        for text in ("openssh", str(kernels), "REMOTE_KERNEL_PYTHON", "LOCAL_KERNELS_DIR", "/somewhere"):
            assert text in said.out


def test_version_shows_the_ssh_program_that_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_KERNEL_SSH", "/nowhere/ssh")
    assert "/nowhere/ssh: not found" in run("--version").out


def test_version_shows_every_variable_of_the_docs(run: Run) -> None:
    table = (ROOT / "docs" / "kernelspecs.md").read_text().partition("## Environment variables")[2].partition("\n#")[0]
    variables = re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)
    assert len(variables) == 5
    said = run("--version").out
    assert [name for name in variables if f" {name} " not in said] == []


def test_program_is_light_until_it_has_to_do_something() -> None:
    code = (
        "import sys; from remote_kernel.cli.manager import main; main(['list']); main(['--version']);"
        "print({'jupyter_client', 'zmq', 'asyncio', 'paramiko'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "set()"


# Streams that somebody else has chosen


def in_a_shell(script: str, tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash in which `$rk` is the program; a kernelspec called 'Jürgens GPU' is there."""
    program = find_program()
    assert program
    env = {**os.environ, "LOCAL_KERNELS_DIR": str(tmp_path / "kernels"), "rk": program, **more}
    made = [program, "add", "gpu1", "--name", "Jürgens GPU", "--no-check"]
    subprocess.run(made, env=env, check=True, capture_output=True, timeout=60)
    return subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("script", "out", "err"),
    [
        ('"$rk" list | true; echo ${PIPESTATUS[0]}', "1\n", ""),
        ('"$rk" list > /dev/full; echo $?', "1\n", "remote_kernel: cannot write the output: no space left on device"),
        ('"$rk" list >&-; echo $?', "0\n", ""),
        ('"$rk" nope 2>&-; echo $?', "2\n", ""),
        ('"$rk" rm 2>&-; echo $?', "2\n", ""),
        ('"$rk" delete jurgens_gpu <&-; echo $?', "deleted 'Jürgens GPU' (jurgens_gpu)\n0\n", ""),
        (
            'cd "$(mktemp -d)"; rmdir "$PWD"; "$rk" add gpu1 --ssh-config x; echo $?',
            "12\n",
            "remote_kernel: the folder that this was started in is gone; change to one that is there",
        ),
        ('"$rk" login no.such.host <&-; echo $?', "23\n", "remote_kernel: the name no.such.host has no address"),
    ],
)
def test_stream_that_is_closed_or_full_is_no_traceback(script: str, out: str, err: str, tmp_path: Path) -> None:
    said = in_a_shell(script, tmp_path)
    assert said.stdout == out
    assert said.stderr.startswith(err) and len(said.stderr.splitlines()) == bool(err)


def test_stdout_of_few_letters_shows_all_names(tmp_path: Path) -> None:
    said = in_a_shell('"$rk" list && "$rk" list --json', tmp_path, PYTHONIOENCODING="ascii")
    assert (said.returncode, said.stderr) == (0, "")
    table, _, listed = said.stdout.partition("[")
    assert r"J\xfcrgens GPU" in table
    assert json.loads(f"[{listed}")[0]["display_name"] == "Jürgens GPU"


# Wrong input


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["bogus"],
        ["add"],
        ["add", "a", "b"],
        ["add", "gpu1", "--bogus"],
        ["add", "gpu1", "--endpoint", "gpu2"],
        ["add", "", "--no-check"],
        ["add", "a b", "--no-check"],
        ["add", "--no-check", "--", "-oProxyCommand=x"],
        ["add", "gpu1:0", "--no-check"],
        ["add", "gpu1", "--no-check", "--name", ""],
        ["add", "gpu1", "--no-check", "--name", "🙂"],
        ["add", "gpu1", "--no-check", "--name", "Python 3"],
        ["add", "gpu1", "--no-check", "-J", "a,,b"],
        ["add", "gpu1", "--no-check", "--env", "1=2"],
        ["add", "gpu1", "--no-check", "--linger", "soon"],
        ["add", "gpu1", "--no-check", "--transport", "pigeon"],
        ["add", "gpu1", "--no-check", "--kernel", "../x"],
        ["add", "gpu1", "--no-check", "--ssh-config", "/does/not/exist"],
        ["add", "gpu1", "--no-check", "--user", "--sys-prefix"],
        ["add", "gpu1", "--no-check", "--init", "echo ${prefix}"],
        ["list", "extra"],
        ["delete"],
        ["delete", "python3"],
        ["edit"],
    ],
    ids=shlex.join,
)
def test_wrong_input_is_one_line_and_usage(arguments: list[str], run: Run, kernels: Path) -> None:
    (kernels / "python3").mkdir(parents=True)
    (kernels / "python3" / "kernel.json").write_text('{"argv": ["python"], "display_name": "Local"}')
    said = run(*arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("remote_kernel: ")
    assert said.err.count("\n") == 1
    assert os.listdir(kernels) == ["python3"]


def test_unknown_flag_ends_the_program_fast() -> None:
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "remote_kernel", "--bogus"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == "remote_kernel: no such option: --bogus; see 'remote_kernel --help'\n"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("arguments", [["--endpoint", "gpu1"], ["--endpoint=gpu1", "--bogus", "-f", "x"], ["-f", "x"]])
def test_launcher_options_without_a_command_are_the_launchers(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "remote_kernel", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "no such option" not in ended.stderr


def test_add_takes_a_value_that_looks_like_the_launchers_flag(run: Run) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "remote_kernel", "add", "gpu1", "--no-check", "--init", "-f"], cwd=ROOT, check=False
    )
    assert ended.returncode == 0
    assert settings_of("remote_python_gpu1").init == "-f"


def test_bug_is_one_line_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMOTE_KERNEL_DEBUG", raising=False)
    monkeypatch.setattr("remote_kernel.cli.listing.list_kernelspecs", lambda: 1 / 0)
    said = run("list")
    assert said.status == 1
    assert said.err == (
        "remote_kernel: unexpected ZeroDivisionError: division by zero; REMOTE_KERNEL_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("REMOTE_KERNEL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("list")


def test_interrupt_gives_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("remote_kernel.cli.listing.list_kernelspecs", interrupt)
    assert run("list").status == 130


# add


def test_add_installs_what_was_asked_for(run: Run, host: FakeHost, kernels: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("")
    said = run(
        *["add", "--endpoint", "me@gpu1:2222", "-J", "a,b", "-J", "c", "--name", "Remote  CUDA", "--python", "/p"],
        *["--env", "A=1", "--env", "A=2", "--env", "B=", "--workdir", "~/w", "--init", "module load x\ny"],
        *["--linger", "2d", "--ssh-config", os.path.relpath(config), "--transport", "openssh"],
    )
    assert said.status == 0, said.err
    options = settings_of("remote_cuda")
    assert str(options.endpoint) == "me@gpu1:2222"
    assert [str(jump) for jump in options.jumps] == ["a", "b", "c"]
    assert options.env == (("A", "2"), ("B", ""))
    assert (options.python, options.workdir, options.init) == ("/p", "~/w", "module load x\ny")
    assert (options.linger_seconds, options.transport) == (2 * 86400, "openssh")
    assert options.ssh_config == str(config)
    assert f"added 'Remote CUDA' as remote_cuda in {kernels / 'remote_cuda'}" in said.out
    assert "Select Kernel > Jupyter Kernel..." in said.out
    assert "me@node7: Python 3.11.4 (/usr/bin/python3), ipykernel 7.0.0" in said.err


def test_add_names_the_kernel_after_the_host(run: Run, host: FakeHost) -> None:
    run("add", "gpu1")
    (spec,) = list_kernelspecs()
    assert (spec.slug, spec.display_name, spec.language) == ("remote_python_gpu1", "Remote Python (gpu1)", "python")


def test_add_takes_name_language_and_interrupts_from_the_remote_kernelspec(run: Run, host: FakeHost) -> None:
    host.found = FakeProbe(ipykernel_version="", kernelspec=FakeKernelspec())
    assert run("add", "gpu1", "--kernel", "ir").status == 0
    (spec,) = list_kernelspecs()
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("R 4.4 (gpu1)", "R", "message")


@pytest.mark.parametrize("name", ["Mine", "MINE", " mine", "-mine-"])
def test_add_refuses_a_taken_name_before_it_asks_the_host(name: str, run: Run, host: FakeHost) -> None:
    run("add", "gpu1", "--name", "Mine", "--no-check")
    assert run("add", "gpu2", f"--name={name}").status == 2
    assert not host.asked
    assert settings_of("mine").endpoint.host == "gpu1"


def test_add_that_could_not_write_asks_nobody(run: Run, host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = run("add", "gpu1", "--prefix", str(tmp_path / "file"))
    assert (said.status, host.asked) == (12, [])
    assert "cannot write" in said.err and "--prefix" in said.err


def test_add_replaces_only_when_told(run: Run, host: FakeHost) -> None:
    run("add", "gpu1", "--name", "Mine")
    assert run("add", "gpu2", "--name", "Mine", "--replace").status == 0
    assert settings_of("mine").endpoint.host == "gpu2"


def test_add_without_check_asks_nobody(run: Run, host: FakeHost) -> None:
    assert run("add", "gpu1", "--no-check").status == 0
    assert not host.asked


def test_add_passes_on_what_the_probe_says_and_installs_nothing(run: Run, host: FakeHost, kernels: Path) -> None:
    host.found = PythonNotFound("gpu1 has no python3", "give --python")
    said = run("add", "gpu1")
    assert said.status == PythonNotFound.exit_status
    assert said.err.endswith("remote_kernel: gpu1 has no python3; give --python\n")
    assert not kernels.exists()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> list[Environment]:
    """Return the environments that a look around on the host finds: at first one without ipykernel."""
    found = [Environment("/home/me/bare/bin/python", "venv", "bare", "3.12.4", "", "", "")]
    place = Discovery("node7", "/home/me", "/usr/bin/python3", [], found, [], [], [])
    monkeypatch.setattr("remote_kernel.kernelspec.discovery.discover", lambda _: place)
    return found


_WITH_IPYKERNEL = Environment("/home/me/.venv/bin/python", "venv", "venv", "3.12.4", "7.4.0", "", "")


@pytest.mark.parametrize("is_the_systems", [True, False])
def test_add_names_the_interpreters_of_the_host_that_have_ipykernel(
    is_the_systems: bool, run: Run, host: FakeHost, others: list[Environment], kernels: Path
) -> None:
    others.append(_WITH_IPYKERNEL)
    host.found = FakeProbe(ipykernel_version="", is_the_systems=is_the_systems)
    said = run("add", "gpu1")
    assert said.status == 42
    assert "; give --python one that has it: /home/me/.venv/bin/python; or give --install" in said.err
    assert "bare" not in said.err and "-m venv" not in said.err
    assert not (kernels.exists() or host.installed)


def test_install_for_the_systems_python_makes_an_environment(run: Run, host: FakeHost, kernels: Path) -> None:
    for words in (["add", "gpu1", "--name", "Mine"], ["edit", "mine"]):
        host.found = FakeProbe(ipykernel_version="", is_the_systems=True)
        said = run(*words, "--install")
        assert said.status == 0, said.err
        assert settings_of("mine").python == "/home/me/.venv-2/bin/python"
    assert not host.installed


@pytest.mark.parametrize(
    ("answers", "python"),
    [
        (["1"], "/home/me/.venv/bin/python"),
        (["7", "2"], "/opt/mine/python"),
        (["3"], "/home/me/.venv-2/bin/python"),
        (["none"], None),
    ],
)
def test_add_lets_a_person_choose_an_interpreter(
    answers: list[str],
    python: str | None,
    run: Run,
    host: FakeHost,
    others: list[Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others.append(_WITH_IPYKERNEL)
    host.found = FakeProbe(ipykernel_version="", python="/opt/mine/python")
    probe = host.probe
    monkeypatch.setattr(host, "probe", lambda options: _probed(host, probe(options), options))
    monkeypatch.setattr(check, "sys", SimpleNamespace(stdin=TERMINAL, stderr=TERMINAL))
    monkeypatch.setattr(check.typer, "prompt", lambda *_, **__: answers.pop(0))
    said = run("add", "gpu1", "--name", "Mine", "--python", "/opt/mine/python")
    assert not answers
    assert said.status == (0 if python else 42), said.err
    assert [spec.options.python for spec in list_kernelspecs() if spec.options] == ([python] if python else [])
    assert len(host.installed) == (python == "/opt/mine/python")


def _probed(host: FakeHost, found: FakeProbe, options: LaunchOptions) -> FakeProbe:
    return found._replace(ipykernel_version="7.4.0") if options.python == _WITH_IPYKERNEL.python else found


def test_add_says_how_to_install_ipykernel(run: Run, host: FakeHost, others: list[Environment], kernels: Path) -> None:
    host.found = FakeProbe(ipykernel_version="", python="/opt/my env/python")
    said = run("add", "me@gpu1:22", "-J", "gate")
    assert said.status == 42
    command = said.err.partition("run: ")[2]
    way = ["remote_kernel", "connect", "me@gpu1:22", "-J", "gate", "--", "sh", "-c"]
    assert shlex.split(command)[:-1] == way
    assert shlex.split(shlex.split(command)[-1]) == ["/opt/my env/python", "-m", "pip", "install", "ipykernel"]
    assert not kernels.exists()


def test_edit_installs_ipykernel_when_told_also_for_the_same_interpreter(run: Run, host: FakeHost) -> None:
    assert run("add", "gpu1", "--name", "Mine", "--no-check").status == 0
    for words in (["--install"], ["--install", "--python", "python3"]):
        host.installed.clear()
        host.found = FakeProbe(ipykernel_version="")
        assert run("edit", "mine", *words).status == 0
        assert len(host.installed) == 1


@pytest.mark.parametrize("idle", ["--no-check", "--kernel=ir"])
def test_install_that_would_do_nothing_is_refused(idle: str, run: Run, host: FakeHost, kernels: Path) -> None:
    assert run("add", "gpu1", "--name", "Mine", "--no-check").status == 0
    for words in (["add", "gpu1"], ["edit", "mine"]):
        said = run(*words, "--install", idle)
        assert (said.status, said.err.startswith("remote_kernel: --install ")) == (2, True)
    assert run("add", "--discover", "gpu1", "--all", "--install", "--no-check").status == 2
    assert [folder.name for folder in kernels.iterdir()] == ["mine"]
    assert not host.asked


def test_add_installs_ipykernel_when_told(run: Run, host: FakeHost) -> None:
    host.found = FakeProbe(ipykernel_version="")
    assert run("add", "gpu1", "--install").status == 0
    assert len(host.installed) == 1


def test_add_mentions_noise_of_the_remote_shell(run: Run, host: FakeHost) -> None:
    host.found = FakeProbe(noise="\nWelcome to gpu1\nmore")
    assert "'Welcome to gpu1'" in run("add", "gpu1").err


def test_add_says_where_jupyter_does_not_look(run: Run, host: FakeHost, tmp_path: Path) -> None:
    said = run("add", "gpu1", "--prefix", str(tmp_path / "p"))
    assert f"set JUPYTER_PATH={tmp_path}/p/share/jupyter" in said.err
    assert (tmp_path / "p/share/jupyter/kernels/remote_python_gpu1/kernel.json").is_file()


def test_add_to_a_folder_that_cannot_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "file" / "kernels"))
    said = run("add", "gpu1", "--no-check")
    assert said.status == 12
    assert "cannot write" in said.err


# The trial start, with a real kernel on this machine


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Draft]:
    """Return a function that makes a draft whose kernel.json runs this argv here."""

    def make(argv: list[str]) -> Draft:
        document = {"argv": [sys.executable, *argv], "display_name": "x", "language": "python"}
        monkeypatch.setattr(trial, "kernel_document", lambda draft: document)
        return Draft("x", LaunchOptions(Endpoint("here")))

    return make


def test_trial_start_gives_the_seconds(started: Callable[[list[str]], Draft]) -> None:
    assert 0 < check.start_once(started(["-m", "ipykernel_launcher", "-f", "{connection_file}"])) < 60


def test_trial_start_tells_why_no_kernel_came(started: Callable[[list[str]], Draft]) -> None:
    draft = started(["-c", "import sys; print('noise', file=sys.stderr); sys.exit('remote_kernel: no route; look')"])
    with pytest.raises(KernelDied, match="ended before it was ready: no route; look; nothing was installed"):
        check.start_once(draft)


def test_failed_trial_of_a_path_that_the_shell_here_expanded_says_to_quote_it(
    started: Callable[[list[str]], Draft], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/here")
    draft = started(["-c", "import sys; sys.exit(\"remote_kernel: no folder '/home/here/my work' on gpu1\")"])
    draft = draft._replace(options=draft.options._replace(workdir="/home/here/my work"))
    with pytest.raises(KernelDied) as told:
        check.start_once(draft, undone="nothing was changed")
    assert "write --workdir '~/my work', in quotes; nothing was changed" in told.value.hint


def test_trial_start_gives_up(started: Callable[[list[str]], Draft]) -> None:
    with pytest.raises(KernelDied, match="did not answer within 1 s"):
        check.start_once(started(["-c", "import time; time.sleep(60)"]), timeout_seconds=1)


def test_interpreter_of_a_path_that_the_shell_here_expanded_is_to_be_quoted(
    run: Run, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/here")
    for python, hint in (("/home/here/.venv/bin/python", "--python '~/.venv/bin/python', in"), ("/opt/p", "one of: x")):
        host.found = PythonNotFound(f"there is no interpreter '{python}' on gpu1", "give --python one of: x")
        said = run("add", "gpu1", "--python", python)
        assert said.status == PythonNotFound.exit_status
        assert hint in said.err
        assert ("in quotes" in said.err) == (python != "/opt/p")


# list, delete, edit


def test_list_of_nothing_says_how_to_add(run: Run) -> None:
    said = run("list")
    assert (said.status, said.out) == (0, "")
    assert "remote_kernel add HOST" in said.err
    assert json.loads(run("list", "--json").out) == []


def test_list_shows_each_on_a_line(run: Run) -> None:
    run("add", "me@gpu1", "-J", "a,b", "--name", "One", "--no-check")
    run("add", "gpu2", "--kernel", "ir", "--name", "Two", "--no-check")
    header, one, two = run("list").out.splitlines()
    assert header.split()[:3] == ["SLUG", "NAME", "ENDPOINT"]
    assert one.split()[:5] == ["one", "One", "me@gpu1", "a,b", "python3"]
    assert two.split()[:6] == ["two", "Two", "gpu2", "-", "kernel", "ir"]


def test_list_json_keys_are_those_of_the_help(run: Run) -> None:
    run("add", "gpu1", "--env", "A=1", "--linger", "forever", "--no-check")
    (entry,) = json.loads(run("list", "--json").out)
    assert (entry["endpoint"], entry["env"], entry["linger"]) == ("gpu1", {"A": "1"}, "forever")
    documented = COMMANDS["list"].epilog.partition("with the keys ")[2].partition(".")[0]
    assert documented.replace("\n", " ").split(", ") == list(entry)


def test_delete_takes_several_and_leaves_the_others(run: Run) -> None:
    for name in ("One", "Two", "Three"):
        run("add", "gpu1", "--name", name, "--no-check")
    assert run("delete", "one", "TWO", "One").status == 0
    assert [spec.slug for spec in list_kernelspecs()] == ["three"]


def test_doctor_breaks_no_word_at_the_terminals_edge(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [unknown(step, NOT_REACHED) for step in STEPS])
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(stdout=TERMINAL))
    monkeypatch.setenv("COLUMNS", "60")
    said = run("doctor", "gpu1").out
    assert max(map(len, said.splitlines())) <= 60
    assert set(", ".join(STEPS).replace(",", "").split()) <= set(said.replace(",", "").split())


def test_delete_all_takes_all_that_add_made_and_nothing_else(run: Run, kernels: Path) -> None:
    for name in ("One", "Two"):
        run("add", "gpu1", "--name", name, "--no-check")
    mine = {"argv": ["python", "-m", "mine", "{connection_file}"], "display_name": "Mine", "language": "python"}
    (kernels / "mine").mkdir()
    (kernels / "mine" / "kernel.json").write_text(json.dumps(mine))
    assert run("delete").status == run("delete", "one", "--all").status == 2
    assert run("delete", "--all").out.splitlines() == ["deleted 'One' (one)", "deleted 'Two' (two)"]
    assert [path.name for path in kernels.iterdir()] == ["mine"]
    assert run("delete", "--all").status == 0


@pytest.mark.parametrize(("other", "command"), manager._OTHER_NAMES.items())
def test_names_of_other_tools_are_told_ours(other: str, command: str, run: Run) -> None:
    said = run(other, "one")
    assert said.status == 2
    assert f"'remote_kernel {command} --help'" in said.err
    assert command in COMMANDS
    assert other not in COMMANDS


@pytest.mark.parametrize("name", ["remote_cuda", "Remote_CUDA", "remote  cuda", "me@gpu1", "gpu1"])
def test_login_means_a_kernelspec_by_any_of_its_names(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "me@gpu1", "-J", "gate", "--name", "Remote CUDA", "--no-check")
    monkeypatch.setattr(
        login.transport_login, "status", lambda way: login.transport_login.LoginStatus(True, f"through {way.jumps[0]}")
    )
    assert run("login", name, "--status").out == "me@gpu1: through gate\n"


@pytest.mark.parametrize("command", ["connect", "doctor", "login", "logout"])
def test_option_for_the_way_there_changes_that_of_a_kernelspec(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", "me@gpu1", "--name", "Remote CUDA", "--workdir", "w", "--no-check")
    given = GivenSettings(jump=["gate"])
    for name in ("remote_cuda", "Remote CUDA", "me@gpu1"):
        if command == "connect":
            options = connect._options(name, given)
        elif command == "doctor":
            ((_, found, _),) = doctor._patients(name, given)
            assert found
            options = found
        else:
            (options,) = login._ways(name, given)
        assert (str(options.endpoint), print_jumps(options.jumps)) == ("me@gpu1", "gate")
        assert options.workdir == ("w" if command in ("connect", "doctor") and name != "me@gpu1" else "")


@pytest.mark.parametrize("words", [["forward", "{}", "6006"], ["sync", "{}", ".", "remote:w"]])
def test_option_for_the_way_there_changes_that_of_a_kernelspec_for_ports_and_files(
    words: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[LaunchOptions] = []

    def stop(options: LaunchOptions, *_: object) -> None:
        seen.append(options)
        raise UsageError("far enough")

    monkeypatch.setattr("remote_kernel.cli.forward.transport_login.log_in", stop)
    monkeypatch.setattr(sync_command, "sync", lambda transfer: stop(transfer.launch))
    run("add", "me@gpu1", "--name", "Remote CUDA", "--no-check")
    for name in ("remote_cuda", "Remote CUDA", "me@gpu1"):
        assert "far enough" in run(*(word.format(name) for word in words), "-J", "gate").err
    assert [(str(one.endpoint), print_jumps(one.jumps)) for one in seen] == [("me@gpu1", "gate")] * 3


def test_delete_of_one_unknown_deletes_none(run: Run) -> None:
    run("add", "gpu1", "--name", "One", "--no-check")
    said = run("delete", "one", "onee")
    assert said.status == 3
    assert "did you mean 'one'" in said.err
    assert len(list_kernelspecs()) == 1


@pytest.mark.parametrize("name", ["../x", "/", ".", "kernels/one", "one/"])
def test_delete_never_leaves_the_folder(name: str, run: Run, tmp_path: Path) -> None:
    run("add", "gpu1", "--name", "One", "--no-check")
    (tmp_path / "data" / "x").mkdir()
    assert run("delete", name).status == 3
    assert len(list_kernelspecs()) == 1


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1), ("", 1)])
def test_delete_asks_on_a_terminal(answer: str, left: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "gpu1", "--no-check")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    assert run("delete", "remote_python_gpu1").status == left
    assert len(list_kernelspecs()) == left


def test_edit_changes_only_what_is_given(run: Run, host: FakeHost) -> None:
    run("add", "me@gpu1", "-J", "a", "--env", "A=1", "--env", "B=2", "--name", "Mine", "--python", "/p")
    said = run("edit", "mine", "--env", "C=3", "--unset-env", "A", "--endpoint", "gpu2", "--jump", "")
    assert said.status == 0, said.err
    options = settings_of("mine")
    assert (str(options.endpoint), options.jumps, options.python) == ("gpu2", (), "/p")
    assert options.env == (("B", "2"), ("C", "3"))
    assert host.asked[-1].endpoint.host == "gpu2"


def test_edit_of_the_name_keeps_the_slug_and_asks_nobody(run: Run, host: FakeHost) -> None:
    run("add", "gpu1", "--name", "Mine", "--no-check")
    assert run("edit", "Mine", "--name", "Ours", "--linger", "1h").status == 0
    (spec,) = list_kernelspecs()
    assert (spec.slug, spec.display_name) == ("mine", "Ours")
    assert not host.asked


def test_edit_that_does_not_work_changes_nothing(run: Run, host: FakeHost, kernels: Path) -> None:
    run("add", "gpu1", "--name", "Mine")
    before = (kernels / "mine" / "kernel.json").read_bytes()
    host.found = PythonNotFound("gpu1 has no /q")
    assert run("edit", "mine", "--python", "/q").status == PythonNotFound.exit_status
    assert (kernels / "mine" / "kernel.json").read_bytes() == before


def test_edit_back_to_python_undoes_the_remote_kernelspec(run: Run, host: FakeHost) -> None:
    host.found = FakeProbe(kernelspec=FakeKernelspec())
    run("add", "gpu1", "--kernel", "ir", "--name", "Mine")
    assert run("edit", "mine", "--kernel", "", "--no-check").status == 0
    (spec,) = list_kernelspecs()
    assert (spec.language, spec.interrupt_mode) == ("python", "signal")


@pytest.mark.parametrize(
    ("editor", "status", "complaint"),
    [
        ("sed -i s/Mine/Ours/", 0, ""),
        ("true", 0, ""),
        ("false", 1, "ended with status 1"),
        ("/no/such/editor", 1, "cannot run the editor"),
        ("rm", 2, "left no file to read: no such file"),
        ("sed -i 1d", 2, "not JSON"),
        ("sed -i s/argv/args/", 2, "argv does not run remote_kernel"),
    ],
)
def test_edit_by_hand(
    editor: str, status: int, complaint: str, run: Run, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", "gpu1", "--name", "Mine", "--no-check")
    before = (kernels / "mine" / "kernel.json").read_text()
    monkeypatch.setenv("EDITOR", editor)
    said = run("edit", "mine")
    assert said.status == status
    assert complaint in said.err
    after = (kernels / "mine" / "kernel.json").read_text()
    assert after == (before.replace("Mine", "Ours") if "Ours" in editor else before)


def test_edit_unset_of_an_unknown_variable(run: Run) -> None:
    run("add", "gpu1", "--name", "Mine", "--no-check")
    said = run("edit", "mine", "--unset-env", "A", "--no-check")
    assert (said.status, "sets no variable 'A'" in said.err) == (2, True)


def test_sync_reads_its_options_the_same_without_typer() -> None:
    """What the light reader knows, typer knows by the same name, with or without a value."""
    command = COMMANDS["sync"]
    declared = {
        flag: (parameter, flag in parameter.opts)
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    for flag, name in sync_command._FLAGS.items():
        parameter, is_yes = declared[flag]
        assert (parameter.is_flag, parameter.name, is_yes) == (True, name, True), flag
    for flag, (name, is_repeated) in sync_command._VALUES.items():
        parameter, _ = declared[flag]
        assert not parameter.is_flag and parameter.nargs == 1, flag
        assert (parameter.name, parameter.multiple) == (name, is_repeated), flag


@pytest.mark.parametrize(
    "line",
    [
        ["a", "remote:b"],
        ["gpu1", "a", "remote:b", "-n", "--no-ignore", "--exclude", "x", "--exclude=y"],
        ["--ssh-config", "f", "gpu1", "-J", "g,h", "--jump=i", "--transport", "openssh", "a", "remote:", "--verbose"],
        ["a", "remote:", "--watch", "--delete", "--checksum", "--transport", "x", "--transport", "paramiko"],
    ],
)
def test_sync_understands_a_plain_line_without_typer(line: list[str]) -> None:
    context = COMMANDS["sync"].make_context("sync", list(line))
    by_typer = {name: value for name, value in context.params.items() if value not in (None, False, [], ())}
    assert {name: value for name, value in (sync_command.read(line) or {}).items() if value is not False} == by_typer


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["--help"],
        ["a", "--exclude"],
        ["a", "--exclude", "--x"],
        ["a", "-Jx"],
        ["a", "-J=x"],
        ["a", "--", "b"],
        ["-nJ"],
        ["a", "remote:b", "--delet"],
        ["a", "-"],
        ["a", "--delete=1"],
        ["--unknown", "a", "remote:b"],
    ],
)
def test_sync_leaves_what_is_in_doubt_to_typer(line: list[str]) -> None:
    assert sync_command.read(line) is None


@pytest.mark.parametrize("words", [("ls", "-la"), ("python", "-c", "1"), ("ps", "--sort", "rss")])
def test_options_of_a_remote_command_are_told_where_to_go(words: tuple[str, ...], run: Run) -> None:
    said = run("connect", "gpu1", *words)
    assert said.status == 2
    assert "the options of a command go behind '--': remote_kernel connect HOST -- COMMAND" in said.err
    assert "'--'" not in run("list", "--nothing").err


def test_question_about_a_mistyped_command_ends_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert manager._refuse(typer.BadParameter("No 'ad'. Did you mean 'add'?")) == 2  # as newer typers say
    assert capsys.readouterr().err.endswith("did you mean 'add'? See 'remote_kernel --help'\n")
