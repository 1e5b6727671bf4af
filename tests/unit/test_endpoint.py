"""Endpoints and jump hosts: read once, printed back the same, nothing else let through."""

from __future__ import annotations

import string
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_kernel.endpoint import Endpoint, parse_jumps, print_jumps
from remote_kernel.errors import UsageError

_ALPHANUMERIC = string.ascii_letters + string.digits

names = st.builds(
    str.__add__, st.sampled_from(_ALPHANUMERIC + "~=/ü"), st.text(_ALPHANUMERIC + "._+-~=/#æ", max_size=20)
)
addresses = st.builds(
    str.__add__,
    st.ip_addresses(v=6).map(str),
    st.just("") | st.text(_ALPHANUMERIC, min_size=1, max_size=8).map(lambda zone: f"%{zone}"),
)
hosts = names | st.ip_addresses(v=4).map(str) | addresses
users = st.builds(
    "{}{}{}".format,
    st.sampled_from(_ALPHANUMERIC + "_.+üæ"),
    st.text(_ALPHANUMERIC + "_.+-@:\\=%", max_size=20),
    st.sampled_from(_ALPHANUMERIC + "_$"),
)
endpoints = st.builds(Endpoint, hosts, st.none() | users, st.none() | st.integers(1, 65535))


@given(endpoints)
def test_endpoint_printed_reads_back_the_same(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.lists(endpoints, max_size=4).map(tuple))
def test_jumps_printed_read_back_the_same(jumps: tuple[Endpoint, ...]) -> None:
    assert parse_jumps(print_jumps(jumps)) == jumps


@given(st.text(max_size=30) | st.text("a1@:[]%,/.- \n\0", max_size=12))
def test_any_text_is_an_endpoint_that_prints_back_or_a_usage_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except UsageError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
    for word in filter(None, (endpoint.host, endpoint.user)):
        assert not word.startswith("-")
        assert not set(word) & set(" ,\n\0'`\";&<>|(){}")
        assert "$" not in word[:-1]
    if ":" in endpoint.host:
        IPv6Address(endpoint.host.partition("%")[0])


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("gpu1", Endpoint("gpu1")),
        ("me@gpu1", Endpoint("gpu1", "me")),
        ("gpu1:2222", Endpoint("gpu1", None, 2222)),
        ("me@gpu1.example.org:2222", Endpoint("gpu1.example.org", "me", 2222)),
        ("me@corp.example@gpu1", Endpoint("gpu1", "me@corp.example")),
        ("me:target@gateway:22", Endpoint("gateway", "me:target", 22)),
        ("CORP\\me@gpu1", Endpoint("gpu1", "CORP\\me")),
        ("192.0.2.7", Endpoint("192.0.2.7")),
        ("::1", Endpoint("::1")),
        ("me@2001:db8::7", Endpoint("2001:db8::7", "me")),
        ("[2001:db8::7]", Endpoint("2001:db8::7")),
        ("me@[2001:db8::7]:2222", Endpoint("2001:db8::7", "me", 2222)),
        ("fe80::1%eth0", Endpoint("fe80::1%eth0")),
        ("[fe80::1%eth0]:22", Endpoint("fe80::1%eth0", None, 22)),
        ("::ffff:192.0.2.7", Endpoint("::ffff:192.0.2.7")),
        ("my_alias", Endpoint("my_alias")),
        ("work=gpu", Endpoint("work=gpu")),
        ("me@~gpu/büro", Endpoint("~gpu/büro", "me")),
        ("HOST$@gpu1", Endpoint("gpu1", "HOST$")),
        ("ssh://gpu1", Endpoint("gpu1")),
        ("ssh://me@gpu1:2222/", Endpoint("gpu1", "me", 2222)),
    ],
)
def test_endpoint_is_read(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "@gpu1",
        "me@",
        "me@:22",
        ":22",
        "gpu1:",
        "[::1",
        "[::1]:",
        "[::1]22",
        "[gpu1]:22",
        "[]:22",
        "host:22:33",
        "1:2:3",
        ":::",
        "gpu 1",
        "gpu1 ",
        "gpu1\n",
        "gpu1\0",
        "me\0@gpu1",
        "me you@gpu1",
        "a,b",
        "a,b@gpu1",
        "ssh://",
        "ssh://gpu1/path",
        "gpu1;reboot",
        "$(reboot)",
        "`reboot`",
        "gpu1'",
        "gpu$HOME",
        "gpu\\1",
        "a$(touch${IFS}X)@gpu1",
        "a$IFS-oProxyCommand=X@gpu1",
        "a`X`@gpu1",
        "a;X@gpu1",
        "a|X@gpu1",
        "a>X@gpu1",
        "'a@gpu1",
        "a\\@gpu1",
        "a\u202eb@gpu1",
        "gpu\x9b1",
    ],
)
def test_what_is_no_endpoint_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(text)
    assert caught.value.message == f"'{text}' is not an endpoint"
    assert "[user@]host[:port]" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["-oProxyCommand=reboot", "-J", "me@-oProxyCommand=x", "-l@gpu1", "ssh://-v", "[-::1]"]
)
def test_nothing_that_ssh_would_take_for_an_option_is_an_endpoint(text: str) -> None:
    with pytest.raises(UsageError):
        Endpoint.parse(text)


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "+22", "2 2", "２２", "1e3", "//gpu1", "9" * 5000])
def test_port_out_of_range_or_no_number_is_a_usage_error(port: str) -> None:
    with pytest.raises(UsageError, match=r"no valid port|not an endpoint"):
        Endpoint.parse(f"gpu1:{port}")


def test_empty_text_is_no_jump_host() -> None:
    assert parse_jumps("") == parse_jumps("  ") == ()
    assert print_jumps(()) == ""


def test_jumps_keep_their_order_and_may_be_spaced() -> None:
    jumps = parse_jumps("me@first:2222, second ,[::1]:22")
    assert jumps == (Endpoint("first", "me", 2222), Endpoint("second"), Endpoint("::1", None, 22))
    assert print_jumps(jumps) == "me@first:2222,second,[::1]:22"


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b", "a,-oProxyCommand=x"])
def test_an_empty_or_bad_jump_host_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_jumps(text)
