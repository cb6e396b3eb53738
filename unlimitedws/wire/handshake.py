"""The server's half of the opening handshake (RFC 6455, section 4.2).

`examine` checks a complete request head: it is a handshake (`Asked`), a plain HTTP request (`Plain`), or a
mistake with its answer (`Refusal`). Whether the app lets a handshake in is decided a floor above; `grant` makes
the `Upgrade` of one that may come in. A refusal is one line of text that says what is wrong, and the end of the
connection.
"""

from __future__ import annotations

import binascii
import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from hashlib import sha1
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import Terms
from unlimitedws.wire.head import TOKEN, BadRequestLine, Head, HeadError, parse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
KEY_BYTES = 16
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
SUPPORTED_VERSION = b"13"

BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
ABSOLUTE_FORM = re.compile(rb"(?:http|https|ws|wss)://[^/?]+", re.IGNORECASE)  # RFC 9112, section 3.2.2

Route = Callable[[bytes], tuple[str, int] | None]
"""Path of a request target, without its query -> decoded path and endpoint index; None: no such path."""


class Upgrade(NamedTuple):
    """The answer to a request that becomes a WebSocket: send `response`, then frames."""

    response: bytes
    path: str  #: percent-decoded, without the query
    endpoint: int  #: index into `Front.endpoints`
    subprotocol: str | None
    state: Any = None  #: becomes `conn.state`
    deflate: Terms | None = None  #: permessage-deflate as agreed; None: no compression
    remote_address: tuple[str, int] | str | None = None  #: what a trusted proxy said; None: the socket's
    expires_at: float | None = None  #: unix time at which the connection is closed with Cause.EXPIRED


class Refusal(NamedTuple):
    """The answer to any other request: send `response`, then close. `cause` is what is counted."""

    response: bytes
    cause: Cause


class Asked(NamedTuple):
    """A handshake that passed every check: what it asks for."""

    key: bytes
    path: str  #: percent-decoded, without the query
    endpoint: int
    subprotocols: Sequence[bytes] = ()  #: offered, the client's favourite first
    extensions: Sequence[bytes] = ()  #: values of Sec-WebSocket-Extensions


class Plain(NamedTuple):
    """A request that is no handshake."""

    head: Head
    target: bytes  #: its path as it was sent, without the query
    path: str  #: percent-decoded


class BadTarget(HeadError):
    """A request target that names no path."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the request target {why}")


def examine(head: bytes, *, route: Route) -> Asked | Plain | Refusal:
    """What a complete request head is (up to and with its empty line). Raises only what `route` raises."""
    try:
        request = parse(head)
        target = path_bytes(request.target)
        path = percent_decode(target)
    except HeadError as error:
        return refusal(error.status, str(error))
    if b"websocket" not in lower(request.items(b"upgrade")):
        return Plain(request, target, path)
    return examine_upgrade(request, target, route)


def examine_upgrade(request: Head, target: bytes, route: Route) -> Asked | Refusal:
    """A request with `Upgrade: websocket` (section 4.2.1, in the order of its list)."""
    if request.method != b"GET":
        return refusal(405, "a WebSocket handshake is a GET request", "Allow: GET", bodiless=request.method == b"HEAD")
    found = route(target)
    if found is None:
        return refusal(404, "no WebSocket at this path")
    path, endpoint = found
    why = fault(request)
    if why:
        return refusal(400, why)
    if request.all(b"sec-websocket-version") != [SUPPORTED_VERSION]:
        return refusal(426, "this server speaks WebSocket version 13", "Sec-WebSocket-Version: 13", UPGRADE)
    key = request.all(b"sec-websocket-key")[0]
    return Asked(key, path, endpoint, request.items(b"sec-websocket-protocol"), request.all(b"sec-websocket-extensions"))


def fault(request: Head) -> str | None:
    """What makes a GET with `Upgrade: websocket` no handshake; None where it is one (its version apart)."""
    if b"upgrade" not in lower(request.items(b"connection")):
        return "Connection does not contain upgrade"
    if request.announces_body:
        return "a WebSocket handshake has no body"
    if not all(TOKEN.fullmatch(name) for name in request.items(b"sec-websocket-protocol")):
        return "Sec-WebSocket-Protocol is not a list of tokens"
    keys = request.all(b"sec-websocket-key")
    if len(keys) != 1:
        return f"the request has {len(keys)} Sec-WebSocket-Key headers; it needs exactly one"
    if not is_key(keys[0]):
        return "Sec-WebSocket-Key is not 16 bytes in base64"
    return None


def refuse_plain(request: Plain, *, is_websocket: bool) -> Refusal:
    """The answer to a plain HTTP request that nobody else answers. is_websocket: whether its path is that of an endpoint."""
    bodiless = request.head.method == b"HEAD"
    if not is_websocket:
        return refusal(404, "nothing at this path", bodiless=bodiless)
    if request.head.method != b"GET":
        return refusal(405, "a WebSocket handshake is a GET request", "Allow: GET", bodiless=bodiless)
    return refusal(426, "this is a WebSocket: connect with a WebSocket client", UPGRADE)


UPGRADE = "Upgrade: websocket"  # RFC 9110, section 15.5.22: a 426 names the protocol


def no_request() -> Refusal:
    """The answer to what cannot become a request, however it goes on (`head.may_begin`)."""
    return refusal(BadRequestLine.status, str(BadRequestLine()))


def too_large(limit_bytes: int) -> Refusal:
    """The answer to a head that is longer than `limit_bytes`."""
    return refusal(431, f"the request head is longer than {limit_bytes} bytes")


def refusal(status: int, why: str, *headers: str, cause: Cause = Cause.HANDSHAKE_REFUSED, bodiless: bool = False) -> Refusal:
    """A complete response that ends the connection. bodiless: the answer to HEAD (RFC 9110, section 9.3.2)."""
    body = why.encode() + b"\n"
    # One line: some clients (Python's http.client) look at the first Connection line only.
    connection = "close, Upgrade" if UPGRADE in headers else "close"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Connection: {connection}",
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Refusal(head if bodiless else head + body, cause)


def grant(
    asked: Asked,
    subprotocol: str | None = None,
    headers: bytes = b"",
    state: Any = None,
    deflate: Terms | None = None,
    expires_at: float | None = None,
) -> Upgrade:
    """The answer to a handshake that may come in.

    subprotocol: one of those offered.  headers: whole lines, each with its CRLF.  The others: see `Upgrade`."""
    key, path, endpoint, _, _ = asked
    return Upgrade(accept(key, subprotocol, headers), path, endpoint, subprotocol, state, deflate, None, expires_at)


def accept(key: bytes, subprotocol: str | None = None, headers: bytes = b"") -> bytes:
    """The 101 response (section 4.2.2)."""
    if subprotocol is not None:
        headers = b"Sec-WebSocket-Protocol: %b\r\n%b" % (subprotocol.encode("ascii"), headers)
    return b"".join((SWITCHING, accept_key(key), b"\r\n", headers, b"\r\n"))


def accept_key(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that proves we understood the Sec-WebSocket-Key `key` (section 4.2.2, item 5.4)."""
    return b2a_base64(sha1(key + GUID, usedforsecurity=False).digest(), newline=False)


def is_key(key: bytes) -> bool:
    """Whether `key` is 16 bytes in base64, whatever they are."""
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == KEY_BYTES
    except binascii.Error:
        return False


def choose(ours: Sequence[str], offered: Sequence[bytes]) -> str | None:
    """The first of our subprotocols that the client offers; None: go on without one."""
    return next((name for name in ours if name.encode() in offered), None)


def path_bytes(target: bytes) -> bytes:
    """The path of a request target, still encoded, without the query. Raises BadTarget."""
    absolute = ABSOLUTE_FORM.match(target)
    if absolute:
        target = target[absolute.end() :]
        if not target.startswith(b"/"):  # RFC 9112, section 3.2.1: an empty path is "/"
            target = b"/" + target
    if not target.startswith(b"/"):
        raise BadTarget("is neither a path nor an absolute URI")
    return target.partition(b"?")[0]


def percent_decode(path: bytes) -> str:
    """The text of an encoded path (RFC 3986, section 2.1). Raises BadTarget."""
    if b"%" in path and BAD_ESCAPE.search(path):
        raise BadTarget("has a '%' that two hexadecimal digits do not follow")
    try:
        return (unquote_to_bytes(path) if b"%" in path else path).decode()
    except UnicodeDecodeError:
        raise BadTarget("is not UTF-8 once decoded") from None


def lower(items: Sequence[bytes]) -> list[bytes]:
    return [item.lower() for item in items]
