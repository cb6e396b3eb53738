"""The client's address out of what proxies wrote, and out of what the client itself wrote: never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.trust import Trusted
from unlimitedws.wire.address import Address
from unlimitedws.wire.forwarded import Hop, Origin, forwarded, node, origin, x_forwarded

OURS = Trusted("10.0.0.0/8, ::1, unix")
PROXY = ("10.0.0.1", 4000)


def client(*hops: Hop, peer: Address = PROXY) -> Origin:
    return origin(list(hops), peer, OURS.__contains__)


# ---- the walk


def test_the_first_address_from_the_right_that_is_not_trusted_is_the_client() -> None:
    assert client(Hop("192.0.2.66"), Hop("192.0.2.1"), Hop("10.0.0.2")).address == ("192.0.2.1", 0)


def test_an_address_that_the_client_wrote_itself_is_not_believed() -> None:
    assert client(Hop("10.0.0.9"), Hop("127.0.0.1"), Hop("192.0.2.1")).address == ("192.0.2.1", 0)


def test_the_word_of_a_peer_that_is_not_trusted_is_not_heard() -> None:
    assert client(Hop("192.0.2.66", "https"), peer=("192.0.2.1", 7)) == Origin(("192.0.2.1", 7), "")


def test_where_everybody_is_trusted_the_client_is_the_first() -> None:
    assert client(Hop("10.0.0.7"), Hop("10.0.0.2")).address == ("10.0.0.7", 0)


def test_without_a_word_the_peer_is_the_client() -> None:
    assert client() == Origin(PROXY, "")


@pytest.mark.parametrize("unknown", ["", "unknown", "_hidden", "unix:", "nonsense", "[::1", "1.2.3"])
def test_a_proxy_that_does_not_say_where_it_has_it_from_is_the_client(unknown: str) -> None:
    assert client(Hop("192.0.2.66"), Hop(unknown), Hop("10.0.0.2")).address == ("10.0.0.2", 0)


def test_a_proxy_on_a_unix_socket_is_believed_where_that_is_trusted() -> None:
    assert client(Hop("192.0.2.1"), peer="unix").address == ("192.0.2.1", 0)
    assert origin([Hop("192.0.2.1")], "unix", Trusted("10.0.0.0/8").__contains__).address == "unix"


def test_the_scheme_is_the_one_that_the_proxy_next_to_the_client_saw() -> None:
    assert client(Hop("192.0.2.1", "https"), Hop("10.0.0.2", "http")).scheme == "https"
    assert client(Hop("192.0.2.1", ""), Hop("10.0.0.2", "http")).scheme == "http"
    assert client(Hop("192.0.2.66", "ftp"), Hop("192.0.2.1", "https")).scheme == "https"
    assert client(Hop("unknown", "https")).scheme == "https"


# ---- one node


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:8080", ("192.0.2.1", 8080)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:DB8::1]:8080", ("2001:db8::1", 8080)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[::ffff:192.0.2.1]:80", ("192.0.2.1", 80)),
        ("192.0.2.1:_port", ("192.0.2.1", 0)),  # obfuscated: RFC 7239, section 6.2
        ("192.0.2.1:65536", ("192.0.2.1", 0)),
        ("192.0.2.1:00000099999999", ("192.0.2.1", 0)),
    ],
)
def test_a_node_is_an_address_with_or_without_port(text: str, address: Address) -> None:
    assert node(text) == address


@pytest.mark.parametrize("text", ["", "unknown", "_hidden", "[192.0.2.1]", "[::1]80", "[::1", "::1]", "a:b", "192.0.2.1:80:90", "unix:"])
def test_what_names_no_address_is_no_node(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        node(text)


# ---- Forwarded


@pytest.mark.parametrize(
    ("value", "hops"),
    [
        ("for=192.0.2.1", [Hop("192.0.2.1")]),
        ('For="[2001:db8:cafe::17]:4711"', [Hop("[2001:db8:cafe::17]:4711")]),
        ("for=192.0.2.60;proto=HTTPS;by=203.0.113.43", [Hop("192.0.2.60", "https")]),
        ("for=192.0.2.43, for=198.51.100.17", [Hop("192.0.2.43"), Hop("198.51.100.17")]),
        ("for=192.0.2.43,for=198.51.100.17;by=1.1.1.1", [Hop("192.0.2.43"), Hop("198.51.100.17")]),
        ('for="_gazonk"', [Hop("_gazonk")]),
        (r'for="\1\2.1"', [Hop("12.1")]),
        ("proto=http;for=unknown", [Hop("unknown", "http")]),
        ("by=10.0.0.1", [Hop("")]),
        ("for=1.1.1.1;for=2.2.2.2", [Hop("1.1.1.1")]),
        ('for=1.1.1.1;proto="a b"', [Hop("1.1.1.1", "")]),
        ('for=1.1.1.1;host="a, for=9.9.9.9; b"', [Hop("1.1.1.1")]),
    ],
)
def test_forwarded_is_read_as_the_standard_writes_it(value: str, hops: list[Hop]) -> None:
    assert forwarded([value]) == hops


def test_several_headers_are_one_list() -> None:
    assert forwarded(["for=1.1.1.1, for=2.2.2.2", "for=3.3.3.3"]) == [Hop("1.1.1.1"), Hop("2.2.2.2"), Hop("3.3.3.3")]


@pytest.mark.parametrize(
    "nonsense",
    ["", ",", ";", '"', "for=", "for=a b", 'for="', 'for="1.1.1.1', "for=[::1]", "=1", "for==1", 'for="\\', 'for="a"b', "for=1;"],
)
def test_what_a_client_wrote_against_the_grammar_does_not_hide_what_the_proxy_wrote(nonsense: str) -> None:
    for behind in ('for="[2001:db8::1]:80";proto="https"', "for=192.0.2.1;proto=https"):
        found = forwarded([f"{nonsense}, {behind}"])
        assert found[-1] in (Hop("[2001:db8::1]:80", "https"), Hop("192.0.2.1", "https"))


@given(st.text(max_size=60))
def test_whatever_a_client_wrote_in_a_header_of_its_own_the_proxys_word_comes_last(text: str) -> None:
    assert forwarded([text, 'for="192.0.2.1:80"'])[-1] == Hop("192.0.2.1:80")


LONG = 300_000


@pytest.mark.parametrize("value", ['for="' + "\\" * LONG, "for=a" + "," * LONG, 'a="b,' * LONG, "for=" + " " * LONG + "x", "a=b;" * LONG])
def test_a_long_header_is_read_before_the_test_times_out(value: str) -> None:
    # In quadratic time it would take hours.
    assert len(forwarded([value])) <= LONG
    assert len(x_forwarded([value], [value])) <= LONG


# ---- X-Forwarded-For


def test_x_forwarded_for_is_a_list_of_nodes() -> None:
    assert x_forwarded(["192.0.2.1, 10.0.0.2", "[::1]:80"], []) == [Hop("192.0.2.1"), Hop("10.0.0.2"), Hop("[::1]:80")]


def test_schemes_belong_to_nodes_where_there_are_as_many_and_else_the_last_counts() -> None:
    assert x_forwarded(["a, b"], ["https, http"]) == [Hop("a", "https"), Hop("b", "http")]
    assert x_forwarded(["a, b"], ["https"]) == [Hop("a", "https"), Hop("b", "https")]
    assert x_forwarded(["a"], ["http", "https"]) == [Hop("a", "https")]
    assert x_forwarded(["a"], ["not a scheme"]) == [Hop("a")]


def test_empty_items_are_left_out() -> None:
    assert x_forwarded([" , 192.0.2.1,,"], [","]) == [Hop("192.0.2.1")]
