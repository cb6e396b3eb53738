"""Where a URL leads, and what is said there."""

from __future__ import annotations

import socket

import pytest

from tests.peer import ACCEPT, KEY
from unlimitedws.bench.target import accept, parse, words
from unlimitedws.errors import BenchError


@pytest.mark.parametrize(
    ("url", "host", "path", "address"),
    [
        ("ws://127.0.0.1:8000", "127.0.0.1:8000", "/", ("127.0.0.1", 8000)),
        ("ws://127.0.0.1/a/b?c=d&e", "127.0.0.1", "/a/b?c=d&e", ("127.0.0.1", 80)),
        ("ws://127.0.0.1:1?x", "127.0.0.1:1", "/?x", ("127.0.0.1", 1)),
        ("ws://[::1]:9/", "[::1]:9", "/", ("::1", 9, 0, 0)),
        ("wss://127.0.0.1/", "127.0.0.1", "/", ("127.0.0.1", 443)),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, path: str, address: tuple[object, ...]) -> None:
    target = parse(url)
    assert (target.host, target.path, target.address, target.is_loopback) == (host, path, address, True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8000", "is no WebSocket URL; it looks like ws://host:port/path"),
        ("http://127.0.0.1/a?b", "is no WebSocket URL; did you mean ws://127.0.0.1/a?b?"),
        ("https://127.0.0.1/", "did you mean wss://127.0.0.1/?"),
        ("ws+unix:/run/app.sock", "a Unix socket cannot be loaded"),
        ("ws:///path", "is no WebSocket URL"),
        ("ws://127.0.0.1:x/", "is no URL"),
        ("ws://127.0.0.1:99999/", "is no URL"),
        ("ws://127.0.0.1/#here", "has no fragment"),
        ("ws://me:secret@127.0.0.1/", "--header 'Authorization"),
        ("ws://127.0.0.1/\u00e9", "escape"),
        ("ws://no.such.host.invalid/", "'no.such.host.invalid' is not known"),
    ],
)
def test_what_leads_nowhere_says_why(url: str, words: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse(url)
    assert words in str(caught.value)


def test_addresses_are_packed_as_the_kernel_reads_them() -> None:
    assert parse("ws://127.0.0.1:258/").packed == socket.AF_INET.to_bytes(2, "little") + b"\x01\x02\x7f\0\0\x01" + bytes(8)
    assert parse("ws://[::1]:258/").packed == socket.AF_INET6.to_bytes(2, "little") + b"\x01\x02" + bytes(4) + bytes(15) + b"\x01" + bytes(
        4
    )


def test_the_accept_of_a_key_is_that_of_the_standard() -> None:
    assert accept(KEY) == ACCEPT


def test_a_request_has_what_was_asked_for_and_a_key_of_its_own() -> None:
    said = words(parse("ws://127.0.0.1:1/x?y"), ["Cookie: a=b", "Origin: http://z"], ["chat", "superchat"])
    request = said.requests[0]
    assert request.startswith(b"GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert request.endswith(b"\r\n\r\n")
    assert {b"Cookie: a=b", b"Origin: http://z", b"Sec-WebSocket-Protocol: chat, superchat"} <= set(request.split(b"\r\n"))
    assert len(set(said.requests)) == len(said.requests) == len(said.accepts)
    assert said.offered == b"chat, superchat"


def test_the_host_may_be_another() -> None:
    request = words(parse("ws://127.0.0.1:1/"), ["host: example.org"]).requests[0]
    assert request.lower().count(b"host:") == 1


@pytest.mark.parametrize("header", ["no colon", "Bad Name: x", "A: b\r\nC: d", "Upgrade: h2c", "Sec-WebSocket-Protocol: chat"])
def test_a_header_that_cannot_be_sent_is_an_error(header: str) -> None:
    with pytest.raises(BenchError, match=r"^--header "):
        words(parse("ws://127.0.0.1:1/"), [header])
