from __future__ import annotations

from typing import Any

import h11
import pytest

from unlimitedws.cookies import Cookie
from unlimitedws.verdict import Accept, Reject


def parsed(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body as h11 reads them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body


def test_an_accept_adds_nothing_unless_it_is_told_to() -> None:
    accept = Accept()
    assert (accept.subprotocol, accept.headers, accept.cookies, accept.state, accept.expires_at) == (None, (), (), None, None)
    assert accept.pack_headers() == b""


def test_headers_and_cookies_of_an_accept_are_packed_as_lines() -> None:
    accept = Accept(headers={"X-Room": "blue"}, cookies=[("a", "1"), Cookie("b", "2", max_age=0)])
    assert accept.pack_headers() == (
        b"X-Room: blue\r\n"
        b"Set-Cookie: a=1; Path=/; Secure; HttpOnly; SameSite=Lax\r\n"
        b"Set-Cookie: b=2; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax\r\n"
    )


def test_headers_may_be_pairs_where_a_name_comes_twice() -> None:
    assert Accept(headers=[("Link", "a"), ("Link", "b")]).pack_headers() == b"Link: a\r\nLink: b\r\n"


@pytest.mark.parametrize(
    "name", ["Upgrade", "connection", "Sec-WebSocket-Accept", "sec-websocket-protocol", "Sec-WebSocket-Extensions", "Content-Length"]
)
def test_the_headers_of_the_handshake_are_the_servers(name: str) -> None:
    with pytest.raises(ValueError, match="written by the server"):
        Accept(headers={name: "x"})


@pytest.mark.parametrize("subprotocol", ["", "a b", "chat,x", "é", 3])
def test_a_subprotocol_is_a_token(subprotocol: Any) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        Accept(subprotocol)


@pytest.mark.parametrize("expires_at", ["1700000000", True, -1, float("nan"), float("inf")])
def test_expires_at_is_a_unix_time(expires_at: Any) -> None:
    with pytest.raises(ValueError, match="unix time"):
        Accept(expires_at=expires_at)


def test_the_repr_of_an_accept_shows_no_value() -> None:
    accept = Accept("chat", headers={"X-A": "secret"}, cookies=[("a", "secret")], state={"user": "secret"}, expires_at=17)
    assert repr(accept) == "<Accept subprotocol=chat expires_at=17 with headers, cookies, state>"
    assert repr(Accept()) == "<Accept subprotocol=None expires_at=None with nothing>"


def test_a_reject_is_a_whole_response_that_ends_the_connection() -> None:
    status, headers, body = parsed(Reject(403, "no\n").pack())
    assert status == 403
    assert headers == {"content-type": "text/plain; charset=utf-8", "content-length": "3", "connection": "close"}
    assert body == b"no\n"


def test_a_reject_has_its_own_headers_and_type() -> None:
    reject = Reject(401, b"{}", [("WWW-Authenticate", "Basic"), ("WWW-Authenticate", "Bearer"), ("Content-Type", "application/json")])
    packed = reject.pack()
    assert packed.startswith(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n")
    assert parsed(packed)[1]["content-type"] == "application/json"
    assert parsed(Reject(403, b"x").pack())[1]["content-type"] == "application/octet-stream"


def test_a_reject_may_redirect_or_have_a_status_without_a_name() -> None:
    assert parsed(Reject(302, headers={"Location": "/login"}).pack())[:2] == (
        302,
        {"location": "/login", "content-type": "text/plain; charset=utf-8", "content-length": "0", "connection": "close"},
    )
    assert parsed(Reject(499).pack())[0] == 499


def test_the_default_is_403_with_nothing_to_read() -> None:
    assert parsed(Reject().pack())[0::2] == (403, b"")
    assert repr(Reject(body="secret")) == "<Reject 403>"


@pytest.mark.parametrize("status", [101, 200, 204, 299, 304, 600, "403", True])
def test_a_refusal_is_an_error_or_a_redirect(status: Any) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Reject(status)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"body": 3}, TypeError),
        ({"headers": ["X-A: b"]}, TypeError),
        ({"headers": {"X-A": 3}}, TypeError),
        ({"headers": {"X A": "b"}}, ValueError),
        ({"headers": {"X-A": "b\r\nX-B: c"}}, ValueError),
        ({"headers": {"Content-Length": "3"}}, ValueError),
        ({"headers": {"Transfer-Encoding": "chunked"}}, ValueError),
        ({"headers": {"Connection": "keep-alive"}}, ValueError),
    ],
)
def test_what_cannot_be_sent_is_refused_when_it_is_made(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Reject(**given)
