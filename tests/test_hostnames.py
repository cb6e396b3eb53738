"""Whose pages may read: those of addresses, of localhost and of the names that are given."""

from __future__ import annotations

import pytest

from unlimitedws.hostnames import Hostnames


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9000", "192.0.2.7:9000", "127.0.0.1:", "[::1]", "[::1]:9000", "[2001:db8::7]:80",
     "localhost", "localhost:9000", "LOCALHOST.", "app.localhost:9000"],
)  # fmt: skip
def test_addresses_and_localhost_need_no_name(host: str) -> None:
    assert host in Hostnames("")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9000", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost",
     "evil.example:80:80", "[evil.example]", "127.0.0.1@evil.example", "a b", "[::1", "::1", "", ":9000"],
)  # fmt: skip
def test_everything_else_does(host: str) -> None:
    assert host not in Hostnames("")


def test_a_name_that_is_given_is_taken_with_any_port_case_and_dot_at_its_end() -> None:
    names = Hostnames("stats.example.com, Server1,under_score.internal.")
    for host in ("stats.example.com", "stats.example.com:9000", "STATS.example.com.", "server1:80", "under_score.internal"):
        assert host in names
    for host in ("example.com", "www.stats.example.com", "stats.example.com.evil.example"):
        assert host not in names


def test_what_is_listened_on_counts_where_it_is_a_name() -> None:
    assert "stats.lan:9000" in Hostnames("other", "Stats.lan")
    for own in ("*", "::", "0.0.0.0"):
        assert "evil.example" not in Hostnames("", own)


@pytest.mark.parametrize("text", ["http://stats.example.com", "stats.example.com:9000", "*.example.com", "*", "a b", "stats..example"])
def test_what_is_no_name_is_refused_and_told_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="write names alone"):
        Hostnames(text)
