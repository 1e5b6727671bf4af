"""The launcher's command line: the only record of a kernel's settings, so it reads back what it writes."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import UsageError
from remote_kernel.options import (
    DEFAULT_LINGER_SECONDS,
    FOREVER,
    Forward,
    LaunchOptions,
    check_kernel_name,
    check_transport,
    find_program,
    parse_duration,
    parse_forwards,
    parse_launch,
    parse_variable,
    print_duration,
)
from tests.unit.test_endpoint import endpoints

# What an argument vector can hold. argparse up to Python 3.12 drops a value that is just two dashes.
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30).filter("--".__ne__)
variables = st.tuples(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), values)
durations = (
    st.just(FOREVER)
    | st.integers(0, 10**9).map(float)
    | st.builds(lambda number, unit: float(number * unit), st.integers(0, 1000), st.sampled_from([60, 3600, 86400]))
    | st.floats(0, allow_infinity=False, allow_nan=False)
)
ports = st.integers(1, 65535)
forwards = st.lists(st.builds(Forward, ports, ports), max_size=3, unique_by=lambda forward: forward.local).map(tuple)
launches = st.builds(
    LaunchOptions,
    endpoint=endpoints,
    jumps=st.lists(endpoints, max_size=3).map(tuple),
    python=values,
    kernel=st.from_regex(r"[A-Za-z0-9._-]{0,12}", fullmatch=True).filter("--".__ne__),
    env=st.lists(variables, max_size=3).map(tuple),
    workdir=values,
    init=values,
    transport=st.sampled_from(["", "openssh"]),
    ssh_config=values,
    linger_seconds=durations,
    spool_bytes=st.integers(0, 10**14),
    keep=st.booleans(),
    resume=st.just("") | st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
    forward=forwards,
    on_start=values,
    connection_file=st.just("{connection_file}") | values.map(lambda name: f"/run/{name}.json"),
    spec_env=st.just(()),
    extra_arguments=st.lists(values | st.sampled_from(["--", "-f", "--keep"]), max_size=3).map(tuple),
)


@given(launches)
def test_arguments_read_back_the_same(options: LaunchOptions) -> None:
    assert parse_launch(options.to_arguments()) == options


def test_arguments_leave_out_what_is_default() -> None:
    words = LaunchOptions(Endpoint("gpu1")).to_arguments()
    assert words == ["--endpoint", "gpu1", "-f", "{connection_file}"]
    assert parse_launch(words) == LaunchOptions(Endpoint("gpu1"), connection_file="{connection_file}")


def test_arguments_are_as_a_person_would_write_them() -> None:
    options = LaunchOptions(
        Endpoint("gpu1", "me", 2222),
        (Endpoint("jump1"), Endpoint("::1", "me")),
        python="~/venv/bin/python",
        env=(("CUDA_VISIBLE_DEVICES", "0,1"), ("EMPTY", "")),
        workdir="~/my project",
        init="--not an option",
        linger_seconds=2 * 86400.0,
        connection_file="/run/kernel-1.json",
    )
    assert options.to_arguments() == [
        *("--endpoint", "me@gpu1:2222"),
        *("-J", "jump1,me@[::1]"),
        "--python=~/venv/bin/python",
        "--workdir=~/my project",
        "--init=--not an option",
        *("--env", "CUDA_VISIBLE_DEVICES=0,1"),
        *("--env", "EMPTY="),
        *("--linger", "2d"),
        *("-f", "/run/kernel-1.json"),
    ]


@pytest.mark.parametrize("file", [["-f", "k.json"], ["-fk.json"], ["--connection-file=k.json"]])
def test_what_follows_the_connection_file_is_the_kernels(file: list[str]) -> None:
    theirs = ["--HistoryManager.hist_file=:memory:", "--keep", "-f", "other.json", "stray", "--resume", "--"]
    options = parse_launch(["--endpoint", "gpu1", *file, *theirs])
    assert options == LaunchOptions(Endpoint("gpu1"), connection_file="k.json", extra_arguments=tuple(theirs))


def test_long_and_short_flags_mean_the_same() -> None:
    short = parse_launch(["--endpoint", "gpu1", "-J", "jump1", "-f", "/run/k.json"])
    assert short == parse_launch(["--endpoint=gpu1", "--jump=jump1", "--connection-file", "/run/k.json"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-f", "k.json"],
        ["--endpoint", "gpu1"],
        ["--endpoint", "gpu1", "-f"],
        ["--endpoint", "-oProxyCommand=x", "-f", "k.json"],
        ["--endpoint=-oProxyCommand=x", "-f", "k.json"],
        ["--endpoint", "gpu1", "--unknown", "-f", "k.json"],
        ["--endpoint", "gpu1", "stray", "-f", "k.json"],
        ["--endpoint", "gpu1", "--pyth", "python3", "-f", "k.json"],
        ["--endpoint", "gpu1", "--help", "-f", "k.json"],
        ["--endpoint", "gpu1", "--env", "1A=b", "-f", "k.json"],
        ["--endpoint", "gpu1", "--kernel", "a b", "-f", "k.json"],
        ["--endpoint", "gpu1", "--linger", "-5", "-f", "k.json"],
        ["--endpoint", "gpu1", "--transport", "pigeon", "-f", "k.json"],
        ["--endpoint", "gpu1", "-J", "a,,b", "-f", "k.json"],
    ],
)
def test_bad_command_line_is_a_usage_error_and_prints_nothing(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        parse_launch(words)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("24h", DEFAULT_LINGER_SECONDS),
        ("2d", 172800),
        ("1.5h", 5400),
        ("0.25", 0.25),
        ("forever", FOREVER),
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "-1", "+1", "1.", ".5", "1e3", "1w", "1 h", "1h30m", "90\n", "inf", "nan"]
)
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration; write for example"):
        parse_duration(text)


@given(durations)
def test_duration_printed_reads_back_the_same(seconds: float) -> None:
    assert parse_duration(print_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (90, "90"),
        (60, "1m"),
        (5400, "90m"),
        (86400, "1d"),
        (129600, "36h"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (math.inf, "forever"),
    ],
)
def test_duration_is_printed_short(seconds: float, text: str) -> None:
    assert print_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "pair"), [("A=1", ("A", "1")), ("_a1=", ("_a1", "")), ("A=b=c", ("A", "b=c")), ("A= x\ny", ("A", " x\ny"))]
)
def test_variable_is_read(text: str, pair: tuple[str, str]) -> None:
    assert parse_variable(text) == pair


@pytest.mark.parametrize("text", ["", "A", "=1", "1A=x", "A-B=x", "A B=x", "A\n=x", "Ä=x", "A;B=x"])
def test_what_is_no_variable_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a variable; write NAME=VALUE"):
        parse_variable(text)


@pytest.mark.parametrize("name", ["", "python3", "ir", "julia-1.10", "my_kernel"])
def test_kernel_name_is_given_back(name: str) -> None:
    assert check_kernel_name(name) == name


@pytest.mark.parametrize("name", ["a b", "a/b", "../x", "a;b", "$x", "é", "a\n"])
def test_what_cannot_name_a_kernelspec_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        check_kernel_name(name)


def test_transport_is_one_that_exists() -> None:
    assert check_transport("") == ""
    assert check_transport("openssh") == "openssh"
    assert check_transport("paramiko") == "paramiko"
    with pytest.raises(UsageError, match="there is no transport 'pigeon'"):
        check_transport("pigeon")


def test_python_comes_from_the_option_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LaunchOptions(Endpoint("gpu1"))
    assert options.remote_python() == "python3"
    monkeypatch.setenv("REMOTE_KERNEL_PYTHON", "/opt/python")
    assert options.remote_python() == "/opt/python"
    assert options._replace(python="/usr/bin/python3").remote_python() == "/usr/bin/python3"


def test_transport_comes_from_the_option_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LaunchOptions(Endpoint("gpu1"), transport="openssh")
    monkeypatch.setenv("REMOTE_KERNEL_TRANSPORT", "other")
    assert options.transport_name() == "openssh"
    assert options._replace(transport="").transport_name() == "other"


def test_program_is_the_one_beside_this_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("beside", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "remote_kernel").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path") + os.pathsep + "/nowhere")
    assert find_program() == str(tmp_path / "beside" / "remote_kernel")
    (tmp_path / "beside" / "remote_kernel").unlink()
    assert find_program() == str(tmp_path / "path" / "remote_kernel")
    (tmp_path / "path" / "remote_kernel").unlink()
    assert find_program() is None


def test_no_word_starts_with_the_home_sign() -> None:
    # jupyter_client expands it in every word of argv (launch_kernel), to the home folder of this machine.
    options = LaunchOptions(Endpoint("h"), python="~/p", workdir="~", init="~/setup", ssh_config="~/c")
    words = options.to_arguments()
    assert not [word for word in words if word.startswith("~")]
    assert parse_launch(words)._replace(connection_file="") == options


def test_forwards_are_read_and_written_back() -> None:
    words = ["--endpoint", "h", "--forward", "6006", "--forward", "16006:6006", "-f", "x"]
    options = parse_launch(words)
    assert options.forward == (Forward(6006, 6006), Forward(16006, 6006))
    assert parse_launch(options.to_arguments()) == options


@pytest.mark.parametrize("text", ["0", "65536", "a", "1:2:3", "0.0.0.0:80", "0.0.0.0:80:80", "::1:80", "80:", "-1"])
def test_forward_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match="PORT"):
        parse_forwards([text])


def test_one_port_leads_to_one_place() -> None:
    with pytest.raises(UsageError, match="two ports"):
        parse_forwards(["80", "80:81"])
