"""Whose word counts for which connection."""

from __future__ import annotations

from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.proxies import Proxies
from unlimitedws.wire.address import Address

PROXY = ("10.0.0.1", 4000)
STRANGER = ("192.0.2.200", 4000)


def proxies(header: str = "x-forwarded-for", **settings: Any) -> Proxies:
    return Proxies(Config(**{"trusted_proxies": "10.0.0.0/8", "forwarded_header": header, **settings}))


def head(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: x", *lines]).encode("latin-1") + b"\r\n\r\n"


BOTH = head("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", 'Forwarded: for="[2001:db8::2]:5";proto=http')


@pytest.mark.parametrize(
    ("header", "address", "scheme"),
    [("none", PROXY, ""), ("x-forwarded-for", ("192.0.2.1", 0), "https"), ("forwarded", ("2001:db8::2", 5), "http")],
)
def test_the_header_of_the_setting_is_believed_and_the_other_one_never_looked_at(header: str, address: Address, scheme: str) -> None:
    assert proxies(header).origin(BOTH, PROXY) == (address, scheme)


@pytest.mark.parametrize("header", ["none", "x-forwarded-for", "forwarded"])
def test_a_stranger_is_not_believed(header: str) -> None:
    assert proxies(header).origin(BOTH, STRANGER) == (STRANGER, "")


@pytest.mark.parametrize(
    "lines",
    [("x-forwarded-FOR:192.0.2.1",), ("X-Forwarded-For: \t192.0.2.1 \t",), ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1")],
)
def test_headers_are_found_in_any_spelling_and_number(lines: tuple[str, ...]) -> None:
    assert proxies().origin(head(*lines), PROXY).address == ("192.0.2.1", 0)


@pytest.mark.parametrize(
    "line", ["X-X-Forwarded-For: 6.6.6.6", "X-Forwarded-Forx: 6.6.6.6", "Cookie: X-Forwarded-For: 6.6.6.6", "X-Forwarded-For-: 6.6.6.6"]
)
def test_nothing_that_looks_alike_is_taken(line: str) -> None:
    assert proxies().origin(head(line), PROXY).address == PROXY


def test_without_the_header_the_proxy_is_the_client() -> None:
    assert proxies().origin(head(), PROXY) == (PROXY, "")


def test_a_head_full_of_blanks_is_searched_before_the_test_times_out() -> None:
    # In quadratic time it would take an hour.
    assert proxies().origin(head("X-Forwarded-For:" + " " * 1_000_000 + "x"), PROXY).address == PROXY


def test_a_preface_is_taken_from_trusted_addresses_only() -> None:
    preface = b"PROXY TCP4 192.0.2.1 10.0.0.9 77 80\r\n"
    assert proxies().preface(preface + b"GET", PROXY) == (len(preface), ("192.0.2.1", 77))
    for address in (STRANGER, "unix"):
        with pytest.raises(ValueError, match="trusted_proxies"):
            proxies().preface(preface, address)
    assert proxies(trusted_proxies="unix").preface(preface, "unix") == (len(preface), ("192.0.2.1", 77))


def test_an_operator_who_forgot_to_trust_the_proxy_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made = proxies()
    for port in range(5):
        with pytest.raises(ValueError, match="trusted_proxies"):
            made.preface(b"PROXY ", (STRANGER[0], port))
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [f"('{STRANGER[0]}'"]
    assert "is not in trusted_proxies" in caplog.text


def test_a_client_named_in_a_preface_is_no_proxy() -> None:
    # Its address comes from the preface, so the header that it wrote itself is not believed.
    assert proxies().origin(BOTH, ("192.0.2.1", 77)).address == ("192.0.2.1", 77)
