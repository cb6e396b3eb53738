from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import asked, asked_at
from unlimitedws.checks import origin
from unlimitedws.verdict import Reject


def lets_in(check: Any, theirs: str | None, host: str = "a.example", **more: Any) -> bool:
    lines = () if theirs is None else (f"Origin: {theirs}",)
    verdict = check(asked_at(host, *lines, **more))
    assert verdict is None or (isinstance(verdict, Reject) and verdict.status == 403)
    return verdict is None


@pytest.mark.parametrize(
    ("theirs", "host"),
    [
        ("https://a.example", "a.example"),
        ("http://a.example", "a.example"),
        ("https://A.Example", "a.example"),
        ("https://a.example", "A.EXAMPLE"),
        ("https://a.example:443", "a.example"),
        ("https://a.example", "a.example:443"),
        ("http://a.example", "a.example:80"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://[2001:db8::1]", "[2001:db8::1]"),
    ],
)
def test_a_page_of_this_server_is_let_in(theirs: str, host: str) -> None:
    assert lets_in(origin(), theirs, host)


@pytest.mark.parametrize(
    ("theirs", "host"),
    [
        ("https://b.example", "a.example"),
        ("https://a.example.b.example", "a.example"),
        ("https://xa.example", "a.example"),
        ("https://x.a.example", "a.example"),
        ("https://a.example:8443", "a.example"),
        ("https://a.example", "a.example:8443"),
        ("https://a.example", "a.example:80"),
        ("http://a.example", "a.example:443"),
        ("http://localhost:8001", "localhost:8000"),
        ("null", "a.example"),
        ("", "a.example"),
        ("a.example", "a.example"),
        ("//a.example", "a.example"),
        ("ftp://a.example", "a.example"),
        ("chrome-extension://a.example", "a.example"),
        ("https://a.example/", "a.example"),
        ("https://a.example, https://a.example", "a.example"),
        ("https://user@a.example", "a.example"),
        ("https://a.example:", "a.example"),
        ("https://a.example:443443", "a.example"),
        ("https://[::1", "[::1"),
        ("*", "a.example"),
    ],
)
def test_any_other_page_is_refused(theirs: str, host: str) -> None:
    assert not lets_in(origin(), theirs, host)


def test_a_page_without_encryption_may_not_use_what_has_it() -> None:
    assert not lets_in(origin(), "http://a.example", scheme="https")
    assert lets_in(origin(), "https://a.example", scheme="https")
    assert lets_in(origin(), "https://a.example", scheme="http")  # a proxy that says nothing took the TLS off


def test_two_origin_headers_are_refused() -> None:
    assert origin()(asked("Origin: http://test", "Origin: http://test")) is not None
    assert origin()(asked("Origin: http://test")) is None


def test_a_program_without_an_origin_is_let_in_unless_that_is_switched_off() -> None:
    assert lets_in(origin(), None)
    assert lets_in(origin("https://a.example"), None)
    assert not lets_in(origin(allow_missing=False), None)
    assert not lets_in(origin("*", allow_missing=False), None)


def test_a_list_is_exact() -> None:
    check = origin("https://app.example", "http://localhost:3000")
    assert lets_in(check, "https://app.example")
    assert lets_in(check, "https://app.example:443")
    assert lets_in(check, "HTTPS://APP.example")
    assert lets_in(check, "http://localhost:3000")
    for theirs in (
        "http://app.example",
        "https://x.app.example",
        "https://app.example:8443",
        "http://localhost",
        "null",
        "https://app.example/",
    ):
        assert not lets_in(check, theirs), theirs


def test_a_list_leaves_out_this_server_unless_it_is_named() -> None:
    assert not lets_in(origin("https://b.example"), "https://a.example", "a.example")


def test_all_pages_are_let_in_only_where_it_is_written_out() -> None:
    for theirs in ("https://b.example", "null", "anything"):
        assert lets_in(origin("*"), theirs)


def test_null_is_let_in_only_where_it_is_written_out() -> None:
    assert lets_in(origin("null"), "null")
    assert not lets_in(origin("null"), "https://b.example")


def test_origins_of_other_schemes_can_be_listed() -> None:
    check = origin("chrome-extension://abcdef", "capacitor://localhost")
    assert lets_in(check, "chrome-extension://abcdef")
    assert lets_in(check, "capacitor://localhost")
    assert not lets_in(check, "capacitor://localhost:80")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a.example",
        "https://a.example/",
        "https://*.a.example",
        "https://bücher.example",
        "https://a.example/x",
        "https://a b",
        b"*",
        None,
    ],
)
def test_what_no_browser_would_send_cannot_be_listed(wrong: Any) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        origin(wrong)


def test_the_refusal_does_not_repeat_the_origin() -> None:
    verdict = origin()(asked("Origin: https://evil.example"))
    assert isinstance(verdict, Reject)
    assert b"evil" not in verdict.pack()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_no_origin_makes_it_fail_and_none_but_its_own_passes(theirs: str) -> None:
    assert lets_in(origin(), theirs) == (theirs.lower() in ("https://a.example", "http://a.example"))
