from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlimitedws.pages import Page, pack_page, page_of


def parts(response: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    return first, headers, body


@pytest.mark.parametrize(
    ("result", "kind", "body"),
    [
        ("<p>né", b"text/html; charset=utf-8", "<p>né".encode()),
        (b"\0\1", b"application/octet-stream", b"\0\1"),
        (Page("a,b", "text/csv"), b"text/csv", b"a,b"),
        (Page(b"x"), b"application/octet-stream", b"x"),
    ],
)
def test_what_a_page_function_returns_becomes_a_response(result: Any, kind: bytes, body: bytes) -> None:
    first, headers, sent = parts(pack_page(page_of(result)))
    assert first == b"HTTP/1.1 200 OK"
    assert headers[b"Content-Type"] == kind
    assert headers[b"Content-Length"] == str(len(body)).encode()
    assert headers[b"Connection"] == b"close"
    assert headers[b"Date"].endswith(b"GMT")
    assert sent == body


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("logo.png", "image/png"),
        ("data.json", "application/json"),
        ("strange.zzz9", "application/octet-stream"),
    ],
)
def test_a_path_is_read_and_its_type_guessed(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"content")
    assert page_of(file) == Page(b"content", kind)


def test_the_answer_to_head_is_that_to_get_without_its_body() -> None:
    page = Page("hello", headers=[("X-Mood", "good")])
    _, headers, body = parts(pack_page(page, method="HEAD"))
    assert (headers[b"Content-Length"], headers[b"X-Mood"], body) == (b"5", b"good", b"")


def test_status_and_headers_are_sent() -> None:
    first, headers, body = parts(pack_page(Page("gone", status=303, headers=[("Location", "/new")])))
    assert (first, headers[b"Location"], body) == (b"HTTP/1.1 303 See Other", b"/new", b"gone")


def test_a_status_without_a_name_is_sent_without_one() -> None:
    assert pack_page(Page(status=299)).startswith(b"HTTP/1.1 299 \r\n")


def test_no_content_has_neither_body_nor_length() -> None:
    _, headers, body = parts(pack_page(Page("ignored", status=204)))
    assert (body, b"Content-Length" in headers, b"Content-Type" in headers) == (b"", False, False)


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
        [("transfer-encoding", "chunked")],
        [("content-type", "text/html; charset=utf-8")],
    ],
)
def test_headers_that_would_break_the_response_are_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        Page("", headers=headers)


def test_a_type_cannot_carry_a_second_header() -> None:
    with pytest.raises(ValueError, match="header 'content-type'"):
        Page("", "text/plain\r\nX-Injected: yes")


@pytest.mark.parametrize("status", [0, 99, 101, 199, 600])
def test_only_a_final_status_is_accepted(status: int) -> None:
    with pytest.raises(ValueError, match="status"):
        Page(status=status)


def test_a_body_is_text_or_bytes() -> None:
    with pytest.raises(ValueError, match="not dict"):
        Page({"a": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("result", [None, 3, {"a": 1}])
def test_anything_else_a_page_function_returns_is_an_error(result: Any) -> None:
    with pytest.raises(TypeError, match="a page function returns"):
        page_of(result)


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        page_of(tmp_path / "none.html")
