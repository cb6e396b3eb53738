"""The server's half of the opening handshake (RFC 6455, section 4.2).

`answer` turns a complete request head into the response: an `Upgrade` for a WebSocket, a `Refusal` for
anything else, be it a mistake or a plain HTTP request for a page of the app. Extensions are ignored: none
is negotiated. A refusal is one line of text that says what is wrong, and the end of the connection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from unlimitedws.wire.closing import Cause
from unlimitedws.wire.head import TOKEN, Head, HeadError, parse

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
KEY_BYTES = 16
SUPPORTED_VERSION = b"13"

BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
ABSOLUTE_FORM = re.compile(rb"(?:http|https|ws|wss)://[^/?]+", re.IGNORECASE)  # RFC 9112, section 3.2.2

Route = Callable[[bytes], tuple[str, int] | None]
"""Path of a request target, without its query -> decoded path and endpoint index; None: no such path."""

Subprotocols = Callable[[int], Sequence[str]]
"""Endpoint index -> its subprotocols, the preferred one first."""

Page = Callable[[Head], bytes | None]
"""Head of a plain GET or HEAD request -> the complete response; None: not a page of the app."""


class Upgrade(NamedTuple):
    """The answer to a request that becomes a WebSocket: send `response`, then frames."""

    response: bytes
    path: str  #: percent-decoded, without the query
    endpoint: int  #: index into `Front.endpoints`
    subprotocol: str | None


class Refusal(NamedTuple):
    """The answer to any other request: send `response`, then close. `cause` is what is counted."""

    response: bytes
    cause: Cause


class BadTarget(HeadError):
    """A request target that names no path."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the request target {why}")


def answer(
    head: bytes,
    *,
    route: Route,
    subprotocols: Subprotocols = lambda endpoint: (),
    page: Page | None = None,
) -> Upgrade | Refusal:
    """The answer to a complete request head (up to and with its empty line). Raises only what the callables raise."""
    try:
        request = parse(head)
        target = path_bytes(request.target)
        percent_decode(target)
    except HeadError as error:
        return refusal(error.status, str(error))
    if b"websocket" not in lower(request.items(b"upgrade")):
        return answer_plain(request, target, route, page)
    return answer_upgrade(request, target, route, subprotocols)


def answer_upgrade(request: Head, target: bytes, route: Route, subprotocols: Subprotocols) -> Upgrade | Refusal:
    """The answer to a request with `Upgrade: websocket` (section 4.2.1, in the order of its list)."""
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
        return refusal(426, "this server speaks WebSocket version 13", "Sec-WebSocket-Version: 13", *UPGRADE)
    subprotocol = choose(subprotocols(endpoint), request.items(b"sec-websocket-protocol"))
    return Upgrade(accept(request.all(b"sec-websocket-key")[0], subprotocol), path, endpoint, subprotocol)


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


def answer_plain(request: Head, target: bytes, route: Route, page: Page | None) -> Refusal:
    """The answer to a request without `Upgrade: websocket`: a page of the app, or why there is none."""
    readable = request.method in (b"GET", b"HEAD")
    if readable and page is not None:
        response = page(request)
        if response is not None:
            return Refusal(response, Cause.HTTP_ANSWERED)
    bodiless = request.method == b"HEAD"
    if route(target) is None:
        return refusal(404, "nothing at this path", bodiless=bodiless)
    if request.method != b"GET":
        return refusal(405, "a WebSocket handshake is a GET request", "Allow: GET", bodiless=bodiless)
    return refusal(426, "this is a WebSocket: connect with a WebSocket client", *UPGRADE)


UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")  # RFC 9110, section 15.5.22: a 426 names the protocol


def too_large(limit_bytes: int) -> Refusal:
    """The answer to a head that is longer than `limit_bytes`."""
    return refusal(431, f"the request head is longer than {limit_bytes} bytes")


def refusal(status: int, why: str, *headers: str, bodiless: bool = False) -> Refusal:
    """A complete response that ends the connection. bodiless: the answer to HEAD (RFC 9110, section 9.3.2)."""
    body = why.encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Refusal(head if bodiless else head + body, Cause.HANDSHAKE_REFUSED)


def accept(key: bytes, subprotocol: str | None) -> bytes:
    """The 101 response (section 4.2.2)."""
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode("ascii")
    return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n%b\r\n" % (
        accept_key(key),
        chosen,
    )


def accept_key(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that proves we understood the Sec-WebSocket-Key `key` (section 4.2.2, item 5.4)."""
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


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
    if BAD_ESCAPE.search(path):
        raise BadTarget("has a '%' that two hexadecimal digits do not follow")
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise BadTarget("is not UTF-8 once decoded") from None


def lower(items: Sequence[bytes]) -> list[bytes]:
    return [item.lower() for item in items]
