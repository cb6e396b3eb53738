"""The opening handshake, from the server's side."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peer import ACCEPT, KEY, request
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.handshake import (
    Asked,
    Plain,
    Refusal,
    Upgrade,
    accept_key,
    choose,
    examine,
    grant,
    percent_decode,
    refusal,
    refuse_plain,
    too_large,
)
from unlimitedws.wire.head import HeadError

PATHS = {b"/": ("/", 0), b"/chat": ("/chat", 1), b"/a%20b": ("/a b", 2)}


def answered(head: bytes) -> Upgrade | Refusal:
    """The answer of an app that lets everybody in and has no other pages."""
    found = examine(head, route=PATHS.get)
    if isinstance(found, Asked):
        return grant(found)
    return refuse_plain(found, is_websocket=found.target in PATHS) if isinstance(found, Plain) else found


def status(answer: Upgrade | Refusal) -> int:
    return int(answer.response[9:12])


def changed(old: str, new: str) -> bytes:
    said = request()
    assert old.encode() in said
    return said.replace(old.encode(), new.encode())


def test_the_key_of_the_standard_gives_the_accept_of_the_standard() -> None:
    assert accept_key(KEY) == ACCEPT  # RFC 6455, section 1.3


def test_a_clean_request_is_upgraded() -> None:
    assert answered(request("/chat?token=1")) == Upgrade(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n",
        "/chat", 1, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [
        changed("Upgrade: websocket", "Upgrade: WebSocket"),
        changed("Upgrade: websocket", "Upgrade: h2c, websocket"),
        changed("Upgrade: websocket", "upgrade: h2c\r\nUPGRADE: websocket"),
        changed("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        changed("Connection: Upgrade", "connection: UPGRADE"),
        changed("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        changed("GET / ", "GET http://test/ "),
        changed("GET / ", "GET ws://test:80/?a=b "),
        changed("GET / ", "GET http://test "),
        changed("GET / ", "GET http://test?a=b "),
        request("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        request("/", "Content-Length: 0"),
        request("/", "Origin: https://example.com", "Cookie: a=b; c=d"),
    ],
)
def test_requests_that_are_upgraded_too(head: bytes) -> None:
    upgrade = answered(head)
    assert isinstance(upgrade, Upgrade)
    assert upgrade.path == "/"
    assert b"xtension" not in upgrade.response


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (changed("GET /", "POST /"), 405),
        (changed("GET /", "HEAD /"), 405),
        (changed("GET / ", "GET /nowhere "), 404),
        (changed("GET / ", "GET * "), 400),
        (changed("GET / ", "GET chat "), 400),
        (changed("GET / ", "GET /%zz "), 400),
        (changed("GET / ", "GET /%ff "), 400),
        (changed("HTTP/1.1", "HTTP/1.0"), 505),
        (changed("Connection: Upgrade", "Connection: keep-alive"), 400),
        (changed("Connection: Upgrade", "Connection: upgraded"), 400),
        (changed("Connection: Upgrade\r\n", ""), 400),
        (changed("Host: test", "Host: test\r\nHost: test"), 400),
        (changed("Host: test\r\n", ""), 400),
        (changed("Sec-WebSocket-Key: ", "Sec-WebSocket-Kex: "), 400),
        (request("/", "Sec-WebSocket-Key: " + KEY.decode()), 400),
        (changed(KEY.decode(), "short"), 400),
        (changed(KEY.decode(), base64.b64encode(b"x" * 15).decode()), 400),
        (changed(KEY.decode(), base64.b64encode(b"x" * 17).decode()), 400),
        (changed(KEY.decode(), "dGhlIHNhbXBsZSBub25jZ!=="), 400),
        (changed(KEY.decode(), ""), 400),
        (changed("Version: 13", "Version: 8"), 426),
        (changed("Version: 13", "Version: 13, 8"), 426),
        (changed("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (request("/", "Sec-WebSocket-Version: 13"), 426),
        (request("/", "Content-Length: 5"), 400),
        (request("/", "Transfer-Encoding: chunked"), 400),
        (request("/", "Sec-WebSocket-Protocol: a b"), 400),
        (changed("Upgrade: websocket", "Upgrade: h2c"), 426),
        (changed("Upgrade: websocket\r\n", ""), 426),
        (b"GET /chat HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"POST /chat HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"HEAD /chat HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"not http\r\n\r\n", 400),
    ],
)
def test_what_is_refused_and_with_which_status(head: bytes, expected: int) -> None:
    refused = answered(head)
    assert isinstance(refused, Refusal)
    assert status(refused) == expected
    assert refused.cause is Cause.HANDSHAKE_REFUSED
    lines, _, body = refused.response.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in lines
    if head.startswith(b"HEAD"):
        assert body == b""
    else:
        assert f"\r\nContent-Length: {len(body)}\r\n".encode() in lines
        assert body.endswith(b"\n")
        assert body.count(b"\n") == 1


def test_a_wrong_version_is_told_ours() -> None:
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answered(changed("Version: 13", "Version: 8")).response


def test_a_plain_get_of_a_websocket_is_told_to_upgrade() -> None:
    response = answered(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").response
    lines = response.split(b"\r\n")
    assert b"Upgrade: websocket" in lines
    assert [line for line in lines if line.startswith(b"Connection")] == [b"Connection: close, Upgrade"]


def test_another_method_is_told_which_is_allowed() -> None:
    assert b"\r\nAllow: GET\r\n" in answered(b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n").response


def test_a_plain_request_is_told_apart_with_its_path_in_both_forms() -> None:
    found = examine(b"POST /a%20b?c HTTP/1.1\r\nHost: x\r\n\r\n", route=PATHS.get)
    assert isinstance(found, Plain)
    assert (found.head.method, found.target, found.path) == (b"POST", b"/a%20b", "/a b")


def test_a_handshake_says_what_it_asks_for() -> None:
    head = request("/chat", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Extensions: x; y=1", "Sec-WebSocket-Extensions: z")
    assert examine(head, route=PATHS.get) == Asked(KEY, "/chat", 1, [b"a", b"b"], [b"x; y=1", b"z"])


def test_a_grant_carries_subprotocol_headers_and_terms() -> None:
    upgrade = grant(Asked(KEY, "/chat", 1, [b"a"]), "a", b"Set-Cookie: b=c\r\n", state=5, expires_at=6.0)
    assert upgrade.response.endswith(ACCEPT + b"\r\nSec-WebSocket-Protocol: a\r\nSet-Cookie: b=c\r\n\r\n")
    assert upgrade[1:] == ("/chat", 1, "a", 5, None, None, 6.0)


def test_the_first_of_our_subprotocols_that_is_offered_is_chosen() -> None:
    assert choose(("b", "a"), [b"a", b"b"]) == "b"
    assert choose(("c", "a"), [b"a", b"b"]) == "a"
    assert choose(("c",), [b"a", b"C"]) is None
    assert choose((), [b"a"]) is None
    asked = examine(request("/", "Sec-WebSocket-Protocol: a,b", "Sec-WebSocket-Protocol: c"), route=PATHS.get)
    assert isinstance(asked, Asked)
    assert choose(("c", "b"), asked.subprotocols) == "c"


def test_a_path_is_decoded_once() -> None:
    upgrade = answered(changed("GET / ", "GET /a%20b?x=%20 "))
    assert isinstance(upgrade, Upgrade)
    assert upgrade.path == "/a b"
    assert percent_decode(b"/%2525") == "/%25"
    assert percent_decode(b"/d%C3%A9j%c3%a0") == "/déjà"


@pytest.mark.parametrize("path", [b"/%", b"/%1", b"/%g0", b"/%c3", b"/%ed%a0%80"])
def test_a_path_that_cannot_be_decoded_raises(path: bytes) -> None:
    with pytest.raises(HeadError, match="target"):
        percent_decode(path)


def test_too_large_is_431_and_names_the_limit() -> None:
    assert status(too_large(256)) == 431
    assert b"256 bytes" in too_large(256).response


def test_a_refusal_of_head_has_the_length_but_no_body() -> None:
    assert refusal(404, "no", bodiless=True).response.endswith(b"Content-Length: 3\r\nConnection: close\r\n\r\n")


@given(st.binary(max_size=100))
def test_any_bytes_get_an_answer(noise: bytes) -> None:
    assert isinstance(answered(noise + b"\r\n\r\n"), Refusal)


def test_any_sixteen_bytes_are_a_key() -> None:
    for _ in range(50):
        assert isinstance(answered(changed(KEY.decode(), base64.b64encode(os.urandom(16)).decode())), Upgrade)
