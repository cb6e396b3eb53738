from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlimitedws.cookies import Cookie, checked_cookies, parse_cookies


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"", {}),
        (b"a=1", {"a": "1"}),
        (b"a=1; b=2", {"a": "1", "b": "2"}),
        (b"a=1;b=2;", {"a": "1", "b": "2"}),
        (b" a = 1 ;\tb=2", {"a": "1", "b": "2"}),
        (b'a="1 2"; b="', {"a": "1 2", "b": '"'}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=", {"a": ""}),
        (b"flag; =x; a=1", {"a": "1"}),
        (b"a=1; a=2", {"a": "1"}),
        (b"A=1; a=2", {"A": "1", "a": "2"}),
        (b"a=%20; b=caf\xe9", {"a": "%20", "b": "café"}),
    ],
)
def test_cookies_are_read_leniently(line: bytes, found: dict[str, str]) -> None:
    assert parse_cookies([line]) == found


@settings(suppress_health_check=[HealthCheck.too_slow])  # which a busy machine is
@given(st.lists(st.binary(max_size=40), max_size=3))
def test_no_cookie_header_fails_to_be_read(lines: list[bytes]) -> None:
    assert all(name for name in parse_cookies(lines))


def test_a_cookie_is_safe_unless_it_is_told_otherwise() -> None:
    assert Cookie("a", "1").pack() == "a=1; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_every_attribute_is_packed() -> None:
    cookie = Cookie("a", "1", max_age=60, path="/x", domain="a.example", secure=False, httponly=False, samesite="Strict")
    assert cookie.pack() == "a=1; Path=/x; Domain=a.example; Max-Age=60; SameSite=Strict"


def test_others_read_what_is_packed() -> None:
    read = SimpleCookie(Cookie("a", "x.y-z", max_age=60).pack())["a"]
    assert (read.value, read["path"], read["max-age"], read["samesite"]) == ("x.y-z", "/", "60", "Lax")
    assert read["secure"] is read["httponly"] is True


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a b"}, "token"),
        ({"name": ""}, "token"),
        ({"name": b"a"}, "token"),
        ({"value": "a;b"}, "encode it"),
        ({"value": "a b"}, "encode it"),
        ({"value": "é"}, "encode it"),
        ({"value": "a\r\nSet-Cookie: b=1"}, "encode it"),
        ({"value": 1}, "encode it"),
        ({"path": "x"}, "slash"),
        ({"path": "/;Domain=b.example"}, "semicolon"),
        ({"domain": ""}, "domain"),
        ({"domain": "a;b"}, "domain"),
        ({"max_age": 1.5}, "whole number"),
        ({"max_age": True}, "whole number"),
        ({"samesite": "lax"}, "Strict, Lax, None"),
        ({"samesite": "None", "secure": False}, "secure"),
        ({"name": "__Secure-a", "secure": False}, "secure"),
        ({"name": "__Host-a", "secure": False}, "secure"),
        ({"name": "__Host-a", "path": "/x"}, "path"),
        ({"name": "__Host-a", "domain": "a.example"}, "domain"),
    ],
)
def test_what_a_browser_would_refuse_is_a_value_error(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cookie(**{"name": "a", "value": "1", **given})


def test_errors_and_reprs_show_no_value() -> None:
    with pytest.raises(ValueError, match="the value of cookie a") as caught:
        Cookie("a", "secret word")
    assert "secret" not in str(caught.value)
    assert repr(Cookie("a", "secret")) == "<Cookie a>"


def test_a_pair_is_a_cookie_with_the_defaults() -> None:
    assert checked_cookies([("a", "1"), Cookie("b", "2", max_age=0)]) == (Cookie("a", "1"), Cookie("b", "2", max_age=0))


@pytest.mark.parametrize("given", [["a=1"], [("a",)], [("a", "1", 60)], {"a": "1"}])
def test_what_is_neither_a_cookie_nor_a_pair_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match="pairs of a name and a value"):
        checked_cookies(given)
