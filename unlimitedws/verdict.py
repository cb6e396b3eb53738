"""What an `on_upgrade` hook returns: None or `Accept` lets the client in, `Reject` does not."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from unlimitedws.cookies import Cookie, checked_cookies
from unlimitedws.wire.header import NAME, Headers, checked_headers, pack_headers

UPGRADE_HEADERS = frozenset(
    (
        "upgrade", "connection", "content-length", "transfer-encoding", "sec-websocket-accept", "sec-websocket-extensions",
        "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version",
    )
)  # fmt: skip
"""Of the 101: what the handshake itself writes."""

FRAMING_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})
"""Of a refusal: what says where it ends."""


class Accept:
    """Lets the client in, on these terms.

    subprotocol: one that the client offered; None: the first of `Handlers.subprotocols` that it offered.
    headers: more of them in the 101, a mapping or pairs.  cookies: `Cookie` objects or pairs of name and value.
    state: becomes `conn.state`.  expires_at: unix time at which the connection is closed with 1008 (`Cause.EXPIRED`),
    unless the worker is told a later one.

    Raises ValueError or TypeError for what cannot be sent."""

    __slots__ = ("cookies", "expires_at", "headers", "state", "subprotocol")

    def __init__(
        self,
        subprotocol: str | None = None,
        headers: Headers = (),
        cookies: Iterable[Cookie | tuple[str, str]] = (),
        state: Any = None,
        expires_at: float | None = None,
    ) -> None:
        if subprotocol is not None and not (isinstance(subprotocol, str) and NAME.fullmatch(subprotocol)):
            raise ValueError(f"a subprotocol is a token of RFC 9110 (letters, digits, !#$%&'*+-.^_`|~); {subprotocol!r} is not")
        if expires_at is not None and not is_time(expires_at):
            raise ValueError(f"expires_at is a unix time in seconds (time.time() + 3600), not {expires_at!r}")
        self.subprotocol = subprotocol
        self.headers = checked_headers(headers, ours=UPGRADE_HEADERS) if headers else ()
        self.cookies = checked_cookies(cookies) if cookies else ()
        self.state = state
        self.expires_at = expires_at

    def pack_headers(self) -> bytes:
        """The header lines that it adds to the 101, each with its CRLF."""
        if not self.headers and not self.cookies:
            return b""
        return pack_headers((*self.headers, *(("Set-Cookie", cookie.pack()) for cookie in self.cookies)))

    def __repr__(self) -> str:
        given = [name for name in ("headers", "cookies", "state") if getattr(self, name)]  # their values may be secret
        return f"<Accept subprotocol={self.subprotocol} expires_at={self.expires_at} with {', '.join(given) or 'nothing'}>"


class Reject:
    """Turns the client away with an HTTP answer.

    status: 400 to 599, or a redirect (300 to 399 but 304).  body: str is sent as UTF-8 text, bytes as they are.
    headers: a mapping or pairs, besides those of framing; a Content-Type replaces the body's own.

    Raises ValueError or TypeError for what cannot be sent. Browsers show a page neither status nor body of a refused
    WebSocket; a page that must know why is told by a close code after an accept."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 403, body: str | bytes = "", headers: Headers = ()) -> None:
        if type(status) is not int or not 300 <= status <= 599 or status == 304:
            raise ValueError(f"the status of a refusal is 400 to 599, or a redirect (300 to 399 but 304); not {status!r}")
        if not isinstance(body, str | bytes):
            raise TypeError(f"the body of a refusal is str or bytes, not {type(body).__name__}")
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.headers = checked_headers(headers, ours=FRAMING_HEADERS)
        if not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers += (("Content-Type", "text/plain; charset=utf-8" if isinstance(body, str) else "application/octet-stream"),)

    def pack(self) -> bytes:
        """The complete response, which ends the connection."""
        framing = (("Content-Length", str(len(self.body))), ("Connection", "close"))
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, phrase(self.status), pack_headers((*self.headers, *framing)), self.body)

    def __repr__(self) -> str:
        return f"<Reject {self.status}>"


Verdict = Accept | Reject | None


def is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def phrase(status: int) -> bytes:
    """The reason phrase, which may be empty (RFC 9112, section 4)."""
    return HTTPStatus(status).phrase.encode() if status in KNOWN else b""


KNOWN = frozenset(HTTPStatus)
