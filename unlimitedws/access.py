"""The access log: one line for each WebSocket at its end, and one for each plain HTTP request.

On the logger `unlimitedws.access`, with everything also as fields for JSON lines. Never the query of a target: tokens
travel there. Never a header, for the same reason.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from unlimitedws.logs import ACCESS
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Close

log = logging.getLogger(ACCESS)

SAFE = "/:@!$&'()*+,;=~"  # RFC 3986, section 3.3: what a path holds as it is


def websocket_ended(connection: Any, close: Close, bytes_in: int, bytes_out: int, seconds: float) -> None:
    """The line of a WebSocket. connection: with path, remote_address and id; the rest as `contract.Front.ended` has it."""
    if not log.isEnabledFor(logging.INFO):
        return
    path, address = connection.path, shown(connection.remote_address)
    log.info(
        "%s %s websocket %s %d in=%d out=%d %.3fs id=%d",
        address, quote(path, SAFE), close.cause, close.code, bytes_in, bytes_out, seconds, connection.id,
        extra={
            "kind": f"websocket {close.cause}", "address": address, "path": path, "id": connection.id, "cause": str(close.cause),
            "code": close.code, "bytes_in": bytes_in, "bytes_out": bytes_out, "duration_s": round(seconds, 3),
        },
    )  # fmt: skip


def http_answered(method: str, path: str, address: Address, status: int, bytes_out: int, seconds: float) -> None:
    """The line of a plain HTTP request. method: a token.  path: decoded, without the query.  bytes_out: of the body."""
    if not log.isEnabledFor(logging.INFO):
        return
    where = shown(address)
    log.info(
        "%s %s %s %d out=%d %.3fs",
        where, quote(path, SAFE), method, status, bytes_out, seconds,
        extra={
            "kind": f"http {status}", "address": where, "path": path, "method": method, "status": status,
            "bytes_out": bytes_out, "duration_s": round(seconds, 3),
        },
    )  # fmt: skip


def shown(address: Address) -> str:
    """An address as one word: 192.0.2.1:4000, [2001:db8::1]:4000, or the (escaped) path of a Unix socket."""
    if isinstance(address, str):
        return quote(address, SAFE) or "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
