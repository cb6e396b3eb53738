from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlimitedws.http.response import Response, response_of, type_of


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("<p>né", "text/html; charset=utf-8"),
        (b"\0\1", "application/octet-stream"),
        (Response("a,b", "text/csv"), "text/csv"),
        (Response(b"x"), "application/octet-stream"),
        (Response(iter([b"x"])), "application/octet-stream"),
        (Path("style.css"), "text/css; charset=utf-8"),
        (Response(Path("data.json")), "application/json"),
    ],
)
def test_what_a_route_returns_becomes_a_response_with_a_type(result: Any, kind: str) -> None:
    response = response_of(result)
    assert response.status == 200
    assert response.lines == [("Content-Type", kind)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("PAGE.HTML", "text/html; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("app.mjs", "text/javascript; charset=utf-8"),
        ("logo.png", "image/png"),
        ("logo.svg", "image/svg+xml"),
        ("mod.wasm", "application/wasm"),
        ("font.woff2", "font/woff2"),
        ("app.js.map", "application/json"),
        ("all.tar.gz", "application/gzip"),
        ("page.html.gz", "application/gzip"),
        ("page.html.bz2", "application/octet-stream"),
        ("strange.zzz9", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ],
)
def test_the_type_of_a_file_is_that_of_its_ending_on_every_machine(name: str, kind: str) -> None:
    assert type_of(name) == kind


@pytest.mark.parametrize(
    "headers",
    [
        [("X-A", "one\r\nX-B: two")],
        [("X-A\r\nX-B", "two")],
        [("X A", "v")],
        [("", "v")],
        [("X-A", "né")],
        [("X-A", "a\0b")],
        [("Content-Length", "3")],
        {"transfer-encoding": "chunked"},
        {"content-type": "text/html; charset=utf-8"},
        {"Connection": "keep-alive"},
    ],
)
def test_headers_that_would_break_the_response_are_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        Response("", headers=headers)


def test_headers_may_be_a_mapping_or_pairs() -> None:
    assert Response(headers={"X-A": "1"}).lines[1:] == [("X-A", "1")]
    assert Response(headers=[("X-A", "1"), ("X-A", "2")]).lines[1:] == [("X-A", "1"), ("X-A", "2")]


def test_a_type_cannot_carry_a_second_header() -> None:
    with pytest.raises(ValueError, match="Content-Type"):
        Response("", "text/plain\r\nX-Injected: yes")


@pytest.mark.parametrize("status", [0, 99, 101, 199, 600, "200", 200.0, True])
def test_only_a_final_status_is_accepted(status: Any) -> None:
    with pytest.raises(ValueError, match="status"):
        Response(status=status)


@pytest.mark.parametrize("body", [{"a": 1}, None, 3, bytearray(b"x")])
def test_a_body_that_cannot_be_sent_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match="body"):
        Response(body)


@pytest.mark.parametrize("result", [None, 3, {"a": 1}, iter([b"x"])])
def test_anything_else_a_route_returns_is_an_error(result: Any) -> None:
    with pytest.raises(TypeError, match="a route returns"):
        response_of(result)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_no_type(status: int) -> None:
    assert Response(status=status).lines == []
