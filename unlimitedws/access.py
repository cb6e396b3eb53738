"""The access log: one line for each WebSocket at its end, and one for each plain HTTP request.

On the logger `unlimitedws.access`, with everything also as fields for JSON lines. Never the query of a target: tokens
travel there. Never a header, for the same reason.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, unquote

from unlimitedws.logs import ACCESS, PATH_CHARACTERS
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Close
from unlimitedws.wire.handshake import Refusal

log = logging.getLogger(ACCESS)

METHOD_CHARACTERS = 20

SAFE = "/:@!$&'()*+,;=~"  # RFC 3986, section 3.3: what a path holds as it is


def websocket_ended(connection: Any, close: Close, bytes_in: int, bytes_out: int, seconds: float) -> None:
    """The line of a WebSocket. connection: with path, remote_address and id; the rest as `contract.Front.ended` has it."""
    if not log.isEnabledFor(logging.INFO):
        return
    path, address = connection.path, shown(connection.remote_address)
    log.info(
        "%s %s websocket %s %d in=%d out=%d %.3fs id=%d",
        address, shown_path(path), close.cause, close.code, bytes_in, bytes_out, seconds, connection.id,
        extra={
            "kind": f"websocket {close.cause}", "address": address, "path": path[:PATH_CHARACTERS],
            "id": str(connection.id),  # as in /connections: a number in JavaScript or jq holds 53 bits of its 64
            "cause": str(close.cause), "code": close.code, "bytes_in": bytes_in, "bytes_out": bytes_out, "duration_s": round(seconds, 3),
        },
    )  # fmt: skip


def http_answered(method: str, path: str, address: Address, status: int, bytes_out: int, seconds: float) -> None:
    """The line of a plain HTTP request. path: decoded, without the query.  bytes_out: of the body."""
    if not log.isEnabledFor(logging.INFO):
        return
    where = shown(address)
    log.info(
        "%s %s %s %d out=%d %.3fs",
        where, shown_path(path), quote(method, SAFE), status, bytes_out, seconds,
        extra={
            "kind": f"http {status}", "address": where, "path": path[:PATH_CHARACTERS], "method": method, "status": status,
            "bytes_out": bytes_out, "duration_s": round(seconds, 3),
        },
    )  # fmt: skip


def refused(head: bytes, address: Address, refusal: Refusal, seconds: float = 0.0) -> None:
    """The line of a request that was refused, by the hook of an app or because it is none.

    head: its raw head, of which nothing need be right.  address: the client's."""
    method, _, target = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = unquote(target.partition(" ")[0].partition("?")[0])
    status, size = int(refusal.response[9:12]), len(refusal.response) - refusal.response.index(b"\r\n\r\n") - 4
    http_answered(method[:METHOD_CHARACTERS], path, address, status, size, seconds)


def shown_path(path: str) -> str:
    """A path as one word of a line, its end left out where it is long."""
    return quote(path[:PATH_CHARACTERS], SAFE) + ("..." if len(path) > PATH_CHARACTERS else "")


def shown(address: Address) -> str:
    """An address as one word: 192.0.2.1:4000, [2001:db8::1]:4000, or the (escaped) path of a Unix socket."""
    if isinstance(address, str):
        return quote(address, SAFE) or "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
