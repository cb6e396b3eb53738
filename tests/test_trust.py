"""Who is trusted: addresses, networks, peers of Unix sockets, and nobody else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.trust import Trusted


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        (("10.1.2.3", 80), True),
        (("192.0.2.7", 80), True),
        (("192.0.2.8", 80), False),
        (("11.0.0.1", 80), False),
        (("::1", 80), True),
        (("::2", 80), False),
        (("2001:db8:1::5", 80), True),
        (("2001:db9::5", 80), False),
        ("unix", False),
    ],
)
def test_addresses_and_networks_are_trusted(address: tuple[str, int] | str, is_trusted: bool) -> None:
    assert (address in Trusted("10.0.0.0/8, 192.0.2.7,::1 ,2001:db8::/32")) == is_trusted


def test_peers_of_unix_sockets_are_trusted_where_it_says_so() -> None:
    assert "unix" in Trusted("unix")
    assert "/run/client.sock" in Trusted("unix, ::1")
    assert "/run/client.sock" not in Trusted("::1")


@pytest.mark.parametrize(("text", "anybody"), [("", False), (" , ", False), ("unix", True), ("::1", True), ("10.0.0.0/8", True)])
def test_it_is_true_where_anybody_is_trusted(text: str, anybody: bool) -> None:
    assert bool(Trusted(text)) == anybody
    assert (("10.0.0.1", 1) in Trusted(text)) == (text == "10.0.0.0/8")


def test_an_ipv4_address_written_as_ipv6_is_the_same() -> None:
    assert ("192.0.2.1", 1) in Trusted("::ffff:192.0.2.1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "'localhost' is no address"),
        ("10.1.2.3/8", "'10.1.2.3/8' is no address.*host bits"),
        ("10.0.0.0/33", "'10.0.0.0/33'"),
        ("*", r"'\*'"),
        ("10.0.0.1 10.0.0.2", "'10.0.0.1 10.0.0.2'"),
        ("fe80::1%eth0", "zone"),
        ("::ffff:10.0.0.0/104", "write it as IPv4"),
    ],
)
def test_what_nobody_can_be_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Trusted(f"::1, {text}")


@given(st.one_of(st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))), st.data())
def test_a_network_holds_what_the_standard_library_says(made: tuple[object, int], data: st.DataObject) -> None:
    network = ip_network(made, strict=False)  # type: ignore[arg-type]
    if str(network).startswith("::ffff:"):
        return
    other = data.draw(st.one_of(st.ip_addresses(v=network.version), st.ip_addresses(network=network)))
    if getattr(other, "ipv4_mapped", None) or getattr(other, "scope_id", None):
        return
    assert ((str(other), 1) in Trusted(str(network))) == (ip_address(str(other)) in network)
