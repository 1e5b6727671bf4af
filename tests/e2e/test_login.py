"""`remote_kernel login` at a real terminal: what a server asks is answered there once, and kernels need nobody."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import psutil
import pytest

from remote_kernel import errors
from remote_kernel.kernelspec.discovery import probe
from remote_kernel.options import LaunchOptions, find_program
from remote_kernel.transport import masters
from tests.support.asking import CODE, PASSWORD, POLICIES, asking_server
from tests.support.ends import log_of
from tests.support.filed_keyring import FiledKeyring
from tests.support.isolation import Isolation
from tests.support.kernels import launch, options_for, run, running_kernel, wait_until, write_connection_file
from tests.support.servers import Server, Servers, make_key

PASSPHRASE = "a pass phrase öf the test"
YES_NO = r"yes/no[^?]*\)\?? "


@pytest.fixture(params=["openssh", "paramiko"])
def over(request: pytest.FixtureRequest) -> str:
    """Give each transport, to be asked for by name."""
    return str(request.param)


@pytest.fixture(autouse=True)
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have an empty keyring; give its file."""
    path = tmp_path / "keyring.json"
    monkeypatch.setenv("RK_TEST_KEYRING", str(path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"{FiledKeyring.__module__}.{FiledKeyring.__name__}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return path


@pytest.fixture
def asking(servers: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Run a server that asks for what the test's parameter says; give the ssh config for its host `asking`."""
    with asking_server(servers, tmp_path / "asking", request.param) as config:
        yield config


@pytest.fixture
def askable_config(tmp_path: Path, servers: Servers) -> Path:
    """Give a config like that of other tests, with an empty known_hosts file, which leaves host keys to a person."""
    path = tmp_path / "askable"
    text = servers.ssh_config.read_text().replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask")
    path.write_text(text.replace(str(servers.known_hosts), str(tmp_path / "known_hosts")))
    return path


def words(command: str, options: LaunchOptions) -> list[str]:
    """Give the command line that the hints of errors show, with another command."""
    program = find_program()
    assert program
    shown = options.login_command().split()
    assert shown[:2] == ["remote_kernel", "login"]
    return [program, command, *shown[2:]]


@contextmanager
def terminal(options: LaunchOptions) -> Iterator[pexpect.spawn]:
    """Run `login` at a terminal."""
    program, *rest = words("login", options)
    spawned = pexpect.spawn(program, rest, encoding="utf-8", timeout=30, dimensions=(50, 400))
    try:
        yield spawned
    finally:
        spawned.close(force=True)


def ended(spawned: pexpect.spawn) -> tuple[int, str]:
    """Wait for the end; give the exit status and what was said since the last expectation."""
    spawned.expect(pexpect.EOF)
    spawned.wait()
    return int(spawned.exitstatus), str(spawned.before)


def answered(options: LaunchOptions, *answers: tuple[str, str]) -> str:
    """Log in with these answers to these prompts, successfully; give what was said at the end."""
    with terminal(options) as spawned:
        for prompt, answer in answers:
            spawned.expect(prompt)
            spawned.sendline(answer)
        status, said = ended(spawned)
    assert status == 0, said
    assert f"logged in to {options.endpoint}" in said
    return said


def quietly(command: str, options: LaunchOptions, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a command off any terminal."""
    return subprocess.run(
        [*words(command, options), *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
    )


# -- host keys


@pytest.mark.parametrize("host", ["target", "behind"])
def test_unknown_host_keys_are_shown_asked_about_and_remembered(
    askable_config: Path, servers: Servers, over: str, host: str, tmp_path: Path
) -> None:
    options = options_for(host, askable_config, "python3", transport=over)
    on_the_way = [servers.target] if host == "target" else [servers.jump, servers.target]
    with pytest.raises(errors.HostKeyUnknown) as found:
        probe(options)
    assert f"run '{options.login_command()}' in a terminal" in found.value.hint

    with terminal(options) as spawned:
        for server in on_the_way:
            spawned.expect(YES_NO)
            assert fingerprint_of(server, tmp_path) in spawned.before + spawned.after
            spawned.sendline("yes")
        status, said = ended(spawned)

    assert status == 0, said
    known = (tmp_path / "known_hosts").read_text()
    assert all(server.host_key in known for server in on_the_way)
    assert probe(options).user == servers.target.user
    quietly("logout", options)


def fingerprint_of(server: Server, folder: Path) -> str:
    """Give a server's fingerprint as ssh-keygen tells it."""
    (folder / "shown.pub").write_text(server.host_key)
    said = subprocess.run(["ssh-keygen", "-lf", folder / "shown.pub"], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


def test_host_key_that_is_not_accepted_is_no_connection(
    askable_config: Path, target: Server, over: str, tmp_path: Path
) -> None:
    logins = target.log_text().count("Accepted")
    with terminal(options_for("target", askable_config, "", transport=over)) as spawned:
        spawned.expect(YES_NO)
        spawned.sendline("no")
        status, said = ended(spawned)
        assert status == errors.HostKeyUnknown.exit_status
        assert "ask who runs the server for its fingerprint" in said
    assert target.log_text().count("Accepted") == logins
    assert not (tmp_path / "known_hosts").exists()


@pytest.mark.parametrize("changed", ["target", "jump"])
@pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "declined"])
def test_changed_host_key_is_replaced_only_if_a_person_says_so(
    askable_config: Path, servers: Servers, over: str, tmp_path: Path, changed: str, agreed: bool
) -> None:
    options = options_for("behind", askable_config, "python3", transport=over)
    make_key(tmp_path / "old")
    old = " ".join((tmp_path / "old.pub").read_text().split()[:2])
    known = tmp_path / "known_hosts"
    keys = {server.name: old if server.name == changed else server.host_key for server in servers}
    known.write_text("".join(f"[{s.host}]:{s.port} {keys[s.name]}\n" for s in servers))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    before = known.read_text()
    server = next(server for server in servers if server.name == changed)
    with pytest.raises(errors.HostKeyChanged) as found:
        probe(options)
    assert ("jump host" in found.value.message) == (changed == "jump")
    assert fingerprint_of(server, tmp_path) in found.value.message
    assert f"run '{options.login_command()}' in a terminal" in found.value.hint

    with terminal(options) as spawned:
        spawned.expect(r"Remove the old key.*yes/no\) ")
        assert str(known) in spawned.before
        spawned.sendline("yes" if agreed else "no")
        if agreed:
            spawned.expect(YES_NO)
            assert fingerprint_of(server, tmp_path) in spawned.before + spawned.after
            spawned.sendline("yes")
        status, said = ended(spawned)

    if agreed:
        assert status == 0, said
        assert server.host_key in known.read_text()
        assert len(known.read_text().splitlines()) == 2
        probe(options)
        quietly("logout", options)
    else:
        assert status == errors.HostKeyChanged.exit_status
        assert "ask who runs the server whether it has a new one" in said
        assert options.login_command() not in said
        assert known.read_text() == before


def test_strict_config_asks_nobody(tmp_path: Path, servers: Servers, over: str) -> None:
    config = tmp_path / "strict"
    config.write_text(servers.ssh_config.read_text().replace(str(servers.known_hosts), str(tmp_path / "known_hosts")))
    with terminal(options_for("target", config, "", transport=over)) as spawned:
        status, said = ended(spawned)
    assert status == errors.HostKeyUnknown.exit_status
    assert "StrictHostKeyChecking yes" in said
    assert not (tmp_path / "known_hosts").exists()


# -- passwords and codes


ANSWERS = {
    "password": [("password: ", "wrong"), ("password: ", PASSWORD)],
    "interactive password": [("Password: ", PASSWORD)],
    "key and code": [("code: ", CODE)],
}


# What ssh asks is ssh's own; the hardest of it is enough for every day.
@pytest.mark.parametrize(
    "asking",
    [name if name == "key and code" else pytest.param(name, marks=pytest.mark.nightly) for name in POLICIES],
    indirect=True,
)
def test_kernels_use_the_connection_of_a_login(
    asking: Path, remote_python: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options = options_for("asking", asking, remote_python, transport="openssh", env=(("IPYTHONDIR", str(tmp_path)),))
    failed = launch(options, write_connection_file(tmp_path / "kernel-1.json"), env=environment())
    assert failed.returncode == errors.AuthenticationFailed.exit_status
    assert f"; run '{options.login_command()}' in a terminal" in failed.stderr.splitlines()[-1]
    assert quietly("login", options, "--status").returncode == 1

    said = answered(options, *ANSWERS[request.node.callspec.params["asking"]])
    assert "keeps the connection for kernels for 12h" in said
    assert quietly("login", options, "--status").returncode == 0
    assert "already" in answered(options)
    with running_kernel(tmp_path, options, env=environment()) as (_, client):  # no refused login holds it back
        assert run(client, "1 + 1").result == "2"

    assert "ended ssh" in quietly("logout", options).stdout
    assert quietly("login", options, "--status").returncode == 1
    assert "nothing to undo" in quietly("logout", options).stdout
    with pytest.raises(errors.AuthenticationFailed):
        probe(options)


@pytest.mark.parametrize("asking", ["key and code"], indirect=True)
def test_kernel_that_lost_its_connection_goes_on_after_the_next_login(
    asking: Path, remote_python: Path, tmp_path: Path
) -> None:
    options = options_for("asking", asking, remote_python, transport="openssh", env=(("IPYTHONDIR", str(tmp_path)),))
    answered(options, ("code: ", CODE))
    with running_kernel(tmp_path, options, env=environment()) as (manager, client):
        run(client, "x = 41")
        psutil.Process(masters.master_pid(options)).kill()
        assert wait_until(lambda: f"run '{options.login_command()}' in a terminal" in log_of(manager))
        answered(options, ("code: ", CODE))
        assert run(client, "x + 1").result == "42"
    quietly("logout", options)


def environment() -> dict[str, str]:
    """Give an environment that keeps the agent's folder out of the real /tmp: the server runs as this user."""
    return {**os.environ, "REMOTE_CONN_DIR": os.environ["XDG_RUNTIME_DIR"]}  # the tests' own, and short


@pytest.mark.parametrize("asking", ["password", "interactive password"], indirect=True)
def test_password_in_the_keyring_lets_kernels_in_over_paramiko(
    asking: Path, keyring: Path, isolation: Isolation, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options = options_for("asking", asking, "python3", transport="paramiko")
    with pytest.raises(errors.AuthenticationFailed) as found:
        probe(options)
    assert found.value.hint == f"run '{options.login_command()}' in a terminal"
    answers = ANSWERS[request.node.callspec.params["asking"]]

    said = answered(options, *answers, (r"keyring.*yes/no\) ", "no"))
    assert "a kernel has nobody to ask" in said
    assert not keyring.exists()
    said = answered(options, *answers, (r"keyring.*yes/no\) ", "yes"))
    assert "kernels can log in by themselves" in said
    assert PASSWORD in FiledKeyring()._read().values()
    assert probe(options).python
    assert "password for" in quietly("login", options, "--status").stdout
    failed = launch(options._replace(python="/nothing"), write_connection_file(tmp_path / "kernel-of-keyring.json"))
    assert failed.returncode == errors.PythonNotFound.exit_status
    (log,) = isolation.jupyter_runtime.glob("remote_kernel-kernel-of-keyring.log")
    assert PASSWORD not in failed.stderr + log.read_text()

    assert "password for" in quietly("logout", options).stdout
    assert FiledKeyring()._read() == {}
    with pytest.raises(errors.AuthenticationFailed):
        probe(options)


@pytest.mark.parametrize("asking", ["key and code"], indirect=True)
def test_code_is_asked_for_over_paramiko_and_nothing_is_promised(asking: Path, keyring: Path) -> None:
    said = answered(options_for("asking", asking, "", transport="paramiko"), ("code: ", CODE))
    assert "no kernel can answer 'Verification code:': that takes the OpenSSH client" in said
    assert not keyring.exists()


@pytest.mark.parametrize("asking", ["password"], indirect=True)
@pytest.mark.parametrize("why", ["not installed", "no keyring"])
def test_missing_keyring_is_told(asking: Path, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "not installed":
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "keyring.py").write_text("raise ImportError('as if it were not there')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))
    else:
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with terminal(options_for("asking", asking, "", transport="paramiko")) as spawned:
        spawned.expect("password: ")
        spawned.sendline(PASSWORD)
        status, said = ended(spawned)
    assert status == 0
    assert "pip install 'rkernel[keyring]'" in said if why == "not installed" else "no keyring that can be used" in said
    assert "a kernel has nobody to ask" in said


@pytest.fixture
def locked(tmp_path: Path, servers: Servers) -> Path:
    """Give a config like that of other tests, whose key has a passphrase."""
    key = tmp_path / "locked"
    key.write_bytes(servers.client_key.read_bytes())
    key.chmod(0o600)
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", key]
    subprocess.run(command, check=True, capture_output=True)
    config = tmp_path / "locked_config"
    config.write_text(servers.ssh_config.read_text().replace(str(servers.client_key), str(key)))
    return config


def test_passphrase_is_asked_for(locked: Path, over: str, keyring: Path, tmp_path: Path, target: Server) -> None:
    options = options_for("target", locked, "python3", transport=over)
    with pytest.raises(errors.AuthenticationFailed, match=f"the key {tmp_path / 'locked'} has a passphrase"):
        probe(options)
    answers = [("passphrase for key.*: ", "wrong"), ("passphrase for key.*: ", PASSPHRASE)]
    if over == "paramiko":
        answers.append((r"keyring.*yes/no\) ", "yes"))
    answered(options, *answers)
    assert probe(options).user == target.user
    assert quietly("logout", options).returncode == 0
    with pytest.raises(errors.AuthenticationFailed):
        probe(options)


@pytest.mark.parametrize("asking", ["password"], indirect=True)
def test_wrong_password_is_asked_for_three_times(asking: Path, over: str) -> None:
    options = options_for("asking", asking, "", transport=over)
    with terminal(options) as spawned:
        spawned.expect("assword: ")
        for _ in range(2):
            spawned.sendline("wrong")
            # ssh itself asks at the terminal, and what it says comes another way, sooner or later: the cursor is behind
            # a question, never below it.
            refused = r"Permission denied, please try again\.\r\n"
            later = rf"assword: (\r\n)?{refused}Try again: $"
            spawned.expect([rf"{refused}[^\n]*assword: $", later])
        spawned.sendline("wrong")
        status, said = ended(spawned)
        assert spawned.getecho()
    assert status == errors.AuthenticationFailed.exit_status
    user = getpass.getuser()
    assert f"permission denied (password) for user '{user}'; check the user name and what you typed" in said
    assert options.login_command() not in said
    assert "wrong" not in said


@pytest.mark.parametrize("asking", ["password"], indirect=True)
def test_nothing_is_asked_off_a_terminal(asking: Path, over: str) -> None:
    options = options_for("asking", asking, "", transport=over)
    done = quietly("login", options)
    assert done.returncode == errors.AuthenticationFailed.exit_status
    assert done.stderr.count("\n") == 1
    assert f"run '{options.login_command()}' in a terminal" in done.stderr


@pytest.mark.parametrize("asking", ["password", "interactive password"], indirect=True)
def test_ctrl_c_at_the_prompt_ends_it_and_leaves_the_terminal_as_it_was(asking: Path, over: str) -> None:
    with terminal(options_for("asking", asking, "", transport=over)) as spawned:
        spawned.expect("assword: ")
        assert wait_until(lambda: not spawned.getecho())
        spawned.sendintr()
        status, said = ended(spawned)
        assert (status, "Traceback" in said) == (130, False), said
        assert spawned.getecho()


# -- secrets


@pytest.mark.parametrize("asking", ["password"], indirect=True)
def test_password_is_in_no_command_line_environment_or_file(
    asking: Path, over: str, isolation: Isolation, keyring: Path, tmp_path: Path
) -> None:
    options = options_for("asking", asking, "", transport=over)
    seen = set()

    def look() -> None:
        for process in psutil.process_iter():
            try:
                seen.update(process.cmdline())
                seen.update(process.environ().values())
            except psutil.Error:
                continue

    with terminal(options) as spawned:
        spawned.expect("password: ")
        spawned.sendline(PASSWORD)
        while spawned.isalive() and spawned.expect([r"yes/no\) ", pexpect.EOF, pexpect.TIMEOUT], timeout=0.01) != 1:
            look()
            if spawned.after != pexpect.TIMEOUT:
                spawned.sendline("no")
        status, said = ended(spawned)
    look()
    assert status == 0
    assert any("login" in word for word in seen), "the watcher saw nothing"
    assert not [text for text in seen if PASSWORD in text]
    assert PASSWORD not in said
    for folder in (isolation.jupyter_runtime, isolation.runtime, isolation.home, tmp_path):
        assert not [path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    quietly("logout", options)
